"""From marts to a registered ranker on real services: a world where liking depends on user and item together."""

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.deploy import place_ranker, ranker_champion
from recsys import receipts
from recsys.artifacts import ALIAS_CHAMPION, ITEM_FEATURES, RANKER, RANKER_FILES, USER_FEATURES
from recsys.errors import RecsysError, UnusableInput
from recsys.interval import Interval
from recsys.settings import HOME
from recsys.warehouse import connect
from tests.worlds import checkerboard
from training import point_in_time, rank, tasks
from training.rankers import dcn_v2

INTERVAL = Interval(("movies",), checkerboard.AS_OF)
USERS, ITEMS, A_USER = 60, 40, 30
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)


def write_events(connection) -> None:
    """Every user likes what is of the user's kind. Kinds show in mean ratings alone, which Feast has to bring."""
    rng = np.random.default_rng(3)
    connection.execute(
        "create table marts.fct_impressions (user_id text, item_id text, domain text, shown_at timestamptz,"
        " is_clicked boolean)"
    )
    rows = [
        (f"e{user}-{place}", f"p:{user}", f"i:{item}", 5.0 if user % 2 == item % 2 else 1.0,
         BEGIN + timedelta(days=1 + 5 * place, minutes=user))
        for user in range(USERS)
        for place, item in enumerate(rng.permutation(ITEMS)[:A_USER].tolist())
    ]  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("delete from marts.fct_interactions")
        cursor.executemany(
            "insert into marts.fct_interactions values (%s, %s, %s, 'movies', 'rate', %s, %s, null, 'toy')", rows
        )
        cursor.executemany(
            "insert into marts.feat_user_activity values (%s, %s, 10, 5, 10, %s)",
            [(f"p:{user}", BEGIN, 2.0 + user % 2 * 2) for user in range(USERS)],
        )
        cursor.executemany(
            "insert into marts.feat_item_popularity values (%s, %s, 100, 50, %s)",
            [(f"i:{item}", BEGIN, 2.0 + item % 2 * 2) for item in range(ITEMS)],
        )


@pytest.fixture(scope="module")
def settings(world):
    settings = world("postgres", "redis", "mlflow")
    with connect(settings) as connection:
        for table in ("fct_interactions", "dim_items", "feat_user_activity", "feat_item_popularity", "fct_impressions"):
            connection.execute(f"drop table if exists marts.{table}")
        checkerboard.write_marts(connection)
        write_events(connection)
        cut = {
            "cut_id": "2020-06-01-toy", "cut_at": (BEGIN + timedelta(days=110)).isoformat(),
            "as_of": INTERVAL.end.isoformat(), "domains": ["movies"],
        }  # fmt: skip
        receipts.record(connection, tasks.CUT, INTERVAL.key, "toy cut", cut)
        receipts.record(connection, "feast.apply", receipts.key_of("feast.apply", INTERVAL.key), "applied", {})
    feast = [str(HOME / ".venv/platform/bin/feast"), "-c", "feature_repo", "apply", "--skip-source-validation"]
    environment = {**settings.child_environment(), "PYTHONPATH": str(HOME), "PYTHONOPTIMIZE": "1"}
    done = subprocess.run(feast, cwd=HOME, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return settings


@pytest.fixture(scope="module")
def tiny():
    small = {"layers": (16,), "batch_size": 64, "learning_rate": 0.02, "dropout": 0.0, "epochs": 12, "patience": 12}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dcn_v2.Config, "__init__", lambda self: super(dcn_v2.Config, self).__init__(**small))
        yield


@pytest.fixture(scope="module")
def first(settings, tiny):
    return rank.run(settings, INTERVAL, "dcn_v2")


@pytest.mark.services
def test_what_only_a_pair_says_is_found_and_wins_the_gate(first):
    assert (first["promoted"], first["events_kind"]) == (True, "ratings")
    assert first["auc"] > 0.95
    assert first["auc_baseline"] < 0.65
    assert first["over_baseline_low"] > 0
    assert first["test_users_judged"] > USERS / 2


@pytest.mark.services
def test_a_second_run_changes_nothing_and_the_version_says_where_it_came_from(settings, first):
    assert rank.run(settings, INTERVAL, "dcn_v2") == {**first, "unchanged": True}
    client = mlflow.MlflowClient(settings.mlflow_url)
    versions = client.search_model_versions(f"name = '{RANKER}'")
    assert [str(version.version) for version in versions] == [first["version"]]
    assert client.get_registered_model(RANKER).aliases[ALIAS_CHAMPION] == first["version"]
    tags = versions[0].tags
    assert (tags["cut_id"], tags["feature_service"], tags["events"]) == ("2020-06-01-toy", "ranking_v1", "ratings")
    assert {"git_commit", "seed", "domains", "auc", "over_baseline_low"} <= set(tags)
    with connect(settings) as connection:
        outcomes = connection.execute(
            "select verdict from monitoring.outcomes where check_name = %s", (rank.CHECK,)
        ).fetchall()
    assert outcomes == [("pass",)]


@pytest.mark.services
def test_a_ranker_of_windows_is_judged_against_the_champion_and_stays_challenger(settings, first, tiny):
    """Windows say nothing here: 1 event in all, 20 days ago."""
    with connect(settings) as connection:
        connection.execute(
            """
            create table marts.feat_user_windows as
            select user_id, event_timestamp, 0::bigint as user_events_1d, 0::bigint as user_events_7d,
                1::bigint as user_events_30d, 1::bigint as user_events_90d, 0::bigint as user_implicit_90d,
                20::bigint as user_days_since_event, 1::bigint as user_sessions_30d,
                null::float8 as user_recent_mean_rating
            from marts.feat_user_activity;
            create table marts.feat_item_windows as
            select item_id, event_timestamp, 0::bigint as item_events_1d, 0::bigint as item_events_7d,
                1::bigint as item_events_30d, 1::bigint as item_events_90d, 0::bigint as item_implicit_90d,
                20::bigint as item_days_since_event, 0.5::float8 as item_events_decayed,
                null::float8 as item_recent_mean_rating
            from marts.feat_item_popularity
            """
        )
    second = rank.run(settings, INTERVAL, "dcn_v2", "ranking_v2")
    assert second["auc"] > 0.95
    assert second["over_champion_low"] <= second["over_champion_high"]
    assert second["promoted"] is False
    assert second["champion"] == f"{RANKER}/{first['version']}"
    client = mlflow.MlflowClient(settings.mlflow_url)
    assert client.get_model_version(RANKER, second["version"]).tags["feature_service"] == "ranking_v2"
    with pytest.raises(RecsysError, match="Choose among ranking_v1, ranking_v2"):
        rank.run(settings, INTERVAL, "dcn_v2", "ranking_v9")


@pytest.mark.services
def test_deployment_puts_the_champion_beside_the_bundle_and_takes_it_away(settings, first, tmp_path):
    folder = tmp_path / "v1"
    folder.mkdir()
    champion = ranker_champion(settings.mlflow_url)
    place_ranker(settings, folder, champion)
    said = json.loads((folder / RANKER_FILES[1]).read_text())
    assert (said["version"], said["user_features"]) == (first["version"], list(USER_FEATURES))
    numbers = np.array([[10, 5, 10, 4, 100, 50, 4], [10, 5, 10, 4, 100, 50, 2]], np.float32)
    liked, disliked = rank.answers(folder / RANKER_FILES[0], numbers, 1, len(USER_FEATURES))
    assert liked > 0.9 > 0.1 > disliked
    before = os.stat(folder / RANKER_FILES[0]).st_mtime_ns
    place_ranker(settings, folder, champion)
    assert os.stat(folder / RANKER_FILES[0]).st_mtime_ns == before
    place_ranker(settings, folder, None)
    assert list(folder.iterdir()) == []


@pytest.mark.services
def test_without_dislikes_it_says_what_is_missing(settings, first):
    with connect(settings) as connection, pytest.raises(UnusableInput, match="likes and dislikes"):
        rank.read_events(connection, INTERVAL, "2020-01-01T00:00:00+00:00", 1)
    with pytest.raises(RecsysError, match="Choose among dcn_v2"):
        rank.run(settings, INTERVAL, "crystal_ball")


def test_the_gate_wants_both_intervals_above_zero():
    won = {"over_baseline_difference": 0.1, "over_baseline_low": 0.05, "over_baseline_high": 0.2}
    tied = {"over_champion_difference": 0.0, "over_champion_low": -0.1, "over_champion_high": 0.1}
    assert rank.decide(won, has_champion=False)[0]
    assert rank.decide(won, has_champion=True) == (
        False, "no test user liked some items and not others, so nothing is proved against the champion"
    )  # fmt: skip
    assert not rank.decide({**won, **tied}, has_champion=True)[0]
    assert rank.decide({**won, **{key: 0.1 for key in tied}}, has_champion=True)[0]
    assert not rank.decide({**won, "over_baseline_low": 0.0}, has_champion=False)[0]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 3)), min_size=1, max_size=20))
def test_auc_per_user_is_each_users_own(events):
    rows = pd.DataFrame(events, columns=["user_id", "label", "score"])
    found = rank.auc_per_user(rows, rows["score"].to_numpy(float))
    assert len(found) == rows["user_id"].nunique()
    for (_, own), value in zip(rows.groupby("user_id"), found, strict=True):
        likes, others = own["score"][own["label"]].to_numpy(), own["score"][~own["label"]].to_numpy()
        pairs = [(a > b) + (a == b) / 2 for a in likes for b in others]
        assert np.isnan(value) if not pairs else value == pytest.approx(np.mean(pairs))


def test_the_features_have_the_order_of_the_service():
    assert point_in_time.SIDES["ranking_v1"] == (USER_FEATURES, ITEM_FEATURES)


def test_a_champion_of_fewer_features_finds_its_own_among_more():
    mine, theirs = ([*user, *item] for user, item in map(point_in_time.SIDES.get, ("ranking_v2", "ranking_v1")))
    assert [mine[place] for place in rank.columns_of("ranking_v1", among="ranking_v2")] == theirs
    with pytest.raises(UnusableInput, match="lacks user_events_1d"):
        rank.columns_of("ranking_v2", among="ranking_v1")
