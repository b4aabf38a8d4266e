"""Effects on Redis: the users' live state (recsys/user_state.py), from what the warehouse holds."""

from collections.abc import Iterable
from typing import Any

from redis.exceptions import ResponseError

from recsys import user_state
from recsys.round_trip import send
from streaming.activity import UserFeatures
from streaming.land import Landed


def write_landed(client: Any, landed: Landed) -> None:
    """Carry a batch to Redis in one round trip: history, features, and the version that makes cached answers stale."""
    features = landed.features
    users = (
        (user_id, items, features[user_id].values if user_id in features else {})
        for user_id, items in landed.items.items()
    )
    if commands := list(user_state.carrying(users)):
        send(client, commands)


def replace(client: Any, users: Iterable[tuple[str, list, UserFeatures | None]]) -> None:
    """Put whole states in place of what is there: (user_id, items with instants, features) each. Readers see the old
    state or the new one."""
    whole = list(users)
    if not whole:
        return
    keys = [key(user_id) for user_id, _, _ in whole for key in (user_state.history_key, user_state.features_key)]
    told = ((user_id, items, features.values if features else {}) for user_id, items, features in whole)
    *_, carried = send(client, [("MULTI",), ("DEL", *keys), *user_state.carrying(told), ("EXEC",)])
    for reply in carried:
        if isinstance(reply, ResponseError):
            raise reply
