"""A user's live state in the online store, beside Feast's own keys: what one answer needs, in one round trip.

    history:<user_id>    sorted set item_id → instant of the latest event in ms: the history and the seen set
    features:<user_id>   hash feature → decimal text: the online features of the feature service `retrieval_v1`
    version:<user_id>    counter that each of the user's events moves: answers cached under an older one are stale

Every write is idempotent except the counter, which only ever makes a cached answer stale. The functions take a
`redis.Redis` or a pipeline of one.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

MAX_HISTORY = 5000


class UserState(NamedTuple):
    """One user as the store knows them; empty for an unknown user."""

    history: list[str]
    """Item ids, oldest first."""
    features: dict[str, float]
    version: int


def history_key(user_id: str) -> str:
    return f"history:{user_id}"


def features_key(user_id: str) -> str:
    return f"features:{user_id}"


def version_key(user_id: str) -> str:
    return f"version:{user_id}"


def list_key(user_id: str, domain: str | None) -> str:
    """Key of a stored list, which serving writes and reads (serving/cache.py); None: of all domains."""
    return f"list:{user_id}:{domain or 'all'}"


def record_key(request_id: str) -> str:
    """Key of what an answer was made of, which serving writes and reads (serving/request_records.py)."""
    return f"request:{request_id}"


def add_events(client: Any, user_id: str, items: Iterable[tuple[str, datetime]]) -> None:
    """Add items with their instants to a user's history. An item's instant only ever moves forward, so the same events
    in any order, or twice, leave the same state."""
    scores = {}
    for item_id, instant in items:
        millis = int(instant.timestamp() * 1000)
        scores[item_id] = max(millis, scores.get(item_id, millis))
    if scores:
        client.zadd(history_key(user_id), scores, gt=True)
        client.zremrangebyrank(history_key(user_id), 0, -MAX_HISTORY - 1)


def set_features(client: Any, user_id: str, features: Mapping[str, float | None]) -> None:
    """Replace the named features of a user; a null one is removed."""
    present = {name: repr(float(value)) for name, value in features.items() if value is not None}
    absent = [name for name, value in features.items() if value is None]
    if present:
        client.hset(features_key(user_id), mapping=present)
    if absent:
        client.hdel(features_key(user_id), *absent)


def move_version(client: Any, user_id: str) -> None:
    """Make every cached answer of this user stale."""
    client.incr(version_key(user_id))


def queue_read(pipeline: Any, user_id: str) -> None:
    """Queue the three reads of one user on a pipeline; `decode` understands their replies.

    The version comes first, as it is written last: a list made from what is read here is never older than the version
    that it is kept under, whatever is written in between.
    """
    pipeline.get(version_key(user_id))
    pipeline.zrange(history_key(user_id), 0, -1)
    pipeline.hgetall(features_key(user_id))


def decode(replies: Sequence[Any]) -> UserState:
    """Return the state from the three replies of `queue_read`, of a client with `decode_responses=True`."""
    version, history, features = replies
    return UserState(list(history), {name: float(value) for name, value in features.items()}, int(version or 0))
