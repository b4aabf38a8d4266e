"""The process `python -m streaming` with everything real, Feast too: killed in the middle, and asked how it is."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psycopg
import pytest
import redis

from recsys import artifacts
from recsys.settings import HOME, Settings
from recsys.task import command_environment, run_command
from streaming.consumer import Batches
from tests.ports import free_port
from tests.streaming.log import eventually, landed, producer, uncommitted
from tests.worlds.clicks import impression, instant, interaction, message, shown

pytestmark = pytest.mark.services

EVENTS, HALF = 2000, 1000
USERS = [f"u:{number}" for number in range(40)]


def body(number: int) -> dict:
    """Event `number`: 40 users walk over 90 items, each at their own pace; some rate."""
    at = instant(1, 1) + timedelta(minutes=number * 37 % 90_000)
    rating = float(number % 6) if number % 3 else None
    return interaction(f"e{number}", USERS[number % 40], f"m:{number * 7 % 90}", at, rating=rating)


BODIES = [body(number) for number in range(EVENTS)]
SHOWN = [impression(f"i{number}", USERS[number % 40], "m:1", instant(2, 1)) for number in range(100)]


@pytest.fixture(scope="module")
def settings(world) -> Settings:
    settings = world("postgres", "redis", "kafka")
    with psycopg.connect(settings.postgres_url) as connection:
        connection.execute(
            """
            create table marts.feat_user_activity (
                user_id text, event_timestamp timestamptz, user_interactions_total bigint, user_interactions_30d bigint,
                user_distinct_items bigint, user_mean_rating double precision);
            create table marts.feat_item_popularity (
                item_id text, event_timestamp timestamptz, item_interactions_total bigint, item_interactions_90d bigint,
                item_mean_rating double precision);
            create table marts.feat_user_windows (
                user_id text, event_timestamp timestamptz, user_events_1d bigint, user_events_7d bigint,
                user_events_30d bigint, user_events_90d bigint, user_implicit_90d bigint, user_days_since_event bigint,
                user_sessions_30d bigint, user_recent_mean_rating double precision);
            create table marts.feat_item_windows (
                item_id text, event_timestamp timestamptz, item_events_1d bigint, item_events_7d bigint,
                item_events_30d bigint, item_events_90d bigint, item_implicit_90d bigint, item_days_since_event bigint,
                item_events_decayed double precision, item_recent_mean_rating double precision)
            """
        )
    apply = ("env", "PYTHONOPTIMIZE=1", "feast", "-c", "feature_repo", "apply", "--no-progress")
    run_command(apply, command_environment(settings))
    return settings.model_copy(update={"streaming_url": f"http://127.0.0.1:{free_port()}"})


def answer(settings: Settings, path: str) -> str:
    try:
        with urlopen(settings.streaming_url + path, timeout=5) as reply:
            return reply.read().decode()
    except URLError:
        return ""


def start(settings: Settings) -> subprocess.Popen[str]:
    """Start the station's process; return when it is well, or over."""
    started = subprocess.Popen(
        [sys.executable, "-m", "streaming"], cwd=HOME,
        env=os.environ | {"RECSYS_STREAMING_URL": settings.streaming_url},
        text=True, stdout=subprocess.PIPE, stderr=(settings.var_dir / "streaming.log").open("a"),
    )  # fmt: skip
    eventually(lambda: started.poll() is not None or "consuming 8" in answer(settings, "/healthz"), seconds=180)
    assert started.poll() is None, (settings.var_dir / "streaming.log").read_text()[-4000:]
    return started


@dataclass
class Disturbed:
    """A consumer that goes on where a killed one was, and what both left."""

    process: subprocess.Popen[str]
    landed_at_the_kill: int
    left: dict[str, Any]
    feast: dict[str, list]


@pytest.fixture(scope="module")
def disturbed(settings) -> Iterator[Disturbed]:
    """2000 events and 100 impressions; the first consumer is killed by SIGKILL among them, the second one ends them."""
    with ExitStack() as ending:
        send = ending.enter_context(producer(settings))
        first = start(settings)
        ending.callback(first.kill)
        send(*BODIES[:HALF])
        send(*SHOWN, topic=artifacts.TOPIC_IMPRESSIONS)
        eventually(lambda: landed(settings) > 0)
        send(*BODIES[HALF:])
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        landed_at_the_kill = landed(settings)
        second = start(settings)
        ending.callback(second.kill)
        eventually(lambda: landed(settings) == EVENTS and uncommitted(settings) == 0)
        eventually(lambda: uncommitted(settings, artifacts.TOPIC_IMPRESSIONS) == 0)
        yield Disturbed(second, landed_at_the_kill, snapshot(settings), feast_answers(settings))


def snapshot(settings: Settings) -> dict[str, Any]:
    """All that the effects left, without the versions, which may move once more, and the transactions' numbers."""
    with psycopg.connect(settings.postgres_url) as connection:
        tables = {
            table: connection.execute(f"select to_jsonb(t) - 'landed_tx' from {table} t order by 1").fetchall()
            for table in ("raw.interactions_stream", artifacts.RAW_IMPRESSIONS)
        }
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as client:
        histories = {user: client.zrange(f"history:{user}", 0, -1, withscores=True) for user in USERS}
        features = {user: client.hgetall(f"features:{user}") for user in USERS}
    return {"tables": tables, "histories": histories, "features": features}


def feast_answers(settings: Settings) -> dict[str, list]:
    """What Feast's online store gives for all users, asked in a process of its own."""
    asked = f"""
import json
from feast import FeatureStore
store = FeatureStore(repo_path="feature_repo")
rows = [{{"user_id": user}} for user in {USERS!r}]
service = store.get_feature_service({artifacts.FEATURE_SERVICE_RETRIEVAL!r})
print(json.dumps(store.get_online_features(service, entity_rows=rows).to_dict()))
"""
    return json.loads(run_command((sys.executable, "-O", "-c", asked), command_environment(settings))[-1])


def test_killed_in_the_middle_and_started_again_it_leaves_what_an_undisturbed_one_leaves(settings, disturbed):
    assert 0 < disturbed.landed_at_the_kill < EVENTS  # else nothing was disturbed
    with psycopg.connect(settings.postgres_url) as connection:
        connection.execute("truncate raw.interactions, raw.impressions")
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
    undisturbed = Batches(settings, push=len, clock=lambda: datetime.now(UTC))
    undisturbed.handle([*map(message, BODIES), *map(shown, SHOWN)])
    undisturbed.close()

    assert len(disturbed.left["tables"]["raw.interactions_stream"]) == EVENTS
    assert disturbed.left == snapshot(settings)


def test_feast_offers_what_the_user_state_holds(disturbed):
    assert disturbed.feast["user_id"] == USERS
    for name in artifacts.USER_FEATURES:
        held = [float(disturbed.left["features"][user][name]) for user in USERS]
        assert disturbed.feast[name] == pytest.approx(held)


def test_a_click_reaches_the_users_state_within_a_second(settings, disturbed):
    with producer(settings) as send, redis.Redis.from_url(settings.redis_url) as client:
        seconds = []
        for number in range(30):
            item = f"m:clicked-{number}"
            began = time.perf_counter()
            send(interaction(f"c{number}", "u:0", item, datetime.now(UTC)))
            eventually(lambda item=item: client.zscore("history:u:0", item) is not None)
            seconds.append(time.perf_counter() - began)
    assert statistics.median(seconds) < 1, seconds


def test_it_tells_its_metrics(settings, disturbed):
    eventually(lambda: "recsys_stream_lag_messages 0.0" in answer(settings, "/metrics"))
    metrics = answer(settings, "/metrics")
    assert re.search(r'recsys_stream_events_total\{outcome="landed",topic="interactions.v1"\} [1-9]', metrics)
    assert re.search(r"recsys_stream_pushed_rows_total [1-9]", metrics)
    assert answer(settings, "/elsewhere") == ""


def test_told_to_end_it_ends_in_order(disturbed):
    disturbed.process.send_signal(signal.SIGTERM)
    out, _ = disturbed.process.communicate(timeout=60)
    assert disturbed.process.returncode == 0
    assert json.loads(out.splitlines()[-1]) == {"ended_by": "signal", "unchanged": False}


def test_a_taken_port_is_told_in_one_sentence(settings):
    taken = settings.kafka_bootstrap
    ended = subprocess.run(
        [sys.executable, "-m", "streaming"], cwd=HOME, capture_output=True, text=True,
        env=os.environ | {"RECSYS_STREAMING_URL": f"http://{taken}"},
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"FAILED RecsysError: RECSYS_STREAMING_URL: http://{taken}. ")
