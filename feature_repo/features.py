"""What the platform offers to training and serving: entities, feature views and the services that name them.

Each view reads a mart whose `event_timestamp` is the midnight from which a row is known and which covers only events
strictly before it; so a point-in-time join on `event_timestamp` never sees the future. A value stays valid until the
next one (`ttl` zero): the last known activity of a user who has been away is still what is known of them.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, PushSource
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.types import Array, Float64, Int64
from feast.value_type import ValueType

from recsys import artifacts
from recsys.columns import EVENT_TIMESTAMP, ITEM_ID, USER_ID

NEVER_EXPIRES = timedelta(0)
FLOATS = ("_mean_rating", "_decayed", "_price", "_to_mean", "_price_90d", "_sold_total")
VECTORS = ("_vector",)
CATEGORY = "category"


def features(names: tuple[str, ...]) -> list[Field]:
    """Return the fields of these features: means, sums and prices are floats, texts vectors, the rest counts."""
    kinds = ((VECTORS, Array(Float64)), (FLOATS, Float64), ("", Int64))
    return [Field(name=name, dtype=next(kind for ends, kind in kinds if name.endswith(ends))) for name in names]


def mart(name: str) -> PostgreSQLSource:
    """Return the source of a table whose rows are known from their `event_timestamp` on; it bears the table's name."""
    return PostgreSQLSource(name=name, table=name, timestamp_field=EVENT_TIMESTAMP)


def view(
    name: str, source: PostgreSQLSource | PushSource, of: list[Entity], names: tuple[str, ...], online: bool = True
) -> FeatureView:
    """Return the view of a source's features; one that is not `online` is for training sets and analyses only."""
    return FeatureView(name=name, entities=of, ttl=NEVER_EXPIRES, schema=features(names), source=source, online=online)


user = Entity(name="user", join_keys=[USER_ID], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=[ITEM_ID], value_type=ValueType.STRING)
category = Entity(name=CATEGORY, join_keys=[CATEGORY], value_type=ValueType.STRING)

# Streaming pushes fresh rows of the same shape between two builds of the mart; in the online store the later
# event_timestamp wins.
user_activity_push = PushSource(
    name=artifacts.PUSH_SOURCE_USER_ACTIVITY, batch_source=mart(artifacts.FEAT_USER_ACTIVITY)
)
user_activity = view(artifacts.FEATURE_VIEW_USER_ACTIVITY, user_activity_push, [user], artifacts.USER_FEATURES)
item_popularity = view(
    artifacts.FEATURE_VIEW_ITEM_POPULARITY, mart(artifacts.FEAT_ITEM_POPULARITY), [item], artifacts.ITEM_FEATURES
)

# A row of its own for each midnight at which a window changes: who has been away is at zero, not at their last count.
user_windows = view(
    artifacts.FEATURE_VIEW_USER_WINDOWS, mart(artifacts.FEAT_USER_WINDOWS), [user], artifacts.USER_WINDOW_FEATURES
)
item_windows = view(
    artifacts.FEATURE_VIEW_ITEM_WINDOWS, mart(artifacts.FEAT_ITEM_WINDOWS), [item], artifacts.ITEM_WINDOW_FEATURES
)

# Built by recsys_insight, not by the pipeline.
user_category_windows = view(
    artifacts.FEATURE_VIEW_USER_CATEGORY_WINDOWS,
    mart(artifacts.FEAT_USER_CATEGORY_WINDOWS),
    [user, category],
    artifacts.USER_CATEGORY_FEATURES,
    online=False,
)
item_prices = view(
    artifacts.FEATURE_VIEW_ITEM_PRICES,
    mart(artifacts.FEAT_ITEM_PRICES),
    [item],
    artifacts.ITEM_PRICE_FEATURES,
    online=False,
)
item_texts = view(
    artifacts.FEATURE_VIEW_ITEM_TEXTS, mart(artifacts.ITEM_TEXTS), [item], artifacts.ITEM_TEXT_FEATURES, online=False
)

retrieval_v1 = FeatureService(name=artifacts.FEATURE_SERVICE_RETRIEVAL, features=[user_activity])
ranking_v1 = FeatureService(name=artifacts.FEATURE_SERVICE_RANKING, features=[user_activity, item_popularity])
ranking_v2 = FeatureService(
    name=artifacts.FEATURE_SERVICE_RANKING_WINDOWS,
    features=[user_activity, user_windows, item_popularity, item_windows],
)
analysis_v1 = FeatureService(
    name=artifacts.FEATURE_SERVICE_ANALYSIS,
    features=[
        user_activity,
        user_windows,
        user_category_windows,
        item_popularity,
        item_windows,
        item_prices,
        item_texts,
    ],
)
