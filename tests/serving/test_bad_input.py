"""The table of bad input in docs/api.md, row by row, at every door that takes such input."""

import json
from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from recsys.schemas import MAX_CLOCK_SKEW
from serving.contracts import ErrorAnswer
from serving.doors import MAX_BODY_BYTES
from tests.serving.ports import INSTANT, Parts, assemble
from tests.worlds.served import EVEN, FILMS, write_world

EVENT = {"user_id": "u", "item_id": FILMS[0], "domain": "movies", "event_type": "click"}
SQL = "'; drop table users; --"
CODES = {404: None, 413: "body_too_large", 422: "invalid_request"}

# Each door that takes a body, with a body that it accepts.
DOORS = {
    "/v1/events": EVENT,
    "/v1/recommendations:batch": {"requests": [{"user_id": "u"}]},
    "/v1/sessions/recommendations": {"items": [EVEN[0]]},
    "/invocations": {"user_id": "u"},
    "/score": {"user_id": "u"},
    "/predict": {"instances": [{"user_id": "u"}]},
}
LISTS = {"/v1/users/u/recommendations": 200, f"/v1/items/{EVEN[0]}/similar": 200}
BY_ID = {
    "/v1/users/{}/recommendations": 200,
    "/v1/items/{}/similar": 404,
    "/v1/requests/{}": 404,
}
BODIES = {
    "1.5 MB and a byte": (b" " * (MAX_BODY_BYTES + 1), 413),
    "1.5 MB of blanks": (b" " * MAX_BODY_BYTES, 422),
    "deep lists": (b"[" * 100_000, 422),
    "deep objects": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 422),
    "no JSON": (b"{", 422),
    "no UTF-8": (b'{"user_id": "\xff"}', 422),
    "nothing": (b"", 422),
    "a number": (b"17", 422),
    "null": (b"null", 422),
    "NaN": (b"NaN", 422),
    "a number of 5000 digits": (b'{"k": ' + b"9" * 5000 + b"}", 422),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Parts:
    return assemble(write_world(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def client(parts) -> TestClient:
    return TestClient(parts.app, raise_server_exceptions=False)


def check_refused(answer, status: int, word: str = "") -> None:
    error = ErrorAnswer.model_validate_json(answer.content, strict=True).error
    assert (answer.status_code, CODES[status] or error.code) == (status, error.code)
    assert word in error.message


@pytest.mark.parametrize("door", DOORS)
def test_each_door_takes_what_is_right(client, door):
    assert client.post(door, json=DOORS[door]).status_code in {200, 202}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("content", "status"), BODIES.values(), ids=BODIES)
def test_a_body_that_is_none(client, door, content, status):
    check_refused(client.post(door, content=content, headers={"content-type": "application/json"}), status)


@pytest.mark.parametrize("door", DOORS)
def test_an_unknown_field_is_named(client, door):
    check_refused(client.post(door, json=DOORS[door] | {"colour": "red"}), 422, "colour")


@pytest.mark.parametrize("door", ["/v1/sessions/recommendations", "/invocations", "/score"])
@pytest.mark.parametrize("k", [0, -1, 1001, 10_000, 1.5, "ten", "10", None, True, [1], float("nan"), 10**30])
def test_a_wrong_k_in_a_body(client, door, k):
    content = json.dumps(DOORS[door] | {"k": k}).encode()
    answer = client.post(door, content=content, headers={"content-type": "application/json"})
    check_refused(answer, 422, "k")


@pytest.mark.parametrize("url", LISTS)
@pytest.mark.parametrize("k", ["0", "-1", "1001", "10000", "1.5", "ten", "", "NaN", "1e3", "9" * 400, "1;2"])
def test_a_wrong_k_in_a_query(client, url, k):
    assert client.get(url, params={"k": 1000}).status_code == 200
    check_refused(client.get(url, params={"k": k}), 422, "k")


@pytest.mark.parametrize("url", BY_ID)
@pytest.mark.parametrize("character", ["%00", "%0A", "%07", "%7F", "%E2%80%AE", "%C2%85"])
def test_an_id_with_a_control_character(client, url, character):
    check_refused(client.get(url.format(f"a{character}b")), 422, "printable")


@pytest.mark.parametrize("url", BY_ID)
@pytest.mark.parametrize("text", [SQL, "../../etc/passwd", "{{7*7}}", "*", "$(id)", "%F0%9F%8E%AC", "%27%20or%20%271"])
def test_an_id_that_looks_like_a_command_is_an_id(client, url, text):
    answer = client.get(url.format(text.replace("#", "%23").replace("?", "%3F").replace("/", "%2F")))
    assert answer.status_code == BY_ID[url]
    assert answer.json().get("rung", "popular") == "popular"


@pytest.mark.parametrize(("field", "value"), [
    ("user_id", 17), ("user_id", None), ("user_id", ["u"]), ("user_id", {"$ne": ""}), ("item_id", 1.5),
    ("rating", "4"), ("rating", True), ("occurred_at", 17), ("occurred_at", "1764583200"),
    ("rating", "five"), ("rating", -0.1), ("rating", 5.1), ("rating", float("nan")), ("rating", float("inf")),
    ("occurred_at", "2026-11-22T10:00:00"), ("occurred_at", -(10**18)), ("event_type", "stare"), ("domain", "music"),
    ("context", {"a": 1}), ("context", []), ("event_id", ""), ("request_id", "a\u0000b"),
])  # fmt: skip
def test_an_event_with_a_wrong_type_or_range(client, parts, field, value):
    before = len(parts.log.interactions)
    content = json.dumps(EVENT | {field: value}).encode()
    check_refused(client.post("/v1/events", content=content, headers={"content-type": "application/json"}), 422, field)
    assert len(parts.log.interactions) == before


@pytest.mark.parametrize(("ahead", "status"), [
    (MAX_CLOCK_SKEW, 202),
    (MAX_CLOCK_SKEW + timedelta(milliseconds=1), 422),
    (-MAX_CLOCK_SKEW, 202),
    (-timedelta(days=3650), 202),
])  # fmt: skip
def test_a_clock_may_be_wrong_by_a_day(client, ahead, status):
    answer = client.post("/v1/events", json=EVENT | {"occurred_at": (INSTANT + ahead).isoformat()})
    assert answer.status_code == status
    if status == 422:
        check_refused(answer, 422, "occurred_at_in_the_future")


@pytest.mark.parametrize("identity", [{"event_id": "e1"}, {"occurred_at": "2026-11-22T09:00:00Z"}])
def test_a_replayed_event_keeps_its_id(client, identity):
    answers = [client.post("/v1/events", json=EVENT | identity) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["event_id"] for answer in answers}) == 1


def test_text_that_is_not_announced_as_json_is_refused(client):
    answer = client.post("/v1/events", content=json.dumps(EVENT), headers={"content-type": "text/plain"})
    check_refused(answer, 422, "body")
