"""The consumer on the real log: dead letters and their way back, outages, commits, the end of the process."""

import threading
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest
import redis

from infra.local import broker
from recsys.artifacts import TOPIC_IMPRESSIONS
from recsys.errors import RecsysError
from recsys.settings import Settings
from streaming.consumer import Batches, consume, will_pass
from streaming.dead_letters import replay
from streaming.health import Health
from tests.streaming.log import dead_letters, eventually, landed, producer, uncommitted
from tests.worlds.clicks import ANN, BOB, RECEIVED_AT, impression, instant, interaction

pytestmark = pytest.mark.services

EARLY = interaction("future", "ann", "m:alpha", RECEIVED_AT + timedelta(days=3))


@pytest.fixture(scope="module")
def settings(world) -> Settings:
    return world("postgres", "redis", "kafka")


@pytest.fixture(scope="module")
def send(settings):
    with producer(settings) as send:
        yield send


@contextmanager
def consuming(settings: Settings, at=RECEIVED_AT):
    """A consumer in a thread of this process, at a standing clock; told to end, it ends."""
    stopping, health, failures = threading.Event(), Health(), []
    batches = Batches(settings, push=len, clock=lambda: at)

    def run() -> None:
        try:
            consume(settings, batches, health, stopping)
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield health
    finally:
        stopping.set()
        thread.join(30)
        batches.close()
    assert not thread.is_alive()
    assert failures == []


def test_poison_goes_to_the_dead_letters_and_comes_back_after_the_fix(settings, send):
    with consuming(settings) as health:
        send(ANN[0], b"{", EARLY, ANN[1])
        send(impression("i1", "ann", "m:alpha", instant(3, 1), rank=0), topic=TOPIC_IMPRESSIONS)
        eventually(lambda: len(dead_letters(settings)) == 2 and dead_letters(settings, TOPIC_IMPRESSIONS))
        eventually(lambda: landed(settings) == 2)
        assert health.report() == (True, "consuming 8 partitions")

    refused = {dict(one.headers)["reason"]: one for one in dead_letters(settings)}
    assert set(refused) == {b"not_json", b"occurred_at_in_the_future"}
    assert refused[b"not_json"].value == b"{"
    assert refused[b"occurred_at_in_the_future"].key == b"ann"
    assert b"interactions.v1/" in dict(refused[b"not_json"].headers)["origin"]
    (shown,) = dead_letters(settings, TOPIC_IMPRESSIONS)
    assert dict(shown.headers)["detail"] == b"rank: Input should be greater than or equal to 1"

    with consuming(settings, at=RECEIVED_AT + timedelta(days=3)):  # the fix: a clock that is right
        assert replay(settings, "interactions.v1") == {"replayed": 2, "skipped": 0, "unchanged": False}
        assert eventually(lambda: landed(settings) == 3)
        eventually(lambda: len(dead_letters(settings)) == 3)  # what is still no JSON
        assert replay(settings, "interactions.v1")["replayed"] == 1
        eventually(lambda: len(dead_letters(settings)) == 4)
    assert replay(settings, "impressions.v1")["replayed"] == 1
    assert replay(settings, "impressions.v1") == {"replayed": 0, "skipped": 0, "unchanged": True}


def test_a_topic_that_nobody_knows_cannot_be_replayed(settings):
    with pytest.raises(RecsysError, match=r"interactions\.v1, impressions\.v1"):
        replay(settings, "clicks")


def test_an_outage_loses_nothing(settings, send):
    """PostgreSQL refuses the consumer, then ends its connections; Redis cuts them off: events land all the same."""
    before = landed(settings)
    with consuming(settings) as health, psycopg.connect(settings.postgres_url, autocommit=True) as admin:
        send(BOB[0])
        eventually(lambda: landed(settings) == before + 1)
        name = admin.info.dbname
        admin.execute("alter role current_user nologin")
        try:
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()",
                (name,),
            )
            with redis.Redis.from_url(settings.redis_url) as client:
                client.client_kill_filter(_type="normal", skipme=True)
            send(ANN[2], interaction("b2", "bob", "m:beta", instant(2, 2)))
            eventually(lambda: health.report()[1].startswith("retrying: "))
            assert health.report()[0] is False
        finally:
            admin.execute("alter role current_user login")
        eventually(lambda: landed(settings) == before + 3)
        eventually(lambda: health.report()[0])
    assert uncommitted(settings) == 0


def test_a_store_without_room_is_waited_for(settings, send):
    before = landed(settings)
    with consuming(settings) as health, redis.Redis.from_url(settings.redis_url, decode_responses=True) as client:
        room = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        try:
            send(interaction("full", "eve", "m:full", instant(2, 3)))
            eventually(lambda: "OutOfMemoryError" in health.report()[1])
        finally:
            client.config_set("maxmemory", room)
        eventually(lambda: client.zscore("history:eve", "m:full") is not None)
    assert landed(settings) == before + 1
    assert uncommitted(settings) == 0


@pytest.mark.parametrize(("error", "passes"), [
    (redis.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"), True),
    (psycopg.errors.DiskFull("could not extend file"), True),
    (redis.exceptions.OutOfMemoryError("command not allowed"), True),
    (redis.ResponseError("WRONGTYPE Operation against a key"), False),
    (psycopg.errors.UndefinedTable("no such table"), False),
])  # fmt: skip
def test_a_full_disk_is_waited_for_and_a_fault_of_ours_is_not(error, passes):
    assert will_pass(error) is passes


def test_told_to_end_it_commits_what_it_did_and_the_next_one_goes_on_there(settings, send):
    before = landed(settings)
    send(*(interaction(f"n{number}", "cyd", f"m:{number}", instant(2, 3)) for number in range(50)))
    with consuming(settings):
        eventually(lambda: landed(settings) == before + 50)
    assert uncommitted(settings) == 0
    with psycopg.connect(settings.postgres_url) as connection:
        connection.execute("delete from raw.interactions where event_id = 'n7'")
    send(interaction("after", "cyd", "m:after", instant(2, 3)))
    with consuming(settings):
        eventually(lambda: landed(settings) == before + 50)  # one gone, one new: nothing was read again
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as client:
        assert client.zscore("history:cyd", "m:after") is not None


def test_a_rebalance_that_does_not_end_is_left_and_begun_anew(settings, send, monkeypatch, caplog):
    """New partitions while every poll returns before the group can answer: kafka-python loses the assignment."""
    before = landed(settings)
    monkeypatch.setattr("streaming.consumer.POLL_MS", 1)
    monkeypatch.setattr("streaming.membership.METADATA_MS", 300)
    monkeypatch.setattr("streaming.membership.STALLED_SECONDS", 2)
    with consuming(settings) as health:
        eventually(lambda: health.report() == (True, "consuming 8 partitions"))
        with broker.admin(settings) as client:
            client.create_partitions({settings.topic_prefix + "interactions.v1": 5})
        eventually(lambda: "subscribing anew" in caplog.text)
        send(interaction("wider", "dan", "m:wider", instant(2, 4)))
        assert eventually(lambda: landed(settings) == before + 1)
        assert eventually(lambda: health.report() == (True, "consuming 9 partitions"))
