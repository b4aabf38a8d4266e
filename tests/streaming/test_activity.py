"""The users' sums against the statement that counts anew: whatever comes, in whatever order, both give the same."""

import threading

import numpy as np
import psycopg
import pytest

from recsys.settings import Settings
from recsys.warehouse import connect
from streaming.activity import count, follow
from streaming.events import plan
from streaming.land import land
from tests.streaming.log import eventually
from tests.worlds.clicks import RECEIVED_AT, instant, interaction, message
from tests.worlds.warehouse import insert

pytestmark = pytest.mark.services

USERS = [f"u:{number}" for number in range(8)]
TOLD = ("movies", "rate", "{}", "films", "history")


@pytest.fixture
def settings(world) -> Settings:
    settings = world("postgres")
    with connect(settings) as connection:
        connection.execute("truncate raw.interactions")
    return settings


@pytest.fixture
def connection(settings):
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
        yield connection


def clicks(*bodies: dict):
    return plan(map(message, bodies), RECEIVED_AT)


def features(connection) -> dict:
    return {user_id: activity.features for user_id, activity in count(connection, USERS).items()}


def body(number: int, seed: int = 1) -> dict:
    """Return event `number`; whenever it comes, it says the same."""
    chance = np.random.default_rng((seed, number))
    at = instant(int(chance.integers(1, 3)), int(chance.integers(1, 29)), int(chance.integers(24)))
    rating = float(chance.integers(6)) if chance.random() < 0.5 else None
    return interaction(f"e{number}", USERS[number % 8], f"m:{chance.integers(12)}", at, rating=rating)


def row(body: dict) -> tuple:
    """Return an event as a file brings it."""
    return (*(body[name] for name in ("event_id", "user_id", "item_id", "rating", "occurred_at")), *TOLD)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_sums_give_what_counting_anew_gives(connection, seed):
    """Batches with late events and repeats, files before, among and after them, events in both, some taken away."""
    checked = 0
    for turn in range(12):
        if turn % 4 == 2:  # a file, with one event that the log has brought too and one that it will bring
            films = [(f"f{turn}", USERS[0], "m:1", 4.0, instant(1, turn + 1), *TOLD)]
            films += [row(body(turn * 10 + n, seed)) for n in (-3, 7)]
            insert(connection, "raw.interactions", films)
        if turn % 5 == 4:
            connection.execute("delete from raw.interactions where user_id = %s and rating is null", (USERS[2],))
        bodies = [body(turn * 10 + n, seed) for n in range(10)]
        bodies += [body(max(0, turn * 10 - 5), seed)]  # an id that is there already
        landed = land(connection, clicks(*bodies))
        anew = features(connection)
        assert landed.features
        for user_id, kept in landed.features.items():
            assert kept.event_timestamp == anew[user_id].event_timestamp
            assert kept.values == pytest.approx(anew[user_id].values), (turn, user_id)
            checked += 1
    assert checked > 40


def test_a_known_user_is_not_counted_anew(connection, monkeypatch):
    land(connection, clicks(*(body(n) for n in range(16))))
    counted = []
    monkeypatch.setattr("streaming.activity.count", lambda _, users: counted.extend(users) or {})
    landed = land(connection, clicks(body(96)))
    assert landed.features[USERS[0]].values["user_interactions_total"] == 3
    assert counted == []
    insert(connection, "raw.interactions", [("f", USERS[5], "m:1", 4.0, instant(1, 1), *TOLD)])
    land(connection, clicks(body(104)))
    assert counted == [USERS[0]]


def test_two_consumers_at_one_user_lose_nothing(settings, connection):
    """The second waits for the first one's transaction and counts its event."""
    land(connection, clicks(interaction("e1", USERS[0], "m:1", instant(1, 1))))
    second: list = []

    def land_second() -> None:
        with psycopg.connect(settings.postgres_url, autocommit=True) as other:
            second.append(land(other, clicks(interaction("e3", USERS[0], "m:3", instant(1, 3)))))

    with psycopg.connect(settings.postgres_url) as first:
        first.execute(
            "insert into raw.interactions_stream (event_id, user_id, item_id, occurred_at, domain, event_type, source,"
            " landed_partition) values ('e2', %s, 'm:2', %s, 'movies', 'click', 'stream', '2020-01-02')",
            (USERS[0], instant(1, 2)),
        )
        follow(first, [USERS[0]], ["e2"])
        thread = threading.Thread(target=land_second)
        thread.start()
        waiting = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        )
        eventually(lambda: connection.execute(waiting).fetchone() == (1,))
        first.commit()
    thread.join(30)
    assert second[0].features[USERS[0]] == features(connection)[USERS[0]]
    assert second[0].features[USERS[0]].values["user_interactions_total"] == 3
