"""The whole application in this process, over a real Redis: records, and Redis going away."""

from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import redis
from starlette.testclient import TestClient

from recsys import user_state
from recsys.settings import Settings
from serving.cache import list_key
from serving.process import build
from serving.request_records import DAY_SECONDS, record_key
from tests.ports import free_port
from tests.serving.gate import Gate
from tests.serving.patience import eventually
from tests.serving.ports import INSTANT
from tests.worlds.served import EVEN, POPULAR, write_world

pytestmark = pytest.mark.services
LIST, WHY = "/v1/users/{}/recommendations", "/v1/requests/{}"


@pytest.fixture(scope="module")
def settings(world) -> Settings:
    """Real Redis, a model, nobody where Kafka would be."""
    settings = world("redis").model_copy(
        update={
            "kafka_bootstrap": f"127.0.0.1:{free_port()}",
            "variant_weights": {"champion": 1.0},
            "request_days": 2,
        }
    )
    write_world(settings.served_model, version="3")
    return settings


@pytest.fixture
def store(settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as client:
        client.flushdb()
        yield client


@pytest.fixture
def client(settings, store) -> Iterator[TestClient]:
    with TestClient(build(settings, lambda: INSTANT), raise_server_exceptions=False) as client:
        yield client


def learn(store: redis.Redis, user_id: str, items: list[str]) -> None:
    events = [(item, INSTANT + timedelta(minutes=minute)) for minute, item in enumerate(items)]
    user_state.add_events(store, user_id, events)
    user_state.move_version(store, user_id)


def metric(client: TestClient, series: str) -> float:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(series)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_an_answer_is_explained_for_as_long_as_the_setting_says(client, store):
    learn(store, "u", EVEN[:2])
    answer = client.get(LIST.format("u"), params={"k": 2}).json()

    def explained() -> None:
        assert client.get(WHY.format(answer["request_id"])).status_code == 200

    eventually(explained)
    record = client.get(WHY.format(answer["request_id"])).json()
    assert (record["rung"], record["history"]["latest_items"]) == ("personalised", EVEN[1::-1])
    assert [item["item_id"] for item in record["items"]] == EVEN[2:4]
    assert 2 * DAY_SECONDS - 100 < store.ttl(record_key(answer["request_id"])) <= 2 * DAY_SECONDS


def test_a_batch_reads_many_users_at_once(client, store):
    learn(store, "even", EVEN[:2])
    requests = [{"user_id": user, "k": 1} for user in ("new", "even", "new", "even")]
    answers = client.post("/v1/recommendations:batch", json={"requests": requests}).json()["answers"]
    assert [answer["items"][0]["item_id"] for answer in answers] == [POPULAR[0], EVEN[2]] * 2
    assert [answer["rung"] for answer in answers] == ["popular", "personalised"] * 2


@pytest.mark.parametrize("value", ["cposix\nsystem\n(S'true'\ntR.", "{}", '{"request_id": "r"}', "", "[" * 10_000])
def test_a_value_that_is_no_record_is_refused_unread(client, store, value):
    store.set(record_key("r"), value)
    answer = client.get(WHY.format("r"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_request")
    assert metric(client, "recsys_dependency_errors_total{") == metric(
        client, 'recsys_dependency_errors_total{dependency="kafka"}'
    )


@pytest.mark.parametrize("fault", ["shut", "silence"])
def test_while_redis_is_away_records_are_dropped_and_counted(settings, store, fault):
    url = urlsplit(settings.redis_url)
    gate = Gate(url.hostname, url.port)
    through_gate = url._replace(netloc=url.netloc.replace(f":{url.port}", f":{gate.port}")).geturl()
    app = build(settings.model_copy(update={"redis_url": through_gate}), lambda: INSTANT)
    with TestClient(app, raise_server_exceptions=False) as client:
        getattr(gate, fault)()
        lost = [client.get(LIST.format("u")) for _ in range(5)]
        assert {answer.status_code for answer in lost} == {200}

        def dropped() -> None:
            assert metric(client, 'recsys_request_records_dropped_total{reason="unavailable"}') == 5

        eventually(dropped)
        why = client.get(WHY.format("r"))
        assert (why.status_code, why.json()["error"]["code"]) == (503, "unavailable")
        gate.open()

        later: list[str] = []

        def explained() -> None:
            later.append(client.get(LIST.format("u")).json()["request_id"])
            assert 200 in {client.get(WHY.format(request_id)).status_code for request_id in later}

        eventually(explained)
    gate.close()


def test_records_with_a_store_of_their_own_leave_lists_and_users_where_they_are(settings, store):
    """The two fail apart: without the store of records lists are personal and kept, and nobody is told why."""
    url = urlsplit(settings.redis_url)
    gate = Gate(url.hostname, url.port)
    own = url._replace(netloc=url.netloc.replace(f":{url.port}", f":{gate.port}"), path="/0").geturl()
    learn(store, "u", EVEN[:2])
    app = build(settings.model_copy(update={"records_url": own}), lambda: INSTANT)
    with TestClient(app) as client, redis.Redis.from_url(own, decode_responses=True) as records:
        records.flushdb()
        answer = client.get(LIST.format("u")).json()

        def kept() -> None:
            assert store.keys("list:*") == [list_key("u", None)]
            assert client.get(WHY.format(answer["request_id"])).status_code == 200

        eventually(kept)
        assert records.keys("*") == [record_key(answer["request_id"])]
        assert store.keys("request:*") == []

        gate.silence()
        learn(store, "u", EVEN[:3])
        later = client.get(LIST.format("u")).json()
        assert (later["rung"], later["items"][0]["item_id"]) == ("personalised", EVEN[3])
        assert client.get(WHY.format(answer["request_id"])).status_code == 503
        again = client.get(LIST.format("u")).json()
        assert again["rung"] == "personalised"
    gate.close()


def test_what_waits_is_written_when_the_process_ends(settings, store):
    with TestClient(build(settings, lambda: INSTANT)) as client:
        ids = {client.get(LIST.format(f"u{n}"), params={"k": 16}).json()["request_id"] for n in range(50)}
    assert set(store.keys(record_key("*"))) == {record_key(request_id) for request_id in ids}


def test_a_list_answers_again_until_the_user_does_something(client, store):
    """The click changes the list at once: what was stored under the earlier version is not even looked at."""
    learn(store, "u", EVEN[:2])
    first = client.get(LIST.format("u"), params={"k": 3}).json()

    def again() -> None:
        answer = client.get(LIST.format("u"), params={"k": 3}).json()
        assert metric(client, 'recsys_cached_lists_total{result="hit"}') >= 1
        assert answer["items"] == first["items"]
        assert answer["request_id"] != first["request_id"]

    eventually(again)
    assert metric(client, "recsys_cached_list_age_seconds_count") >= 1
    assert metric(client, "recsys_saved_seconds_total") > 0
    assert 0 < store.ttl(list_key("u", None)) <= 600
    longer = client.get(LIST.format("u"), params={"k": 5}).json()
    assert [item["item_id"] for item in longer["items"]] == EVEN[2:7]
    learn(store, "u", EVEN[:3])
    changed = client.get(LIST.format("u"), params={"k": 3}).json()
    assert [item["item_id"] for item in changed["items"]] == EVEN[3:6]
    assert metric(client, 'recsys_cached_lists_total{result="stale"}') == 1


@pytest.mark.parametrize("value", ["cposix\nsystem\n(S'true'\ntR.", "{}", "[" * 10_000, '{"model_version": "3"}'])
def test_a_value_that_is_no_list_is_refused_and_replaced(client, store, value):
    learn(store, "u", EVEN[:2])
    store.set(list_key("u", None), value)
    answer = client.get(LIST.format("u"), params={"k": 3})
    assert [item["item_id"] for item in answer.json()["items"]] == EVEN[2:5]
    assert metric(client, 'recsys_cached_lists_total{result="refused"}') == 1

    def replaced() -> None:
        assert store.get(list_key("u", None)) != value

    eventually(replaced)
