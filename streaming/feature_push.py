"""Effects on Feast: the users' features into the push source, online only (offline they come from dbt)."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from feast import FeatureStore
from feast.data_source import PushMode
from feast.errors import PushSourceNotFoundException
from sqlalchemy.exc import OperationalError

from recsys.artifacts import PUSH_SOURCE_USER_ACTIVITY
from recsys.columns import EVENT_TIMESTAMP, USER_ID
from recsys.errors import ServiceUnavailable
from recsys.settings import HOME
from streaming.land import UserFeatures

log = logging.getLogger(__name__)


class FeaturePush:
    """The push source of the installed feature repository.

    Reads feature_repo/feature_store.yaml, whose variables must be in the environment (`settings.child_environment()`).
    """

    def __init__(self) -> None:
        """Open the feature store.

        Raises:
            ServiceUnavailable: the registry's database does not answer.
        """
        try:
            self._store = FeatureStore(repo_path=str(HOME / "feature_repo"))
        except OperationalError as error:
            raise _unavailable(error) from error

    def __call__(self, features: Mapping[str, UserFeatures]) -> int:
        """Write the features online and return how many rows were written: none before the first `feast apply`, whose
        materialisation then brings them.

        Raises:
            ServiceUnavailable: the registry's database does not answer.
            redis.RedisError: the online store does not answer.
        """
        if not features:
            return 0
        try:
            self._store.push(PUSH_SOURCE_USER_ACTIVITY, frame(features), to=PushMode.ONLINE)
        except PushSourceNotFoundException:
            log.warning(
                "push source %s is not applied yet: %s rows not pushed", PUSH_SOURCE_USER_ACTIVITY, len(features)
            )
            return 0
        except OperationalError as error:
            raise _unavailable(error) from error
        return len(features)


def frame(features: Mapping[str, UserFeatures]) -> Any:
    """Return the rows to push as a DataFrame: user_id, event_timestamp, features.

    Feast's Redis store keeps a row unless the new one's timestamp is later. So the timestamp is the features' own
    midnight plus one microsecond for each event of the user: it moves with every event, a late one too, and is later
    than the materialised row of the same day, which knows fewer events or the same.
    """
    import pandas as pd

    rows = [
        {USER_ID: user_id, EVENT_TIMESTAMP: one.event_timestamp + timedelta(microseconds=_events(one)), **one.values}
        for user_id, one in features.items()
    ]
    return pd.DataFrame(rows).astype({"user_mean_rating": "float64"})


def _events(features: UserFeatures) -> int:
    return int(features.values["user_interactions_total"])


def _unavailable(error: OperationalError) -> ServiceUnavailable:
    return ServiceUnavailable("Feast's registry", str(error.orig).strip(), "Start PostgreSQL with `make up`")
