"""What Feast offers is what the marts say: online the latest row, for training the row known at the instant."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureStore
from feast.data_source import PushMode

from recsys import artifacts, receipts
from recsys.settings import HOME, Settings
from recsys.task import Task, run_task
from recsys.warehouse import connect
from tests.worlds.warehouse import EPOCH, FEATURE_TABLES, INTERVAL, insert, instant
from training import point_in_time

FEAST = ("env", "PYTHONOPTIMIZE=1", "feast", "-c", "feature_repo")  # as dags/station_operator.py calls it
APPLY = Task(
    "feast.apply", INTERVAL, (*FEAST, "apply", "--skip-source-validation", "--no-progress"), code=("feature_repo",)
)
MATERIALIZE = Task(
    "feast.materialize", INTERVAL,
    ("python", "-m", "streaming", "materialize", "--as-of=2020-03-01", "--domains=movies"),
    code=("feature_repo", "streaming"), after=("dbt.build", "feast.apply"), is_online=True,
)  # fmt: skip
MICROSECOND = timedelta(microseconds=1)

USER_ROWS = [
    ("u:ann", instant(1, 11), 2, 2, 2, 3.0),
    ("u:ann", instant(2, 21), 3, 1, 3, 4.5),
    ("u:bob", instant(2, 11), 1, 1, 1, None),
]
ITEM_ROWS = [
    ("m:1", instant(2, 1), 1, 1, 4.0),
    ("m:1", instant(3, 1), 2, 2, 3.5),
]

CATEGORY_ROWS = [
    ("u:ann", "Drama", instant(1, 11), 1, 1, 1, 1, 0, 0, 4.0),
    ("u:ann", "Drama", instant(1, 12), 0, 1, 1, 1, 0, 1, 4.0),
]


@pytest.fixture(scope="module")
def offered(world) -> Settings:
    """The feature tables by hand, applied and materialised by the commands of the DAG."""
    settings = world("postgres", "redis")
    with connect(settings) as connection:
        connection.execute(FEATURE_TABLES)
        insert(connection, artifacts.FEAT_USER_ACTIVITY, USER_ROWS)
        insert(connection, artifacts.FEAT_ITEM_POPULARITY, ITEM_ROWS)
        insert(connection, artifacts.FEAT_USER_WINDOWS, [("u:ann", instant(1, 11), 2, 2, 2, 2, 0, 0, 1, 3.0)])
        insert(connection, artifacts.FEAT_ITEM_WINDOWS, [("m:1", instant(3, 1), 1, 1, 1, 2, 0, 0, 1.5, 3.5)])
        insert(connection, artifacts.FEAT_USER_CATEGORY_WINDOWS, CATEGORY_ROWS)
        insert(connection, artifacts.FEAT_ITEM_PRICES, [("m:1", instant(2, 1), 9.5, 1.0, 9.5, 2.0)])
        insert(connection, artifacts.ITEM_TEXTS, [("movies", "m:1", EPOCH, [0.6, -0.8], INTERVAL.as_of)])
        receipts.record(connection, "dbt.build", INTERVAL.key, "built by hand", {})
    assert run_task(settings, APPLY)["unchanged"] is False
    assert run_task(settings, MATERIALIZE)["unchanged"] is False
    return settings


@pytest.fixture(scope="module")
def store(offered):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in offered.child_environment().items():
            patch.setenv(name, value)
        yield FeatureStore(repo_path=str(HOME / "feature_repo"))


def online(store: FeatureStore, service: str, **entities: str) -> dict:
    """Return the online features of one entity by name, in the order of their names."""
    answer = store.get_online_features(store.get_feature_service(service), entity_rows=[entities]).to_dict()
    return {name: values[0] for name, values in answer.items() if name not in entities}


def user_row(row: tuple) -> dict:
    return dict(zip(artifacts.USER_FEATURES, row[2:], strict=True))


def test_the_services_offer_the_features_that_the_artifacts_name(store):
    offers = {
        service.name: [feature.name for view in service.feature_view_projections for feature in view.features]
        for service in store.list_feature_services()
    }
    assert {name: sorted(features) for name, features in offers.items()} == {
        artifacts.FEATURE_SERVICE_RETRIEVAL: sorted(artifacts.USER_FEATURES),
        artifacts.FEATURE_SERVICE_RANKING: sorted(artifacts.USER_FEATURES + artifacts.ITEM_FEATURES),
        artifacts.FEATURE_SERVICE_RANKING_WINDOWS: sorted(
            artifacts.USER_FEATURES
            + artifacts.USER_WINDOW_FEATURES
            + artifacts.ITEM_FEATURES
            + artifacts.ITEM_WINDOW_FEATURES
        ),
        artifacts.FEATURE_SERVICE_ANALYSIS: sorted(
            artifacts.USER_FEATURES
            + artifacts.USER_WINDOW_FEATURES
            + artifacts.USER_CATEGORY_FEATURES
            + artifacts.ITEM_FEATURES
            + artifacts.ITEM_WINDOW_FEATURES
            + artifacts.ITEM_PRICE_FEATURES
            + artifacts.ITEM_TEXT_FEATURES
        ),
    }


def test_online_is_the_latest_row_of_the_mart(store):
    assert online(store, artifacts.FEATURE_SERVICE_RETRIEVAL, user_id="u:ann") == user_row(USER_ROWS[1])
    assert online(store, artifacts.FEATURE_SERVICE_RETRIEVAL, user_id="u:bob") == user_row(USER_ROWS[2])
    both = online(store, artifacts.FEATURE_SERVICE_RANKING, user_id="u:ann", item_id="m:1")
    item = dict(zip(artifacts.ITEM_FEATURES, ITEM_ROWS[1][2:], strict=True))
    assert both == user_row(USER_ROWS[1]) | item


def test_the_second_ranking_service_adds_the_windows(store):
    found = online(store, artifacts.FEATURE_SERVICE_RANKING_WINDOWS, user_id="u:ann", item_id="m:1")
    assert found["user_events_7d"] == 2
    assert found["item_events_decayed"] == 1.5
    assert found["item_mean_rating"] == 3.5


def test_an_analysis_knows_categories_prices_and_texts_of_its_instant(store):
    asked = pd.DataFrame(
        {"user_id": "u:ann", "item_id": "m:1", "category": ["Drama", "Drama", "War"],
         "event_timestamp": [instant(1, 11), instant(2, 1), instant(2, 1)]}
    )  # fmt: skip
    service = store.get_feature_service(artifacts.FEATURE_SERVICE_ANALYSIS)
    found = store.get_historical_features(entity_df=asked, features=service).to_df()
    found = found.sort_values(["category", "event_timestamp"]).to_dict("records")
    assert [row["user_category_events_1d"] for row in found[:2]] == [1, 0]
    assert pd.isna(found[2]["user_category_events_1d"])
    assert pd.isna(found[0]["item_price"])
    assert [row["item_price"] for row in found[1:]] == [9.5, 9.5]
    assert [list(row["item_text_vector"]) for row in found] == [[0.6, -0.8]] * 3


def test_an_unknown_user_has_no_features(store):
    assert set(online(store, artifacts.FEATURE_SERVICE_RETRIEVAL, user_id="u:nobody").values()) == {None}


@pytest.mark.parametrize(
    ("at", "known"),
    [
        (instant(1, 11) - MICROSECOND, None),
        (instant(1, 11), USER_ROWS[0]),
        (instant(2, 21) - MICROSECOND, USER_ROWS[0]),
        (instant(2, 21), USER_ROWS[1]),
        (instant(12, 31), USER_ROWS[1]),
    ],
)
def test_training_sees_the_row_known_at_the_instant(store, at: datetime, known):
    asked = pd.DataFrame({"user_id": ["u:ann"], "event_timestamp": [at]})
    service = store.get_feature_service(artifacts.FEATURE_SERVICE_RETRIEVAL)
    answer = store.get_historical_features(entity_df=asked, features=service).to_df().iloc[0]
    found = [None if pd.isna(answer[name]) else answer[name] for name in artifacts.USER_FEATURES]
    assert found == (list(known[2:]) if known else [None] * len(artifacts.USER_FEATURES))


def test_a_newer_push_wins_and_an_older_one_does_not(store):
    def push(at: datetime, total: int) -> None:
        row = {"user_id": ["u:bob"], "event_timestamp": [at], **{name: [total] for name in artifacts.USER_FEATURES}}
        frame = pd.DataFrame(row).astype({"user_mean_rating": float})
        store.push(artifacts.PUSH_SOURCE_USER_ACTIVITY, frame, to=PushMode.ONLINE)

    push(instant(2, 12), total=5)
    assert online(store, artifacts.FEATURE_SERVICE_RETRIEVAL, user_id="u:bob")["user_interactions_total"] == 5
    push(instant(2, 11, 12), total=4)
    assert online(store, artifacts.FEATURE_SERVICE_RETRIEVAL, user_id="u:bob")["user_interactions_total"] == 5


def test_what_has_been_offered_is_not_offered_again(offered):
    assert run_task(offered, APPLY) == {"task": "feast.apply", "unchanged": True}
    assert run_task(offered, MATERIALIZE) == {"task": "feast.materialize", "unchanged": True}


def test_training_knows_the_views_as_feast_does(store):
    """But for the service of analyses, with pairs and vectors: Feast's own look-up answers that."""

    def table(view: str) -> str:
        return store.get_feature_view(view).batch_source.get_table_query_string().replace('"', "")

    offered = {
        service.name: {
            table(view.name): {feature.name for feature in view.features} for view in service.feature_view_projections
        }
        for service in store.list_feature_services()
        if service.name != artifacts.FEATURE_SERVICE_ANALYSIS
    }
    known = {name: {view.table: set(view.features) for view in views} for name, views in point_in_time.VIEWS.items()}
    assert known == offered


@pytest.mark.parametrize("service", [artifacts.FEATURE_SERVICE_RETRIEVAL, artifacts.FEATURE_SERVICE_RANKING])
def test_training_joins_what_feast_joins(store, offered, service):
    rows = [row[1] for row in (*USER_ROWS, *ITEM_ROWS)]
    instants = [at + step for at in rows for step in (-MICROSECOND, timedelta(0), MICROSECOND)]
    asked = pd.DataFrame(
        [(user, item, at) for at in instants for user in ("u:ann", "u:bob", "u:nobody") for item in ("m:1", "m:2")],
        columns=["user_id", "item_id", "event_timestamp"],
    )
    answer = store.get_historical_features(entity_df=asked, features=store.get_feature_service(service)).to_df()
    names = [name for view in point_in_time.VIEWS[service] for name in view.features]
    key = ["user_id", "item_id", "event_timestamp"]
    for frame in (asked, answer):
        frame["event_timestamp"] = pd.to_datetime(frame["event_timestamp"], utc=True).astype("datetime64[us, UTC]")
    expected = asked.merge(answer.drop_duplicates(key), on=key, how="left")[names].to_numpy(np.float32)
    found = point_in_time.look_up(offered, pa.Table.from_pandas(asked, preserve_index=False), service)
    assert not np.isnan(found).all()
    np.testing.assert_array_equal(found, expected)
