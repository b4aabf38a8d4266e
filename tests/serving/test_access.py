"""API keys: who comes in, for what, how often and for whom; over a real Redis, and without it."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from starlette.testclient import TestClient

from infra.local.applications import python_of
from recsys.errors import UnusableInput
from recsys.settings import HOME, Settings
from serving.access import RateLimits
from serving.breaker import CircuitBreaker
from serving.contracts import ErrorAnswer
from serving.keys import KEY_PREFIX, SCOPES, ApiKey, digest, new_key, read_keys
from serving.metrics import Metrics
from serving.online_store import OnlineStore
from serving.process import build
from tests.ports import free_port
from tests.serving.patience import eventually
from tests.serving.ports import INSTANT
from tests.worlds.served import EVEN, FILMS, write_world

pytestmark = pytest.mark.services
KEYS = {
    "all": {"scopes": ["recommend", "events", "explain"], "requests_per_second": 1000},
    "recommend": {"scopes": ["recommend"], "requests_per_second": 1000},
    "events": {"scopes": ["events"], "requests_per_second": 1000},
    "explain": {"scopes": ["explain"], "requests_per_second": 1000},
    "admin": {"scopes": ["admin"], "requests_per_second": 1000, "user_prefix": "shop:"},
    "shop": {"scopes": ["recommend", "events", "explain"], "requests_per_second": 1000, "user_prefix": "shop:"},
    "slow": {"scopes": ["recommend"], "requests_per_second": 0.01},
}
EVENT = {"user_id": "shop:1", "item_id": FILMS[0], "domain": "movies", "event_type": "click"}
OPEN = ("/healthz", "/readyz", "/ping", "/metrics", "/docs", "/openapi.json", "/v1/health")


def listing(user: str) -> tuple[str, str, object]:
    return "GET", f"/v1/users/{user}/recommendations", None


REQUESTS = {
    "recommend": [
        listing("shop:1"),
        ("GET", f"/v1/items/{EVEN[0]}/similar", None),
        ("POST", "/v1/sessions/recommendations", {}),
        ("POST", "/v1/recommendations:batch", {"requests": [{"user_id": "shop:1"}]}),
        ("POST", "/invocations", {"user_id": "shop:1"}),
        ("POST", "/score", {"user_id": "shop:1"}),
        ("POST", "/predict", {"instances": [{"user_id": "shop:1"}]}),
        ("POST", "/graphql", {"query": '{ recommendations(userId: "shop:1") { rung } }'}),
        ("GET", "/nowhere", None),
    ],
    "events": [("POST", "/v1/events", EVENT)],
    "explain": [("GET", "/v1/requests/r", None)],
}
EVERY_REQUEST = [request for requests in REQUESTS.values() for request in requests]


@pytest.fixture(scope="module")
def key_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    entries = [{"name": name, "sha256": digest(name)} | entry for name, entry in KEYS.items()]
    path.write_text(json.dumps({"keys": entries}))
    return path


@pytest.fixture(scope="module")
def settings(world, key_file) -> Settings:
    changes = {
        "kafka_bootstrap": f"127.0.0.1:{free_port()}", "api_keys": str(key_file), "vertex_health_route": "/v1/health",
        "variant_weights": {"champion": 1.0},
    }  # fmt: skip
    settings = world("redis").model_copy(update=changes)
    write_world(settings.served_model)
    return settings


@pytest.fixture(scope="module", params=["with Redis", "without Redis"])
def client(settings, request) -> Iterator[TestClient]:
    """The application, its store alive or dead: a key opens the same doors."""
    if request.param == "without Redis":
        settings = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}/0"})
    with TestClient(build(settings, lambda: INSTANT), raise_server_exceptions=False) as client:
        yield client


def send(client: TestClient, request: tuple[str, str, object], key: str | None):
    method, url, body = request
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return client.request(method, url, json=body, headers=headers)


def code(answer) -> str:
    return ErrorAnswer.model_validate_json(answer.content, strict=True).error.code


@pytest.mark.parametrize("path", OPEN)
def test_operations_stay_open(client, path):
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("request_", EVERY_REQUEST, ids=lambda request: request[1])
@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer ", "Bearer wrong", "Basic all", "all", "Bearer \xff", "x" * 9000]
)
def test_without_a_known_key_nothing_opens(client, request_, header):
    method, url, body = request_
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    answer = client.request(method, url, json=body, headers=headers)
    assert (answer.status_code, code(answer)) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_digest_is_no_key(client):
    assert send(client, listing("u"), digest("all")).status_code == 401


def test_a_refused_body_is_not_read(client):
    answer = client.post("/v1/events", content=b"{" * 2_000_000, headers={"content-type": "application/json"})
    assert answer.status_code == 401


@pytest.mark.parametrize("scope", ["recommend", "events", "explain"])
def test_a_key_opens_what_its_scope_says(client, scope):
    for needed, requests in REQUESTS.items():
        for request in requests:
            answer = send(client, request, scope)
            assert answer.status_code not in {401, 429}
            assert (answer.status_code == 403) == (needed != scope), request
            if needed != scope:
                assert code(answer) == "forbidden"
            assert send(client, request, "admin").status_code not in {401, 403, 429}


@pytest.mark.parametrize(("key", "query"), [
    ("recommend", '{ explanation(requestId: "r") }'),
    ("recommend", 'mutation { reportEvent(event: {userId: "u", itemId: "i", domain: "movies", eventType: "click"}) '
                  "{ eventId } }"),
    ("shop", '{ recommendations(userId: "other:1") { rung } }'),
    ("shop", '{ sessionRecommendations(sessionId: "other:1") { rung } }'),
    ("shop", 'mutation { reportEvent(event: {userId: "other:1", itemId: "i", domain: "movies", eventType: "click"}) '
             "{ eventId } }"),
])  # fmt: skip
def test_a_query_opens_no_more_than_its_key(client, key, query):
    (fault,) = send(client, ("POST", "/graphql", {"query": query}), key).json()["errors"]
    assert fault["extensions"]["code"] == "forbidden"


FORGED = [
    listing("other:1"),
    listing("session:other"),
    ("POST", "/v1/events", EVENT | {"user_id": "other:1"}),
    ("POST", "/v1/recommendations:batch", {"requests": [{"user_id": "shop:1"}, {"user_id": "other:1"}]}),
    ("POST", "/v1/sessions/recommendations", {"session_id": "other"}),
    ("POST", "/invocations", {"user_id": "other:1"}),
    ("POST", "/predict", {"instances": [{"user_id": "other:1"}]}),
]


@pytest.mark.parametrize("request_", FORGED, ids=lambda request: request[1])
def test_a_key_speaks_for_its_own_users_only(client, request_):
    answer = send(client, request_, "shop")
    assert (answer.status_code, code(answer)) == (403, "forbidden")
    assert send(client, request_, "all").status_code not in {401, 403}


def test_a_key_speaks_for_its_own_users_and_sessions(client):
    for request in (listing("shop:1"), listing("session:shop:s1"),
                    ("POST", "/v1/sessions/recommendations", {"session_id": "shop:s1"}),
                    ("POST", "/v1/sessions/recommendations", {})):  # fmt: skip
        assert send(client, request, "shop").status_code == 200


def test_the_record_of_another_s_request_is_unknown(settings):
    with TestClient(build(settings, lambda: INSTANT)) as client:
        ids = [send(client, listing(user), "all").json()["request_id"] for user in ("shop:1", "other:1")]

        def told(key: str) -> list[int]:
            return [send(client, ("GET", f"/v1/requests/{request_id}", None), key).status_code for request_id in ids]

        def kept() -> None:
            assert told("explain") == [200, 200]

        eventually(kept)
        assert told("shop") == [200, 404]


def test_beyond_its_rate_a_key_is_told_when_to_come_again(client):
    first, second = (send(client, listing("u"), "slow") for _ in range(2))
    assert (first.status_code, second.status_code, code(second)) == (200, 429, "rate_limited")
    assert 90 <= int(second.headers["Retry-After"]) <= 100
    assert send(client, listing("u"), "all").status_code == 200


def test_two_processes_share_one_bucket(settings):
    with redis.Redis.from_url(settings.redis_url) as store:
        store.flushdb()
        with TestClient(build(settings, lambda: INSTANT)) as one, TestClient(build(settings, lambda: INSTANT)) as two:
            assert [send(client, listing("u"), "slow").status_code for client in (one, two)] == [200, 429]
        (bucket,) = store.scan_iter("rate:*")
        assert 0 < store.ttl(bucket) <= 101


def test_a_bucket_of_this_process_fills_with_time():
    now = [0.0]
    key = ApiKey(name="k", sha256=digest("k"), scopes=("recommend",), requests_per_second=2)
    nowhere = OnlineStore(f"redis://127.0.0.1:{free_port()}/0", Metrics(), CircuitBreaker())
    limits = RateLimits(nowhere, lambda: now[0])

    async def take_at(*instants: float) -> list[float]:
        waits = []
        for now[0] in instants:
            waits.append(await limits.take(key))
        return waits

    assert asyncio.run(take_at(0, 0, 0, 0.25, 100, 100, 100)) == [0, 0, 0.5, 0.25, 0, 0, 0.5]


def test_refusals_are_counted(client):
    send(client, listing("u"), None)
    lines = client.get("/metrics").text.splitlines()
    assert any(line.startswith("recsys_requests_total{") and 'status="401"' in line for line in lines)


# The file, and new keys
def entry(**changes: object) -> dict:
    return {"name": "a", "sha256": "0" * 64, "scopes": ["recommend"], "requests_per_second": 1} | changes


BROKEN = {
    "no JSON": "{",
    "a list": "[]",
    "no keys": '{"keys": []}',
    "a key in clear": json.dumps({"keys": [entry(sha256="rsi_secret")]}),
    "unknown scope": json.dumps({"keys": [entry(scopes=["all"])]}),
    "no scope": json.dumps({"keys": [entry(scopes=[])]}),
    "no rate": json.dumps({"keys": [entry(requests_per_second=0)]}),
    "rate that is no number": json.dumps({"keys": [entry(requests_per_second=float("nan"))]}),
    "unknown field": json.dumps({"keys": [entry(colour="red")]}),
    "a name twice": json.dumps({"keys": [entry(), entry(sha256="1" * 64)]}),
    "a digest twice": json.dumps({"keys": [entry(), entry(name="b")]}),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_opens_nothing(settings, tmp_path, text):
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(UnusableInput, match="API keys"):
        build(settings.model_copy(update={"api_keys": str(path)}), lambda: INSTANT)


def test_a_missing_file_opens_nothing(settings, tmp_path):
    with pytest.raises(UnusableInput, match="API keys"):
        build(settings.model_copy(update={"api_keys": str(tmp_path / "none.json")}), lambda: INSTANT)


def test_a_new_key_is_told_once_and_its_entry_opens(tmp_path):
    command = [python_of("serving"), "-m", "serving", "key", "new", "--name", "web", "--scopes", "recommend,events",
               "--rate", "50", "--user-prefix", "shop:"]  # fmt: skip
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["key"].startswith(KEY_PREFIX)
    assert told["key"] not in json.dumps(told["entry"])
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [told["entry"]]}))
    (key,) = read_keys(path).values()
    assert key.sha256 == digest(told["key"])
    assert (key.scopes, key.requests_per_second, key.user_prefix) == (("recommend", "events"), 50, "shop:")


def test_an_unknown_scope_makes_no_key():
    command = [python_of("serving"), "-m", "serving", "key", "new", "--name", "n", "--scopes", "all", "--rate", "1"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "'recommend', 'events', 'explain' or 'admin'" in done.stderr


def test_keys_differ():
    keys = {new_key("n", [scope], 1, None)[0] for scope in SCOPES for _ in range(50)}
    assert len(keys) == 200
