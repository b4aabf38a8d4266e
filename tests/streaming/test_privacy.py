"""A user is handed out whole, forgotten everywhere, and not brought back by a replay or a reload."""

import json
from datetime import timedelta
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from etl.load import replace_partition, transaction
from recsys import user_state
from recsys.artifacts import REMOVED_INTERACTIONS
from recsys.settings import Settings
from recsys.warehouse import connect
from streaming.consumer import Batches
from streaming.privacy import TABLES, erase, export
from tests.worlds.clicks import ANN, BOB, RECEIVED_AT, impression, instant, interaction, message, shown
from tests.worlds.warehouse import INTERVAL

pytestmark = pytest.mark.services
ERASED_AT = RECEIVED_AT
SHOWN = impression("i1", "bob", "m:gamma", instant(2, 1))


@pytest.fixture
def settings(world) -> Settings:
    settings = world("postgres", "redis")
    beside = urlsplit(settings.redis_url)._replace(path="/0").geturl()  # another database, which no world has
    settings = settings.model_copy(update={"records_url": beside})
    with connect(settings) as connection:
        connection.execute("truncate raw.interactions, raw.impressions, raw.users, raw.erased_users")
        connection.execute("insert into raw.users values ('bob', 'movies', '{}', 'files', '2020')")
    with redis.Redis.from_url(settings.redis_url) as store:
        store.flushdb()
    return settings


@pytest.fixture
def batches(settings):
    batches = Batches(settings, push=len, clock=lambda: RECEIVED_AT)
    batches.handle([*map(message, ANN + BOB), shown(SHOWN)])
    with redis.Redis.from_url(settings.redis_url) as store:
        store.set(user_state.list_key("bob", "movies"), "{}")
    with redis.Redis.from_url(settings.records_url) as store:
        store.set(user_state.record_key(SHOWN["request_id"]), "{}")
    yield batches
    batches.close()


def traces(settings: Settings, user_id: str) -> dict[str, int]:
    """Return how often the user's id stands in each raw table, and in the whole online store."""
    with connect(settings) as connection, redis.Redis.from_url(settings.redis_url, decode_responses=True) as store:
        tables = [*(table for table in TABLES if table.startswith("raw.")), REMOVED_INTERACTIONS]
        query = "select count(*) from {} where user_id = %s"
        found = {table: connection.execute(query.format(table), (user_id,)).fetchone()[0] for table in tables}
        return found | {"keys": sum(user_id in key.split(":") for key in store.scan_iter())}


def test_a_user_is_handed_out_whole(settings, batches):
    given = export(settings, "bob")
    assert len(given["tables"]["raw.interactions"]) == traces(settings, "bob")["raw.interactions"] > 0
    assert [row["event_id"] for row in given["tables"]["raw.impressions"]] == ["i1"]
    assert {"history:bob", "version:bob", "list:bob:movies", f"request:{SHOWN['request_id']}"} <= set(given["online"])
    assert "ann" not in json.dumps(given, default=str)


def test_an_erased_user_is_gone_everywhere_and_others_are_not(settings, batches):
    others = traces(settings, "ann")
    done = erase(settings, "bob", ERASED_AT)
    assert done["rows"] > 2
    assert done["keys"] >= 4
    assert set(traces(settings, "bob").values()) == {0}
    assert traces(settings, "ann") == others
    with redis.Redis.from_url(settings.records_url) as store:
        assert not store.exists(user_state.record_key(SHOWN["request_id"]))
    assert erase(settings, "bob", ERASED_AT) == {"rows": 0, "keys": 0}


def test_a_replay_brings_nobody_back_and_a_new_beginning_counts(settings, batches):
    erase(settings, "bob", ERASED_AT)
    batches.handle([*map(message, ANN + BOB), shown(SHOWN)])
    assert set(traces(settings, "bob").values()) == {0}
    later = ERASED_AT + timedelta(seconds=1)
    batches.handle([message(interaction("new", "bob", "m:alpha", later))])
    assert traces(settings, "bob")["raw.interactions"] == 1


def test_a_reload_of_files_brings_nobody_back(settings, batches, tmp_path):
    erase(settings, "bob", ERASED_AT)
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
        row = ("e9", "bob", "m:alpha", None, instant(1, 1), "movies", "view", "{}", "files", "2020")
        connection.execute(f"insert into raw.interactions values ({', '.join(['%s'] * len(row))})", row)
        connection.execute("insert into raw.users values ('bob', 'movies', '{}', 'files', '2020')")
    with transaction(settings) as cursor:
        replace_partition(cursor, tmp_path, INTERVAL, [], tables=())
    assert set(traces(settings, "bob").values()) == {0}
