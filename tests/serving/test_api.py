"""The API's contract over a real tiny model; store and log are imitated, they are not the subject here."""

import json
import re
from datetime import timedelta

import pytest
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from recsys.assignment import assign
from serving.contracts import Answer, ErrorAnswer, NewEvent, WantedFor
from tests.serving.ports import INSTANT, Parts, assemble, impressions_of
from tests.worlds.served import BOOKS, EVEN, FILMS, ITEMS, ODD, POPULAR, write_world

EVENT = {"user_id": "ml-1m:17", "item_id": FILMS[0], "domain": "movies", "event_type": "click"}
LIST = "/v1/users/{}/recommendations"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("model"), version="3")


@pytest.fixture
def parts(folder) -> Parts:
    return assemble(folder)


@pytest.fixture
def client(parts) -> TestClient:
    return TestClient(parts.app, raise_server_exceptions=False)


def items(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def test_an_answer_says_what_and_where_from(client, parts):
    parts.users.know("ml-1m:17", EVEN[:2])
    answer = client.get(LIST.format("ml-1m:17"), params={"k": 3}).json()
    assert re.fullmatch("[0-9a-f]{32}", answer.pop("request_id"))
    shown = answer.pop("items")
    assert answer == {
        "user_id": "ml-1m:17", "variant": "champion", "model": "even_mean", "model_version": "3",
        "rung": "personalised",
    }  # fmt: skip
    assert [(item["rank"], item["item_id"]) for item in shown] == [(1, EVEN[2]), (2, EVEN[3]), (3, EVEN[4])]
    assert shown[0] | {"score": 0} == {
        "rank": 1, "item_id": EVEN[2], "title": f"Title of {EVEN[2]}", "domain": "movies", "score": 0,
        "categories": ["Even"],
    }  # fmt: skip


def test_the_impressions_of_an_answer_say_the_same(client, parts):
    answer = client.get(LIST.format("new"), params={"k": 3, "domain": "books"}).json()
    (shown,) = parts.records.shown
    impressions = impressions_of(shown)
    assert [(i.rank, i.item_id, i.score) for i in impressions] == [
        (item["rank"], item["item_id"], item["score"]) for item in answer["items"]
    ]
    assert len({i.event_id for i in impressions}) == 3
    assert {
        (i.request_id, i.user_id, i.variant, i.model_version, i.propensity, i.rung, i.shown_at, i.domain)
        for i in impressions
    } == {(answer["request_id"], "new", "champion", "3", 1.0, "segment_popular", INSTANT, "books")}


def test_each_answer_has_an_id_of_its_own(client):
    ids = {client.get(LIST.format("u")).json()["request_id"] for _ in range(20)}
    assert len(ids) == 20


@pytest.mark.parametrize(
    ("user", "params", "rung", "wanted"),
    [
        ("known", {"k": 2}, "personalised", EVEN[2:4]),
        ("known", {"k": 2, "domain": "books"}, "personalised", [BOOKS[1], BOOKS[3]]),
        ("known", {"k": 1, "items": EVEN[2]}, "personalised", EVEN[3:4]),
        ("new", {"k": 2, "items": f"{ODD[0]},{ODD[1]}"}, "session", ODD[2:4]),
        ("new", {"k": 2, "items": [ODD[0], ODD[1]]}, "session", ODD[2:4]),
        ("new", {"k": 2, "items": "gone:1"}, "popular", POPULAR[:2]),
        ("new", {"k": 2}, "popular", POPULAR[:2]),
        ("new", {"k": 2, "domain": "books"}, "segment_popular", BOOKS[::-1][:2]),
        ("new", {"k": 2, "domain": "social"}, "segment_popular", []),
        ("new", {"k": 1000}, "popular", POPULAR),
        ("new", {}, "popular", POPULAR[:10]),
        ("a/b c%é", {"k": 1}, "popular", POPULAR[:1]),
    ],
)
def test_the_ladder(client, parts, user, params, rung, wanted):
    parts.users.know("known", EVEN[:2])  # both are books
    answer = client.get(LIST.format(user.replace("%", "%25")), params=params)
    assert answer.status_code == 200
    assert (answer.json()["user_id"], answer.json()["rung"], items(answer.json())) == (user, rung, wanted)


def test_a_dead_store_costs_the_personal_rung_only(client, parts):
    parts.users.know("known", EVEN[:2])
    parts.users.down = True
    assert client.get(LIST.format("known")).json()["rung"] == "popular"
    assert client.get(LIST.format("known"), params={"items": ODD[0]}).json()["rung"] == "session"


def test_variants_follow_the_assignment_and_the_propensity_their_share(folder):
    weights = {"champion": 0.6, "popular": 0.4}
    parts = assemble(folder, weights)
    client = TestClient(parts.app)
    seen = set()
    for number in range(40):
        user = f"u{number}"
        parts.users.know(user, [EVEN[0]])
        answer = client.get(LIST.format(user), params={"k": 2}).json()
        variant = assign(user, "recommendations-2026-11", weights)
        rung, wanted = ("popular", POPULAR[:2]) if variant == "popular" else ("personalised", EVEN[1:3])
        assert (answer["variant"], answer["rung"], items(answer)) == (variant, rung, wanted)
        assert parts.records.shown[-1].propensity == weights[variant]
        seen.add(variant)
    assert seen == set(weights)


# Precomputed lists. The stored list is one that the core would never give, so that its use shows.
STORED = {"model_version": "3", "user_version": 1, "items": [[item, 1.0] for item in ODD]}


@pytest.mark.parametrize(
    ("stored", "params", "result", "wanted"),
    [
        (STORED, {"k": 3}, "hit", ODD[:3]),
        (STORED, {"k": len(ODD)}, "hit", ODD),
        (STORED, {"k": len(ODD) + 1}, "stale", None),
        (STORED | {"model_version": "2"}, {"k": 3}, "stale", None),
        (STORED | {"user_version": 0}, {"k": 3}, "stale", None),
        (STORED | {"items": [["gone:1", 1.0], *STORED["items"]]}, {"k": 3}, "stale", None),
        (STORED | {"code": "anything"}, {"k": 3}, "refused", None),
        (STORED | {"items": "everything"}, {"k": 3}, "refused", None),
        (STORED | {"items": [[ODD[0], float("nan")]]}, {"k": 1}, "refused", None),
    ],
)
def test_a_precomputed_list_is_used_only_when_it_is_current(client, parts, stored, params, result, wanted):
    parts.users.know("known", [EVEN[0]])
    parts.users.precompute("known", None, **stored)
    answer = client.get(LIST.format("known"), params=params).json()
    assert items(answer) == (wanted or [*EVEN[1:], *ODD][: params["k"]])
    assert answer["rung"] == "personalised"
    assert parts.count("recsys_cached_lists_total", result=result) == 1


def test_a_value_that_is_no_list_is_refused_unread(client, parts):
    parts.users.know("known", [EVEN[0]])
    parts.users.lists["known", None] = "cposix\nsystem\n(S'true'\ntR."
    assert items(client.get(LIST.format("known"), params={"k": 1}).json()) == [EVEN[1]]
    assert parts.count("recsys_cached_lists_total", result="refused") == 1


def test_a_session_or_a_domain_does_not_get_the_list_of_all(client, parts):
    parts.users.know("known", [EVEN[0]])
    parts.users.precompute("known", None, **STORED)
    assert items(client.get(LIST.format("known"), params={"k": 1, "items": EVEN[1]}).json()) == [EVEN[2]]
    assert items(client.get(LIST.format("known"), params={"k": 1, "domain": "books"}).json()) == [BOOKS[2]]


# Events
def test_an_event_reaches_the_log_as_the_schema_has_it(client, parts):
    context = {"device": "phone"}
    answer = client.post("/v1/events", json=EVENT | {"rating": 4.5, "request_id": "r1", "context": context})
    (interaction,) = parts.log.interactions
    assert (answer.status_code, answer.json()) == (202, {"event_id": interaction.event_id})
    assert interaction.context == {"device": "phone", "request_id": "r1"}
    assert (interaction.occurred_at, interaction.rating) == (INSTANT, 4.5)


def test_the_same_event_has_the_same_id(client, parts):
    event = EVENT | {"occurred_at": "2026-11-22T09:00:00+01:00"}
    same = EVENT | {"occurred_at": "2026-11-22T08:00:00Z"}
    ids = [client.post("/v1/events", json=body).json()["event_id"] for body in (event, same, same | {"rating": 1})]
    other = client.post("/v1/events", json=event | {"event_type": "view"}).json()["event_id"]
    assert len(set(ids)) == 1
    assert other not in ids
    assert client.post("/v1/events", json=event | {"event_id": "mine"}).json() == {"event_id": "mine"}


def test_a_dead_log_is_said(client, parts):
    parts.log.down = True
    answer = client.post("/v1/events", json=EVENT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


# Bad input: request, status, and a word that the message must hold
def event(**changes: object) -> dict:
    return {"method": "POST", "url": "/v1/events", "json": EVENT | changes}


def listing(user: str = "u", **params: object) -> dict:
    return {"method": "GET", "url": LIST.format(user), "params": params}


def body(content: str | bytes, url: str = "/v1/events") -> dict:
    return {"method": "POST", "url": url, "content": content, "headers": {"content-type": "application/json"}}


BAD_INPUT = {
    "k is zero": (listing(k=0), 422, "k"),
    "k is negative": (listing(k=-1), 422, "k"),
    "k beyond the limit": (listing(k=10_000), 422, "k"),
    "k is no number": (listing(k="ten"), 422, "k"),
    "k is half": (listing(k="1.5"), 422, "k"),
    "k is NaN": (listing(k="NaN"), 422, "k"),
    "unknown domain": (listing(domain="music"), 422, "domain"),
    "unknown parameter": (listing(K=5), 422, "K"),
    "session too long": (listing(items=",".join(["i"] * 101)), 422, "items"),
    "session with control character": (listing(items="a\x00b"), 422, "items"),
    "user with NUL": (listing("a%00b"), 422, "user_id"),
    "user with line break": (listing("a%0Ab"), 422, "user_id"),
    "user with direction override": (listing("a%E2%80%AEb"), 422, "user_id"),
    "user too long": (listing("u" * 257), 422, "user_id"),
    "user empty": (listing(""), 422, "user_id"),
    "no such page": ({"method": "GET", "url": "/v2/users"}, 404, ""),
    "wrong method": ({"method": "DELETE", "url": "/v1/events"}, 405, ""),
    "event without user": (body(json.dumps({k: v for k, v in EVENT.items() if k != "user_id"})), 422, "user_id"),
    "event with empty item": (event(item_id=""), 422, "item_id"),
    "event with unknown type": (event(event_type="stare"), 422, "event_type"),
    "event with unknown domain": (event(domain="music"), 422, "domain"),
    "event with unknown field": (event(colour="red"), 422, "colour"),
    "event with wrong type": (event(user_id=17), 422, "user_id"),
    "event with rating out of range": (event(rating=6), 422, "rating"),
    "event with rating NaN": (body(json.dumps(EVENT | {"rating": float("nan")})), 422, "rating"),
    "event with rating infinite": (body(json.dumps(EVENT | {"rating": float("inf")})), 422, "rating"),
    "event without time zone": (event(occurred_at="2026-11-22T10:00:00"), 422, "occurred_at"),
    "event of two days ahead": (event(occurred_at=(INSTANT + timedelta(days=2)).isoformat()), 422, "future"),
    "event before time began": (event(occurred_at="0001-01-01T00:00:00+14:00"), 422, "occurred_at"),
    "event after time ends": (event(occurred_at="9999-12-31T23:59:59-14:00"), 422, "future"),
    "event with instant of nonsense": (event(occurred_at="yesterday"), 422, "occurred_at"),
    "event with crowded context": (event(context={str(n): "" for n in range(32)}), 422, "context"),
    "event with nested context": (event(context={"a": {"b": 1}}), 422, "context"),
    "event with control character": (event(item_id="a\u0007"), 422, "item_id"),
    "event with lone surrogate": (body('{"user_id": "\\ud800"}'), 422, "user_id"),
    "body is no JSON": (body("{"), 422, "body"),
    "body is no UTF-8": (body(b'{"user_id": "\xff"}'), 422, "body"),
    "body is empty": (body(""), 422, "body"),
    "body is a list": (body("[]"), 422, "body"),
    "body is very deep": (body("[" * 100_000), 422, "body"),
    "body is deep and well-formed": (body("[" * 50_000 + "]" * 50_000), 422, "body"),
    "body too large": (body(" " * 1_500_001), 413, "1500000"),
    "cloud request without user": (body("{}", "/invocations"), 422, "user_id"),
    "cloud request with k of text": (body('{"user_id": "u", "k": "ten"}', "/score"), 422, "k"),
    "no instances": (body('{"instances": []}', "/predict"), 422, "instances"),
    "too many instances": (body(json.dumps({"instances": [{"user_id": "u"}] * 101}), "/predict"), 422, "instances"),
    "one bad instance": (body('{"instances": [{"user_id": "u"}, {}]}', "/predict"), 422, "instances.1.user_id"),
}


@pytest.mark.parametrize(("request_", "status", "word"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_has_a_defined_answer(client, parts, request_, status, word):
    answer = client.request(**request_)
    assert answer.status_code == status
    error = ErrorAnswer.model_validate_json(answer.content, strict=True).error
    assert word in error.message
    assert (
        error.code
        == {404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 422: "invalid_request"}[status]
    )
    assert not parts.log.interactions


def test_an_id_may_look_like_anything_printable(client, parts):
    name = "'; drop table users; --<script>"
    assert client.post("/v1/events", json=EVENT | {"user_id": name}).status_code == 202
    assert parts.log.interactions[0].user_id == name


def test_a_body_without_length_is_measured_while_it_comes(client):
    answer = client.post("/v1/events", content=iter([b" " * 300_000] * 6), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_a_programming_mistake_is_logged_and_keeps_the_shape(client, parts, caplog):
    parts.users.know("broken", None)  # type: ignore[arg-type]
    answer = client.get(LIST.format("broken"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "Traceback" in caplog.text
    assert parts.count(
        "recsys_requests_total", route="/v1/users/{user_id}/recommendations", status="500", rung="", variant=""
    ) == 1  # fmt: skip


# Operations
def test_without_a_model_it_lives_but_is_not_ready():
    parts = assemble(None)
    client = TestClient(parts.app)
    assert client.get("/healthz").status_code == 200
    for answer in (client.get("/readyz"), client.get("/ping"), client.get(LIST.format("u")),
                   client.post("/invocations", json={"user_id": "u"})):  # fmt: skip
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert client.post("/v1/events", json=EVENT).status_code == 202


def test_requests_are_counted_by_route_status_rung_and_variant(client, parts):
    client.get(LIST.format("u"))
    client.get(LIST.format("u"), params={"k": 0})
    client.get("/nowhere")
    route = "/v1/users/{user_id}/recommendations"
    text = client.get("/metrics").text
    for line in (
        f'recsys_requests_total{{route="{route}",rung="popular",status="200",variant="champion"}} 1.0',
        f'recsys_requests_total{{route="{route}",rung="",status="422",variant=""}} 1.0',
        'recsys_requests_total{route="none",rung="",status="404",variant=""} 1.0',
        f'recsys_request_seconds_count{{route="{route}"}} 2.0',
    ):
        assert line in text


def test_the_docs_page_loads_nothing_from_elsewhere(client):
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.findall(r"https?://|(?:src|href)\s*=\s*[\"']/", page.text)
    assert "openapi.json" in page.text


def test_the_openapi_document_describes_every_answer_and_its_examples_hold(client):
    api = client.get("/openapi.json").json()
    schemas = api["components"]["schemas"]
    for model in (Answer, NewEvent, WantedFor):
        examples = schemas[model.__name__]["examples"]
        assert examples
        for example in examples:
            TypeAdapter(model).validate_json(json.dumps(example))
    assert "HTTPValidationError" not in schemas
    documented = {path: set(operation["responses"]) for path, methods in api["paths"].items()
                  for operation in methods.values()}  # fmt: skip
    assert documented["/v1/users/{user_id}/recommendations"] == {
        "200", "401", "403", "422", "429", "503"
    }  # fmt: skip
    assert documented["/v1/events"] == {"202", "401", "403", "413", "422", "429", "503"}


def test_the_clouds_envelopes_give_the_same_list(folder):
    parts = assemble(folder, health_route="/v1/health", predict_route="/v1/models/m:predict")
    client = TestClient(parts.app)
    parts.users.know("known", EVEN[:2])
    wanted = {"user_id": "known", "k": 5, "domain": "movies", "items": [EVEN[2]]}
    rest = client.get(LIST.format("known"), params={"k": 5, "domain": "movies", "items": EVEN[2]}).json()
    sagemaker = client.post("/invocations", json=wanted).json()
    azure = client.post("/score", json=wanted).json()
    vertex = client.post("/v1/models/m:predict", json={"instances": [wanted, {"user_id": "new", "k": 1}]}).json()
    assert rest["items"]
    for answer in (sagemaker, azure, vertex["predictions"][0]):
        assert answer | {"request_id": ""} == rest | {"request_id": ""}
    assert items(vertex["predictions"][1]) == POPULAR[:1]
    for health in ("/ping", "/v1/health", "/readyz", "/healthz"):
        assert client.get(health).status_code == 200
    assert set(items(rest)) <= set(ITEMS)
