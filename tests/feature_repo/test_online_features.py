"""Three ways to the same features: Feast in process, `feast serve`, and Feast's own keys without Feast."""

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from urllib.error import URLError
from urllib.request import Request, urlopen

import hiredis
import pandas as pd
import pytest
import redis
from feast import FeatureStore
from feast.data_source import PushMode

from recsys import artifacts
from recsys.online_features import (
    ITEM_POPULARITY,
    ROWS_A_SCRIPT,
    USER_ACTIVITY,
    read,
    write,
)
from recsys.settings import HOME, Settings
from recsys.task import command_environment, run_command
from recsys.warehouse import connect
from streaming.materialize import materialize
from tests.ports import free_port
from tests.streaming.log import eventually
from tests.worlds.warehouse import FEATURE_TABLES, INTERVAL, insert, instant

pytestmark = pytest.mark.services

FEAST = ("env", "PYTHONOPTIMIZE=1", "feast", "-c", "feature_repo")
USERS = [
    ("u:ann", instant(1, 11), 2, 2, 2, 3.0),
    ("u:ann", instant(2, 21), 3, 1, 3, 4.5),
    ("u:bob", instant(2, 11) + timedelta(microseconds=7), 129, 0, 2**40, None),
    ("ü:Zoë", instant(2, 11), 1, 1, 1, 0.1),
    ("u:late", instant(3, 2), 9, 9, 9, 1.0),  # after the end of the interval
]
ITEMS = [("m:1", instant(2, 1), 1, 1, 4.0), ("m:1", instant(3, 1), 2, 2, 3.5)]
IDS = ["u:ann", "u:bob", "ü:Zoë", "u:late", "u:nobody"]
EXPECTED = [[3, 1, 3, 4.5], [129, 0, 2**40, None], [1, 1, 1, 0.1], [None] * 4, [None] * 4]


@pytest.fixture(scope="module")
def settings(world) -> Settings:
    settings = world("postgres", "redis")
    with connect(settings) as connection:
        connection.execute(FEATURE_TABLES)
        insert(connection, artifacts.FEAT_USER_ACTIVITY, USERS)
        insert(connection, artifacts.FEAT_ITEM_POPULARITY, ITEMS)
        insert(connection, artifacts.FEAT_USER_WINDOWS, [("u:ann", instant(1, 11), 2, 2, 2, 300, 0, 0, 1, 3.0)])
        insert(connection, artifacts.FEAT_ITEM_WINDOWS, [("m:1", instant(3, 1), 1, 1, 1, 2, 0, 0, 1.5, 3.5)])
    apply = (*FEAST, "apply", "--skip-source-validation", "--no-progress")
    run_command(apply, command_environment(settings))
    return settings


@pytest.fixture(scope="module")
def store(settings):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.child_environment().items():
            patch.setenv(name, value)
        yield FeatureStore(repo_path=str(HOME / "feature_repo"))


@pytest.fixture
def client(settings):
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
        yield client


def by_feast(store: FeatureStore) -> list[list]:
    service = store.get_feature_service(artifacts.FEATURE_SERVICE_RETRIEVAL)
    answer = store.get_online_features(service, entity_rows=[{"user_id": user} for user in IDS]).to_dict()
    return [list(row) for row in zip(*(answer[name] for name in artifacts.USER_FEATURES), strict=True)]


def dump(client) -> dict[bytes, dict]:
    return {key: client.hgetall(key) for key in client.scan_iter()}


def test_the_bytes_are_feasts_own(settings, store, client):
    assert materialize(settings, INTERVAL) == {
        "user_activity": 3, "user_windows": 1, "item_popularity": 1, "item_windows": 1,
    }  # fmt: skip
    ours = dump(client)
    client.flushdb()
    store.materialize(start_date=datetime(1970, 1, 1, tzinfo=UTC), end_date=INTERVAL.end)
    assert len(ours) == 4
    assert dump(client) == ours


def test_feast_in_process_and_feast_serve_and_the_fast_path_say_the_same(settings, store, client):
    materialize(settings, INTERVAL)
    assert read(client, USER_ACTIVITY, IDS) == EXPECTED
    assert read(client, ITEM_POPULARITY, ["m:1"]) == [[2, 2, 3.5]]
    assert by_feast(store) == EXPECTED

    port = free_port()
    command = ("feast", "-c", "feature_repo", "serve", "--host", "127.0.0.1", "--port", str(port), "--no-access-log")
    environment = os.environ | command_environment(settings) | {"PYTHONOPTIMIZE": "1"}
    with (settings.var_dir / "feast.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=HOME, env=environment, stdout=log, stderr=log)
    try:
        asked = {"feature_service": artifacts.FEATURE_SERVICE_RETRIEVAL, "entities": {"user_id": IDS}}
        answer = eventually(lambda: ask(port, asked), seconds=120)
    finally:
        server.terminate()
        server.wait(30)
    served = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    rows = zip(*(served[name]["values"] for name in artifacts.USER_FEATURES), strict=True)
    # a protobuf int64 is a string in JSON
    assert [[None if value is None else float(value) for value in row] for row in rows] == EXPECTED


def ask(port: int, body: dict) -> dict | None:
    request = Request(
        f"http://127.0.0.1:{port}/get-online-features", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except URLError:
        return None


def test_what_feast_pushes_the_fast_path_reads(store, client):
    row = {
        "user_id": "u:ann",
        "event_timestamp": instant(4, 1),
        **dict(zip(artifacts.USER_FEATURES, EXPECTED[1], strict=True)),
    }
    pushed = pd.DataFrame([row]).astype({"user_mean_rating": "float64"})
    store.push(artifacts.PUSH_SOURCE_USER_ACTIVITY, pushed, to=PushMode.ONLINE)
    assert read(client, USER_ACTIVITY, ["u:ann"])[0][:3] == EXPECTED[1][:3]


@pytest.mark.parametrize(("at", "written"), [(instant(2, 10), 0), (instant(2, 11), 0), (instant(2, 12), 1)])
def test_a_row_that_is_not_newer_stays_out(client, at: datetime, written: int):
    write(client, USER_ACTIVITY, [("u:ann", instant(2, 11), [1, 1, 1, 1.0])])
    assert write(client, USER_ACTIVITY, [("u:ann", at, [2, 2, 2, 2.0])]) == written
    assert read(client, USER_ACTIVITY, ["u:ann"])[0][0] == 1 + written


def test_of_one_users_rows_in_a_batch_the_newest_is_written(client):
    rows = [("u:ann", instant(2, day), [day, 1, 1, None]) for day in (3, 9, 5)]
    assert write(client, USER_ACTIVITY, rows) == 1
    assert read(client, USER_ACTIVITY, ["u:ann"]) == [[9, 1, 1, None]]


def test_many_are_read_as_each_alone(client):
    many = [f"many:{number}" for number in range(ROWS_A_SCRIPT + 1)]
    at = datetime(2026, 1, 2, tzinfo=UTC)
    write(client, USER_ACTIVITY, [(one, at, [place, 0, 1, None]) for place, one in enumerate(many)])

    assert read(client, USER_ACTIVITY, [*many, "many:nobody"]) == [
        *([place, 0, 1, None] for place in range(len(many))), [None] * 4,
    ]  # fmt: skip
    assert read(client, USER_ACTIVITY, many[:8]) == [read(client, USER_ACTIVITY, [one])[0] for one in many[:8]]
    assert read(client, USER_ACTIVITY, []) == []


@pytest.mark.parametrize("entity_id", ["u:ann", "", "ü:Zoë", "$0\r\n\r\n", "x" * 70_000])
def test_a_read_is_packed_as_the_client_library_packs_it(entity_id):
    by_library = hiredis.pack_command(("HMGET", USER_ACTIVITY.key(entity_id), *USER_ACTIVITY.fields))
    assert USER_ACTIVITY.reading(entity_id) == by_library
