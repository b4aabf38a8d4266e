"""Effects on Redis: the users' live state (recsys/user_state.py), from what the warehouse holds."""

from collections.abc import Iterable
from typing import Any

from recsys import user_state
from streaming.land import Landed, UserFeatures


def write_landed(client: Any, landed: Landed) -> None:
    """Carry a batch to Redis in one round trip: history, features, and the version that makes cached answers stale."""
    if not landed.items:
        return
    with client.pipeline(transaction=False) as pipeline:
        for user_id, items in landed.items.items():
            _queue(pipeline, user_id, items, landed.features.get(user_id))
        pipeline.execute()


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
