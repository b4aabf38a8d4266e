"""Effects on Feast's online store: the users' features as rows of the view that the push source feeds.

Offline they come from dbt. Written in Feast's own layout (recsys/online_features.py), of which Feast makes more work.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from recsys.online_features import USER_ACTIVITY, Row, write
from streaming.activity import UserFeatures


class FeaturePush:
    """Writes into Redis what Feast reads."""

    def __init__(self, client: Any):
        self._client = client

    def __call__(self, features: Mapping[str, UserFeatures]) -> int:
        """Write the features online and return how many rows were newer than what was there.

        Raises:
            redis.RedisError: the online store does not answer.
        """
        return write(self._client, USER_ACTIVITY, rows(features)) if features else 0


def rows(features: Mapping[str, UserFeatures]) -> list[Row]:
    """Return the rows to push.

    A row stays unless the new one's timestamp is later. So the timestamp is the features' own midnight plus one
    microsecond for each event of the user: it moves with every event, a late one too, and is later than the
    materialised row of the same day, which knows fewer events or the same.
    """
    return [
        (user_id, one.event_timestamp + timedelta(microseconds=_events(one)), list(one.values.values()))
        for user_id, one in features.items()
    ]


def _events(features: UserFeatures) -> int:
    return int(features.values["user_interactions_total"])
