"""The consumer as a Spark query: the same rows as the consumer's own, also when it was killed in the middle; and the
consumer goes on where it ended, and the other way round."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pyarrow as pa
import pytest
import redis

from recsys import artifacts
from recsys.online_features import USER_ACTIVITY
from recsys.settings import HOME, Settings
from streaming import structured
from streaming.consumer import Batches
from streaming.events import Message
from tests.ports import free_port
from tests.streaming.log import dead_letters, eventually, landed, producer, uncommitted
from tests.worlds.clicks import impression, instant, interaction, message, shown

EVENTS = 3000
USERS = [f"u:{number}" for number in range(40)]
SHOWN = [impression(f"i{number}", USERS[number % 40], "m:1", instant(2, 1)) for number in range(200)]
BROKEN = [b"{", b'{"user_id": 1}', interaction("late", "u:1", "m:1", datetime(2199, 1, 1, tzinfo=UTC))]


def body(number: int) -> dict[str, Any]:
    at = instant(1, 1) + timedelta(minutes=number * 37 % 90_000)
    rating = float(number % 6) if number % 3 else None
    return interaction(f"e{number}", USERS[number % 40], f"m:{number * 7 % 90}", at, rating=rating)


BODIES = [body(number) for number in range(EVENTS)]


def arrow(messages: list[Message], prefix: str = "") -> pa.RecordBatch:
    """Messages as Spark's Kafka source gives them."""
    rows = [{**one._asdict(), "topic": prefix + one.topic, "timestamp": one.sent_at} for one in messages]
    types = {
        "topic": pa.string(), "partition": pa.int32(), "offset": pa.int64(), "key": pa.binary(), "value": pa.binary(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }  # fmt: skip
    return pa.RecordBatch.from_pylist(rows, schema=pa.schema(list(types.items())))


def test_a_batch_of_spark_holds_the_messages_of_the_log():
    told = [message(BODIES[0], offset=7), message(None, offset=8), shown(SHOWN[0])]
    assert list(structured.messages_of(arrow(told, "mine."), "mine.")) == told


def test_chunks_keep_the_order_and_lose_none():
    numbers = list(range(10))
    assert list(structured.chunks(numbers, 4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(structured.chunks([], 4)) == []


def test_a_query_begins_where_the_group_stands():
    committed = {("a.v1", 0): 17, ("a.v1", 1): None, ("b.v1", 0): 0}
    assert json.loads(structured.starting_offsets(committed, "mine.")) == {
        "mine.a.v1": {"0": 17, "1": -2},
        "mine.b.v1": {"0": 0},
    }


def test_the_lag_is_what_spark_reports():
    def place(first: int, second: int) -> str:
        return json.dumps({"t": {"0": first, "1": second}})

    assert structured.lag(None) == 0
    assert structured.lag({"sources": [{"endOffset": place(4, 9), "latestOffset": place(10, 9)}]}) == 6
    assert structured.lag({"sources": [{"endOffset": place(4, 9), "latestOffset": None}]}) == 0


def test_progress_counts_messages_and_keeps_the_furthest_place():
    progress = structured.Progress()
    progress.add([("t", 0, 5, 5), ("t", 1, 9, 0)])
    progress.add([("t", 0, 7, 2)])
    assert (progress.batches, progress.messages, progress.ends) == (2, 7, {("t", 0): 7, ("t", 1): 9})


@pytest.mark.services
class TestSpark:
    pytestmark = pytest.mark.soak

    @pytest.fixture
    def settings(self, world) -> Settings:
        settings = world("postgres", "redis", "kafka")
        return settings.model_copy(update={"streaming_url": f"http://127.0.0.1:{free_port()}"})

    @staticmethod
    def start(settings: Settings, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "streaming", "spark", *more], cwd=HOME, start_new_session=True, text=True,
            env=os.environ | {"RECSYS_STREAMING_URL": settings.streaming_url, "RECSYS_SPARK_MEMORY": "512m"},
            stdout=subprocess.PIPE, stderr=(settings.var_dir / "spark.log").open("a"),
        )  # fmt: skip

    def once(self, settings: Settings) -> dict[str, Any]:
        process = self.start(settings, "--once")
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, (settings.var_dir / "spark.log").read_text()[-4000:]
        return json.loads(said.splitlines()[-1])

    @staticmethod
    def left(settings: Settings) -> dict[str, Any]:
        """All that the effects left; of the users' versions only that there is one."""
        with psycopg.connect(settings.postgres_url) as connection:
            tables = {
                table: connection.execute(
                    f"select to_jsonb(t) - 'landed_tx' - 'loads' from {table} t order by 1"
                ).fetchall()
                for table in ("raw.interactions_stream", artifacts.RAW_IMPRESSIONS, artifacts.USER_ACTIVITY)
            }
        with redis.Redis.from_url(settings.redis_url) as client:
            states = {user: (client.zrange(f"history:{user}", 0, -1, withscores=True),
                             client.hgetall(f"features:{user}")) for user in USERS}  # fmt: skip
            feast = {user: client.hgetall(USER_ACTIVITY.key(user)) for user in USERS}
        return {"tables": tables, "states": states, "feast": feast}

    def test_it_leaves_the_rows_of_the_consumer_though_it_was_killed(self, settings):
        with producer(settings) as send:
            send(*BODIES[: EVENTS // 2])
            send(*SHOWN, topic=artifacts.TOPIC_IMPRESSIONS)
            send(*BROKEN)
            killed = self.start(settings)
            eventually(lambda: landed(settings) > 0 or killed.poll() is not None, seconds=240)
            os.killpg(killed.pid, signal.SIGKILL)
            killed.wait()
            at_the_kill = landed(settings)
            send(*BODIES[EVENTS // 2 :], *BODIES[:100])
        assert 0 < at_the_kill < EVENTS, (settings.var_dir / "spark.log").read_text()[-4000:]
        done = self.once(settings)
        assert done["messages"] >= EVENTS // 2 + 100
        assert landed(settings) == EVENTS
        assert uncommitted(settings) == uncommitted(settings, artifacts.TOPIC_IMPRESSIONS) == 0
        reasons = {(dict(one.headers)["reason"], dict(one.headers)["origin"]) for one in dead_letters(settings)}
        assert sorted(reason for reason, _ in reasons) == [b"not_json", b"occurred_at_in_the_future", b"schema"]
        by_spark = self.left(settings)
        assert all(len(features) for features in by_spark["feast"].values())

        with psycopg.connect(settings.postgres_url) as connection:
            connection.execute("truncate raw.interactions, raw.impressions, raw.user_activity")
        with redis.Redis.from_url(settings.redis_url) as client:
            client.flushdb()
        consumer = Batches(settings, clock=lambda: datetime.now(UTC))
        consumer.handle([*map(message, BODIES), *map(shown, SHOWN)])
        consumer.close()
        assert by_spark == self.left(settings)

    def test_told_to_end_it_ends_in_order_and_nothing_comes_again(self, settings):
        process = self.start(settings)
        with producer(settings) as send:
            send(*[interaction(f"more{number}", "u:1", f"m:{number}", instant(3, 1)) for number in range(50)])

        def handled() -> bool:
            return process.poll() is not None or uncommitted(settings) == 0

        eventually(handled, seconds=240)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, (settings.var_dir / "spark.log").read_text()[-4000:]
        assert json.loads(said.splitlines()[-1])["messages"] == 50
        assert self.once(settings) | {"batches": 0} == {"batches": 0, "messages": 0, "unchanged": True}
