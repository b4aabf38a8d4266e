"""When to train anew: each reason, each objection, and the decision on a real warehouse and registry."""

import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from recsys import receipts
from recsys.artifacts import ALIAS_CHAMPION, REGISTERED_MODEL, TAG_AS_OF
from recsys.errors import RecsysError, ServiceUnavailable
from recsys.promotion import CHECK_LIVE_QUALITY
from recsys.registry import champion_knows_until
from recsys.settings import Settings
from recsys.warehouse import Outcome, connect, write_outcomes
from streaming.health import Health, serve
from tests.infra.test_rollback import read_only
from tests.ports import free_port
from training.decide import LOCK, decide_retraining
from training.landed import FEW, landed
from training.move import enter
from training.retraining import Policy, Situation, decide

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
POLICY = Policy()
CALM = Situation(
    now=NOW, champion="3", trained_at=NOW - timedelta(days=2), decided_at=NOW - timedelta(days=2), known_rows=1000,
    expected_cpu_seconds=600.0, clicks_a_day=1000.0,
)  # fmt: skip


def test_nothing_calls_for_it():
    assert decide(CALM, POLICY).why == "nothing calls for it"


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ({"fall": 0.3}, "quality fell by 30%"),
        ({"drifted": ("a", "b", "c", "d")}, "drift of a, b, c and 1 more"),
        ({"new_rows": 100}, "100 new events beside 1000"),
        ({"trained_at": NOW - timedelta(days=7)}, "7 days old"),
    ],
)
def test_each_reason_is_enough(seen, why):
    found = decide(replace(CALM, **seen), POLICY)
    assert (found.retrain, why in found.why, len(found.reasons)) == (True, True, 1)


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ({"champion": None}, "no champion yet"),
        ({"under_way": "4"}, "version 4 is under way"),
        ({"decided_at": NOW - timedelta(hours=23)}, "cool-down of 24 h"),
        ({"decided_at": NOW - timedelta(minutes=59), "gave_candidate": False}, "gave no candidate: cool-down of 1 h"),
        ({"spent_cpu_seconds": 20 * 3600 - 599.0}, "budget of thirty days has 0.2 CPU hours left"),
        ({"clicks_a_day": 0.0}, "it would bring 0.0000 USD and cost 0.0083 USD"),
    ],
)
def test_each_objection_is_stronger_than_every_reason(seen, why):
    found = decide(replace(CALM, fall=0.3, drifted=("a",), **seen), POLICY)
    assert (found.retrain, why in found.why) == (False, True)


def test_after_a_retraining_that_gave_no_candidate_the_next_is_soon():
    failed = replace(CALM, fall=0.3, decided_at=NOW - timedelta(hours=2), gave_candidate=False)
    assert decide(failed, POLICY).retrain
    assert not decide(replace(failed, gave_candidate=True), POLICY).retrain
    assert decide(failed, replace(POLICY, cooldown_hours=1.5, retry_hours=9.0)).retrain, "never longer than the other"


@given(
    st.builds(
        Situation, now=st.just(NOW), champion=st.sampled_from([None, "3"]), under_way=st.sampled_from([None, "4"]),
        trained_at=st.none() | st.integers(0, 20).map(lambda days: NOW - timedelta(days=days)),
        gave_candidate=st.booleans(),
        decided_at=st.none() | st.integers(0, 90).map(lambda hours: NOW - timedelta(hours=hours)),
        fall=st.none() | st.floats(0, 1), new_rows=st.integers(0, 500), known_rows=st.integers(0, 1000),
        spent_cpu_seconds=st.floats(0, 1e5), expected_cpu_seconds=st.floats(0, 1e5), clicks_a_day=st.floats(0, 1e6),
    )
)  # fmt: skip
def test_a_yes_has_a_reason_is_worth_its_cost_and_is_not_said_twice(seen):
    found = decide(seen, POLICY)
    if found.retrain:
        assert found.reasons
        assert found.gain_usd >= found.cost_usd
        assert seen.spent_cpu_seconds + seen.expected_cpu_seconds <= POLICY.budget_cpu_hours * 3600
        assert not decide(replace(seen, decided_at=seen.now), POLICY).retrain


@pytest.fixture(scope="module")
def settings(world) -> Settings:
    settings = world("postgres", "mlflow").model_copy(update={"streaming_url": f"http://127.0.0.1:{free_port()}"})
    client = MlflowClient(settings.mlflow_url)
    client.create_registered_model(REGISTERED_MODEL)
    for _ in range(2):
        run = client.create_run("0")
        client.create_model_version(REGISTERED_MODEL, f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias(REGISTERED_MODEL, ALIAS_CHAMPION, "1")
    client.set_model_version_tag(REGISTERED_MODEL, "1", TAG_AS_OF, "2026-11-24T00:00:00+00:00")
    cut = {"cut_id": "cut", "as_of": "2026-11-24", "domains": ["movies"], "interactions_kept": 1000}
    with connect(settings) as connection:
        receipts.record(connection, "training.cut", "movies@2026-11-24", "x", cut)
        connection.execute(
            "insert into monitoring.model_evaluations values ('cut', '2026-11-24', 'ials', 'r', 'cpu_seconds', 600),"
            " ('cut', '2026-11-24', 'popularity', 'r', 'cpu_seconds', 6)"
        )
        connection.execute(
            "insert into raw.interactions (event_id, user_id, item_id, occurred_at, domain, event_type, source,"
            " landed_partition) select 'e' || n, 'u', 'i', %s, 'movies', 'click', 'stream', 'stream'"
            " from generate_series(1, 90) as n",
            (NOW - timedelta(hours=1),),
        )
    return settings


@pytest.mark.services
def test_an_alarm_leads_to_one_run_and_no_more(settings):
    assert decide_retraining(settings, NOW)["why"] == "nothing calls for it"
    alarm = {"at": (NOW - timedelta(minutes=5)).isoformat(), "fall": 0.4}
    with connect(settings) as connection:
        row = Outcome("monitoring", NOW.date(), CHECK_LIVE_QUALITY, "9", "<= 1", "warn", "version 1 at 11:55", alarm)
        write_outcomes(connection, [row])
        connection.execute(LOCK)
        with pytest.raises(RecsysError, match="another process decides"):
            decide_retraining(settings, NOW)
    with read_only(settings) as closed, pytest.raises(ServiceUnavailable, match="403"):
        decide_retraining(closed, NOW)
    enter(settings, "2", "", "it won", NOW - timedelta(minutes=1))
    assert "under way" in decide_retraining(settings, NOW)["why"]
    MlflowClient(settings.mlflow_url).set_model_version_tag(REGISTERED_MODEL, "2", "promotion_stage", "rolled_back")

    said = decide_retraining(settings, NOW)
    assert said["conf"] == {
        "as_of": "2026-11-26", "domains": ["movies"], "models": ["ials", "popularity"], "staged": True,
        "known_until": "2026-11-24T00:00:00+00:00",
    }  # fmt: skip
    assert "quality fell by 40%" in said["why"]
    assert "gave no candidate" in decide_retraining(settings, NOW + timedelta(minutes=1))["why"]
    MlflowClient(settings.mlflow_url).set_model_version_tag(
        REGISTERED_MODEL, "1", TAG_AS_OF, "2999-01-01T00:00:00+00:00"
    )
    assert champion_knows_until(settings.mlflow_url) < datetime(2999, 1, 1, tzinfo=UTC), "the day was not over"
    enter(settings, "1", "", "it won", NOW + timedelta(minutes=30))
    MlflowClient(settings.mlflow_url).set_model_version_tag(REGISTERED_MODEL, "1", "promotion_stage", "champion")
    assert "cool-down of 24 h" in decide_retraining(settings, NOW + timedelta(hours=2))["why"]
    assert decide_retraining(settings, NOW + timedelta(hours=25))["why"] == "nothing calls for it"


@pytest.mark.services
def test_drift_that_the_champion_has_learned_from_calls_for_nothing(settings):
    """Verdicts carry the day that ends their data; the last cut ends on 2026-11-24."""
    later = NOW + timedelta(hours=25)
    with connect(settings) as connection:
        of_the_cut = Outcome("monitoring", date(2026, 11, 24), "drift", "1", "<= .1", "warn", "learned")
        write_outcomes(connection, [of_the_cut])
    assert decide_retraining(settings, later)["why"] == "nothing calls for it"
    with connect(settings) as connection:
        write_outcomes(connection, [Outcome("monitoring", later.date(), "drift", "1", "<= .1", "warn", "new")])
    assert "drift of new" in decide_retraining(settings, later)["why"]


@pytest.fixture
def stream():
    """The consumer's own metrics page; the gauge is that of the process."""
    health, url = Health(), f"http://127.0.0.1:{free_port()}"
    server = serve(health, url)
    yield health, url
    server.shutdown()
    server.server_close()


def test_a_decision_waits_for_the_stream_and_no_longer_than_it_may(stream):
    health, url = stream
    patient = Settings(streaming_url=url, retraining_landing_seconds=30)
    health.polled(1, FEW)
    assert landed(patient) == FEW
    health.polled(1, 50_000)
    threading.Timer(0.5, health.polled, [1, 7]).start()
    assert landed(patient) == 7
    health.polled(1, 50_000)
    assert landed(Settings(streaming_url=url, retraining_landing_seconds=0)) == 50_000, "it trains on what is there"


def test_without_a_consumer_nothing_is_waited_for():
    assert landed(Settings(streaming_url=f"http://127.0.0.1:{free_port()}", retraining_landing_seconds=30)) is None
