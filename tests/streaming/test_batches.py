"""Batches against the real PostgreSQL and Redis: state by hand, repeats, order, crashes, poison; and the rebuild."""

import itertools
from dataclasses import replace

import psycopg
import pytest
import redis

from recsys import receipts, user_state
from recsys.errors import MissingArtifact
from recsys.online_features import send
from recsys.settings import Settings
from recsys.task import run_task
from recsys.warehouse import connect
from streaming.activity import UserFeatures
from streaming.consumer import Batches
from streaming.land import user_features
from streaming.rebuild import rebuild
from tests.worlds.clicks import (
    ANN,
    BOB,
    EVENT_TIMESTAMPS,
    FEATURES,
    HISTORIES,
    RECEIVED_AT,
    impression,
    instant,
    interaction,
    message,
    shown,
)  # fmt: skip
from tests.worlds.warehouse import DBT_BUILD, INTERVAL, insert, land

pytestmark = pytest.mark.services

USERS = ("ann", "bob")
DBT_RUN = (
    "dbt", "--quiet", "run", "--select", "+feat_user_activity", "--project-dir", "dbt", "--profiles-dir", "dbt",
    "--vars", '{"as_of": "2020-03-01", "domains": "books,movies"}',
)  # fmt: skip
SHOWN = impression("i1", "bob", "m:gamma", instant(2, 1))


class Recorder:
    """Stands where Feast's push stands, and can crash there."""

    def __init__(self):
        self.rows: dict[str, UserFeatures] = {}
        self.crashes = 0

    def __call__(self, features: dict[str, UserFeatures]) -> int:
        if self.crashes:
            self.crashes -= 1
            raise KeyboardInterrupt
        self.rows |= features
        return len(features)


@pytest.fixture
def settings(world) -> Settings:
    """The module's world, emptied."""
    settings = world("postgres", "redis")
    with connect(settings) as connection:
        tables = "raw.interactions, raw.impressions, raw.items, raw.users, monitoring.receipts"
        connection.execute(f"truncate {tables}")
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
    return settings


@pytest.fixture
def push() -> Recorder:
    return Recorder()


@pytest.fixture
def batches(settings, push):
    batches = Batches(settings, push=push, clock=lambda: RECEIVED_AT)
    yield batches
    batches.close()


def live_state(settings: Settings, users=USERS) -> dict[str, user_state.UserState]:
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as client:
        states = {}
        for user in users:
            pipeline = client.pipeline()
            user_state.queue_read(pipeline, user)
            states[user] = user_state.decode(pipeline.execute())
        return states


def without_version(states: dict[str, user_state.UserState]) -> dict:
    return {user: (state.history, state.features) for user, state in states.items()}


def expected_state() -> dict:
    present = {user: {k: v for k, v in values.items() if v is not None} for user, values in FEATURES.items()}
    return {user: (HISTORIES[user], present[user]) for user in USERS}


def rows(settings: Settings, table: str = "raw.interactions_stream") -> list[tuple]:
    with connect(settings) as connection:
        connection.execute("set time zone 'UTC'")
        return connection.execute(f"select * from {table} order by 1").fetchall()


def test_a_batch_has_the_effects_counted_by_hand(settings, batches, push):
    batches.handle([*map(message, ANN + BOB), shown(SHOWN)])

    assert rows(settings)[1][:10] == (
        "a2", "ann", "m:beta", 2.0, instant(2, 10, 23, 59, 59, 999_000), "movies", "rate", "{}", "stream", "2020-02-10",
    )  # fmt: skip
    assert [row[0] for row in rows(settings)] == ["a1", "a2", "a3", "b1"]
    assert [row[0] for row in rows(settings, "raw.impressions")] == ["i1"]
    assert without_version(live_state(settings)) == expected_state()
    assert push.rows == {user: UserFeatures(EVENT_TIMESTAMPS[user], FEATURES[user]) for user in USERS}


def test_an_event_that_comes_twice_counts_once_and_makes_answers_stale_twice(settings, batches):
    once = list(map(message, ANN + BOB))
    batches.handle(once + once)
    before, landed = live_state(settings), rows(settings)
    batches.handle(once)

    assert without_version(live_state(settings)) == without_version(before) == expected_state()
    assert rows(settings) == landed
    assert live_state(settings)["ann"].version == before["ann"].version + 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_events_does_not_matter(settings, batches, push, order):
    for position in order:
        batches.handle([message(ANN[position])])
    batches.handle([message(BOB[0])])

    assert without_version(live_state(settings)) == expected_state()
    assert push.rows["ann"] == UserFeatures(EVENT_TIMESTAMPS["ann"], FEATURES["ann"])


def test_an_event_id_that_comes_with_another_content_keeps_the_first(settings, batches):
    batches.handle(list(map(message, BOB)))
    batches.handle([message({**BOB[0], "user_id": "ann", "item_id": "m:forged"})])

    assert [row[1:3] for row in rows(settings)] == [("bob", "m:gamma")]
    assert live_state(settings)["ann"].history == []
    assert live_state(settings)["bob"].history == ["m:gamma"]


def test_many_users_carried_at_once_are_as_each_written_alone(settings):
    many = [(f"m:{n}", instant(1, 1 + n % 28)) for n in range(2 * user_state.ITEMS_AT_ONCE + 1)]
    told = [
        ("ann", [("m:one", instant(2, 1)), ("m:one", instant(1, 1))], {"a": 1.5, "b": None}),
        ("bob", [], {}),
        *((f"u:{n}", [("m:one", instant(2, 1))], {"a": float(n)}) for n in range(user_state.USERS_AT_ONCE)),
        ("fond", many, {"a": None}),
        ("ann", [("m:one", instant(1, 2)), ("m:two", instant(1, 3))], {"a": None, "b": 2.0}),
    ]
    users = {user for user, *_ in told}
    with redis.Redis.from_url(settings.redis_url) as client:
        send(client, user_state.carrying(told))
        carried = live_state(settings, users)
        client.flushdb()
        for user, items, features in told:
            user_state.add_events(client, user, items)
            user_state.set_features(client, user, features)
            user_state.move_version(client, user)

    assert without_version(carried) == without_version(live_state(settings, users))
    assert carried["ann"].history == ["m:two", "m:one"]
    assert carried["ann"].version == 2
    assert len(carried["fond"].history) == len(many)
    assert all(state.version for state in carried.values())


def test_a_crash_after_any_effect_and_the_same_batch_again_is_as_if_nothing_had_been(settings, batches, push):
    push.crashes = 1  # after PostgreSQL and Redis, before Feast and the commit
    with pytest.raises(KeyboardInterrupt):
        batches.handle(list(map(message, ANN + BOB)))
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()  # as if it had been before Redis
    batches.handle(list(map(message, ANN + BOB)))

    assert [row[0] for row in rows(settings)] == ["a1", "a2", "a3", "b1"]
    assert without_version(live_state(settings)) == expected_state()
    assert push.rows["ann"].values == FEATURES["ann"]


def test_one_message_that_postgres_refuses_does_not_stop_the_others(settings, batches, monkeypatch):
    refused = []
    monkeypatch.setattr(batches._dead_letters, "write", refused.extend)
    with connect(settings) as connection:
        connection.execute("alter table raw.interactions_stream add constraint no_beta check (item_id <> 'm:beta')")
    try:
        with pytest.raises(psycopg.errors.CheckViolation):  # no DataError: our schema is wrong, not the event
            batches.handle(list(map(message, ANN)))
    finally:
        with connect(settings) as connection:
            connection.execute("alter table raw.interactions_stream drop constraint no_beta")
    assert rows(settings) == []

    with connect(settings) as connection:
        connection.execute(
            """
            create function raw.refuse() returns trigger language plpgsql as
            $$ begin
                if new.item_id = 'm:beta' then raise 'not this one' using errcode = '22000'; end if;
                return new;
            end $$;
            create trigger refuse before insert on raw.interactions_stream for each row execute function raw.refuse()
            """
        )
    try:
        batches.handle(list(map(message, ANN)))
    finally:
        with connect(settings) as connection:
            connection.execute("drop trigger refuse on raw.interactions_stream; drop function raw.refuse")
    assert [row[0] for row in rows(settings)] == ["a1", "a3"]
    assert [(one.reason, one.message) for one in refused] == [("refused_by_postgres", message(ANN[1]))]


def test_no_plan_from_small_tables_goes_through_large_ones(settings, batches):
    """The connection lives for days, and the tables grow under it, at first without an analyze: a batch finds its rows
    by their index still, and reads no table through."""

    def some(number: int, events: int) -> list:
        return [message(interaction(f"{number}-{n}", f"u{n % 50}", f"m:{n}", instant(2, 1, 12))) for n in range(events)]

    def read_through() -> int:
        batches._connection().execute("select pg_stat_force_next_flush()")
        batches._connection().execute("select")  # the counters go out behind a statement
        with connect(settings) as connection:
            (read,) = connection.execute(
                "select sum(seq_tup_read) from pg_stat_user_tables where relname like 'interactions_%' or "
                "relname in ('impressions', 'user_activity')"
            ).fetchone()
        return int(read)

    with connect(settings) as connection:
        connection.execute("analyze raw.interactions")  # known to be empty: then one page is sooner read than an index
    for number in range(12):  # so often that a prepared statement would have its plan for good
        batches.handle(some(number, 1))
    with connect(settings) as connection:
        connection.execute(
            """
            insert into raw.interactions_stream (
                event_id, user_id, item_id, occurred_at, domain, event_type, source, landed_partition)
            select 'other-' || n, 'other' || n % 500, 'm:' || n % 100, '2020-02-01', 'movies', 'click', 'stream', '2020'
            from generate_series(1, 20000) n
            """
        )
    before = read_through()
    batches.handle(some(99, 200))
    assert read_through() - before < 20_000


def test_connections_that_broke_are_opened_again(settings, batches):
    batches.handle([message(ANN[0])])
    with connect(settings) as connection:
        connection.execute(
            """
            select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid()
            """
        )
    with redis.Redis.from_url(settings.redis_url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(psycopg.OperationalError):
        batches.handle(list(map(message, ANN + BOB)))
    batches.handle(list(map(message, ANN + BOB)))

    assert without_version(live_state(settings)) == expected_state()


def test_features_are_those_of_the_mart(settings):
    """The same tiny warehouse through dbt and through user_activity.sql: the mart's latest row of each user."""
    with connect(settings) as connection:
        land(connection)
        connection.execute("delete from raw.interactions where occurred_at >= %s", (INTERVAL.end,))
        told = ("movies", "rate", "{}", "films", "history")
        more = [
            (f"x{n}", "u:eve", f"m:{n % 4}", float(n % 5), instant(1 + n % 2, 1 + n % 28, n % 24), *told)
            for n in range(60)
        ]
        insert(connection, "raw.interactions", more)
    run_task(settings, replace(DBT_BUILD, command=DBT_RUN))

    with connect(settings) as connection:
        mart = connection.execute(
            """
            select distinct on (user_id) user_id, event_timestamp, user_interactions_total, user_interactions_30d,
                user_distinct_items, user_mean_rating
            from marts.feat_user_activity order by user_id, event_timestamp desc
            """
        ).fetchall()
        live = user_features(connection, [row[0] for row in mart])
    assert [row[0] for row in mart] == ["u:ann", "u:bob", "u:eve"]
    for user_id, event_timestamp, *values in mart:
        assert live[user_id].event_timestamp == event_timestamp
        assert list(live[user_id].values.values()) == pytest.approx(values)


@pytest.fixture
def loaded(settings, batches) -> Settings:
    """A history from files, its receipt, and the same users' clicks from the log."""
    films = [
        ("f1", "ann", "m:delta", 4.0, instant(1, 1), "movies", "rate", "{}", "films", "history"),
        ("f1", "ann", "m:delta", 4.0, instant(1, 1), "movies", "rate", "{}", "films", "2020-01-01"),
        ("f2", "cyd", "m:delta", 1.0, instant(1, 1), "movies", "rate", "{}", "films", "history"),
    ]
    with connect(settings) as connection:
        insert(connection, "raw.interactions", films)
        receipts.record(connection, "etl.load", "history/x", "landed once", {})
    batches.handle(list(map(message, ANN + BOB)))
    return settings


def test_a_rebuild_equals_the_live_path(loaded):
    live = without_version(live_state(loaded))
    assert live["ann"][1]["user_interactions_total"] == 4
    result = rebuild(loaded, INTERVAL)
    rebuilt = without_version(live_state(loaded, (*USERS, "cyd")))

    assert result == {"unchanged": False, "users": 3, "events": 7}
    assert rebuilt["ann"] == (["m:delta", *live["ann"][0]], live["ann"][1])  # the files' item reaches Redis here
    assert rebuilt["bob"] == live["bob"]
    assert rebuilt["cyd"][0] == ["m:delta"]


def test_a_rebuild_is_done_once_and_again_when_redis_lost_it(loaded, batches):
    rebuild(loaded, INTERVAL)
    after = without_version(live_state(loaded))
    assert rebuild(loaded, INTERVAL)["unchanged"] is True
    batches.handle(
        [message(interaction("late", "ann", "m:new", RECEIVED_AT))]
    )  # after the interval: the consumer's work
    assert rebuild(loaded, INTERVAL)["unchanged"] is True

    with redis.Redis.from_url(loaded.redis_url) as client:
        client.flushdb()
    assert rebuild(loaded, INTERVAL)["unchanged"] is False
    again = without_version(live_state(loaded))
    assert again["ann"][0] == [*after["ann"][0], "m:new"]
    assert again["bob"] == after["bob"]


def test_a_rebuild_replaces_what_redis_should_not_have(loaded):
    with redis.Redis.from_url(loaded.redis_url) as client:
        client.zadd("history:ann", {"m:of-a-partition-that-was-replaced": 1})
        client.hset("features:ann", "user_of_an_older_version", "1")
    rebuild(loaded, INTERVAL)
    state = live_state(loaded)["ann"]
    assert "m:of-a-partition-that-was-replaced" not in state.history
    assert "user_of_an_older_version" not in state.features


def test_a_rebuild_waits_for_the_batch_in_hand(loaded, batches, monkeypatch):
    """While a consumer carries state to Redis, no rebuild may read: it would put an older state over a newer one."""
    held = []

    def try_to_lock(*_):
        with psycopg.connect(loaded.postgres_url) as other:
            query = "select pg_try_advisory_lock(hashtext('recsys user state'))"
            held.append(other.execute(query).fetchone()[0])

    monkeypatch.setattr("streaming.state.write_landed", try_to_lock)
    batches.handle(list(map(message, ANN)))
    try_to_lock()
    assert held == [False, True]


def test_without_events_a_rebuild_is_red(settings):
    with pytest.raises(MissingArtifact, match=r"etl\.load"):
        rebuild(settings, INTERVAL)
    with connect(settings) as connection:
        receipts.record(connection, "etl.load", "history/x", "landed nothing", {})
    with pytest.raises(MissingArtifact, match="no events"):
        rebuild(settings, INTERVAL)
