"""Effects on Redis: the users' live state (recsys/user_state.py), from what the warehouse holds."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from recsys import user_state
from recsys.online_features import send
from streaming.activity import UserFeatures
from streaming.land import Landed


def write_landed(client: Any, landed: Landed) -> None:
    """Carry a batch to Redis in one round trip: history, features, and the version that makes cached answers stale."""
    if not landed.items:
        return
    queue = Queue()
    for user_id, items in landed.items.items():
        _queue(queue, user_id, items, landed.features.get(user_id))
    send(client, queue.commands)


class Queue:
    """The commands of `recsys.user_state`, to be sent together."""

    def __init__(self) -> None:
        self.commands: list[tuple[Any, ...]] = []

    def zadd(self, key: str, scores: dict[str, int], gt: bool) -> None:
        self.commands.append(("ZADD", key, *(["GT"] if gt else []), *_flat((at, item) for item, at in scores.items())))

    def zremrangebyrank(self, key: str, start: int, end: int) -> None:
        self.commands.append(("ZREMRANGEBYRANK", key, start, end))

    def hset(self, key: str, mapping: dict[str, str]) -> None:
        self.commands.append(("HSET", key, *_flat(mapping.items())))

    def hdel(self, key: str, *fields: str) -> None:
        self.commands.append(("HDEL", key, *fields))

    def incr(self, key: str) -> None:
        self.commands.append(("INCR", key))


def _flat(pairs: Iterable[tuple[Any, Any]]) -> Iterator[Any]:
    return itertools.chain.from_iterable(pairs)


def replace(client: Any, users: Iterable[tuple[str, list, UserFeatures | None]]) -> None:
    """Put whole states in place of what is there: (user_id, items with instants, features) each. Readers see the old
    state or the new one."""
    with client.pipeline(transaction=True) as pipeline:
        for user_id, items, features in users:
            pipeline.delete(user_state.history_key(user_id), user_state.features_key(user_id))
            _queue(pipeline, user_id, items, features)
        pipeline.execute()


def _queue(pipeline: Any, user_id: str, items: list, features: UserFeatures | None) -> None:
    user_state.add_events(pipeline, user_id, items)
    if features:
        user_state.set_features(pipeline, user_id, features.values)
    user_state.move_version(pipeline, user_id)
