"""Events of a few users whose state can be counted by hand.

ann  views Alpha on 3 January, rates Beta 2 on 10 February 23:59:59.999 and Alpha 5 on 1 March 00:00: three events,
     two items; the thirty days before 2 March hold the last two; mean rating 3.5
bob  clicks Gamma once; no rating
"""

import json
from datetime import UTC, datetime
from typing import Any

from recsys.artifacts import TOPIC_IMPRESSIONS, TOPIC_INTERACTIONS
from streaming.events import Message

RECEIVED_AT = datetime(2020, 3, 2, tzinfo=UTC)


def instant(month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0, micro: int = 0) -> datetime:
    return datetime(2020, month, day, hour, minute, second, micro, UTC)


def interaction(event_id: str, user_id: str, item_id: str, at: datetime, **other: Any) -> dict[str, Any]:
    return {
        "event_id": event_id, "user_id": user_id, "item_id": item_id, "rating": None, "occurred_at": at.isoformat(),
        "domain": "movies", "event_type": "click", "context": {}, **other,
    }  # fmt: skip


def impression(event_id: str, user_id: str, item_id: str, at: datetime, **other: Any) -> dict[str, Any]:
    return {
        "event_id": event_id, "request_id": "r1", "user_id": user_id, "item_id": item_id, "rank": 1, "score": 0.5,
        "domain": "movies", "variant": "champion", "model_version": "1", "propensity": 0.99, "rung": "personalised",
        "shown_at": at.isoformat(), **other,
    }  # fmt: skip


ANN = [
    interaction("a1", "ann", "m:alpha", instant(1, 3), event_type="view"),
    interaction("a2", "ann", "m:beta", instant(2, 10, 23, 59, 59, 999_000), event_type="rate", rating=2.0),
    interaction("a3", "ann", "m:alpha", instant(3, 1), event_type="rate", rating=5.0),
]
BOB = [interaction("b1", "bob", "m:gamma", instant(2, 1, 12))]
FEATURES = {
    "ann": {
        "user_interactions_total": 3,
        "user_interactions_30d": 2,
        "user_distinct_items": 2,
        "user_mean_rating": 3.5,
    },
    "bob": {
        "user_interactions_total": 1,
        "user_interactions_30d": 1,
        "user_distinct_items": 1,
        "user_mean_rating": None,
    },
}
EVENT_TIMESTAMPS = {"ann": instant(3, 2), "bob": instant(2, 2)}
HISTORIES = {"ann": ["m:beta", "m:alpha"], "bob": ["m:gamma"]}


def message(body: Any, topic: str = TOPIC_INTERACTIONS, offset: int = 0) -> Message:
    """Return a message whose value is this body as JSON; bytes and None are taken as they are."""
    value = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    return Message(topic, 0, offset, b"key", value, RECEIVED_AT)


def shown(body: Any) -> Message:
    return message(body, TOPIC_IMPRESSIONS)
