"""Lists that are not one user's: around an item, for many users at once, for a session of nobody in particular."""

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from recsys.artifacts import EXPERIMENT_SALT
from recsys.assignment import assign
from tests.serving.ports import INSTANT, Parts, assemble, impressions_of
from tests.worlds.served import BOOKS, EVEN, FILMS, ITEMS, KINDS, ODD, POPULAR, write_world

SIMILAR = "/v1/items/{}/similar"
BATCH, SESSION = "/v1/recommendations:batch", "/v1/sessions/recommendations"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("model"), version="3")


@pytest.fixture
def parts(folder) -> Parts:
    return assemble(folder)


@pytest.fixture
def client(parts) -> TestClient:
    return TestClient(parts.app, raise_server_exceptions=False)


def items(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


# Around an item
def test_similar_items_say_what_and_where_from(client, parts):
    answer = client.get(SIMILAR.format(EVEN[0]), params={"k": 3})
    assert answer.status_code == 200
    content = answer.json()
    assert {name: content[name] for name in ("item_id", "model", "model_version")} == {
        "item_id": EVEN[0], "model": "even_mean", "model_version": "3",
    }  # fmt: skip
    assert [(item["rank"], item["item_id"]) for item in content["items"]] == list(enumerate(EVEN[1:4], start=1))
    assert content["items"][0]["score"] == pytest.approx(1)
    assert not parts.records.shown


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_all_but_the_item_itself(tmp_path, kind):
    client = TestClient(assemble(write_world(tmp_path, kind)).app)
    answer = client.get(SIMILAR.format(EVEN[0]), params={"k": 1000}).json()
    assert sorted(items(answer)) == sorted(set(ITEMS) - {EVEN[0]})
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    alike = POPULAR[:4] if kind == "popularity" else EVEN[1:5]
    assert items(client.get(SIMILAR.format(EVEN[0]), params={"k": 4}).json()) == alike


def test_similar_items_are_of_the_domain_and_available(tmp_path):
    write_world(tmp_path)
    (tmp_path / "deployment.json").write_text(
        json.dumps({"model_version": "1", "unavailable_items": [EVEN[0], FILMS[2]]})
    )
    client = TestClient(assemble(tmp_path).app)
    alike_films = [film for film in FILMS if film in EVEN and film != FILMS[2]]
    for params, wanted in (
        ({"k": 3}, EVEN[1:2] + alike_films[:2]),
        ({"k": 3, "domain": "movies"}, alike_films[:3]),
        ({"k": 1000, "domain": "books"}, [EVEN[1], BOOKS[1], BOOKS[3]]),
        ({"k": 5, "domain": "social"}, []),
    ):
        assert items(client.get(SIMILAR.format(EVEN[0]), params=params).json()) == wanted


@pytest.mark.parametrize(("item", "params", "status", "code"), [
    ("gone:1", {}, 404, "unknown_item"),
    ("a/b%20c'; drop table items;--", {}, 404, "unknown_item"),
    (EVEN[0], {"k": 0}, 422, "invalid_request"),
    (EVEN[0], {"k": 1001}, 422, "invalid_request"),
    (EVEN[0], {"domain": "music"}, 422, "invalid_request"),
    (EVEN[0], {"items": EVEN[1]}, 422, "invalid_request"),
    ("a%00b", {}, 422, "invalid_request"),
    ("", {}, 422, "invalid_request"),
])  # fmt: skip
def test_what_has_no_similar_items(client, item, params, status, code):
    answer = client.get(SIMILAR.format(item), params=params)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_before_the_first_deploy_every_list_is_unavailable():
    client = TestClient(assemble(None).app)
    for answer in (client.get(SIMILAR.format("i")), client.post(SESSION, json={}),
                   client.post(BATCH, json={"requests": [{"user_id": "u"}]})):  # fmt: skip
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


# Many users
def test_a_batch_answers_each_as_alone_and_in_order(client, parts):
    parts.users.know("even", EVEN[:2])
    parts.users.know("odd", ODD[:2])
    parts.users.know("listed", [EVEN[0]])
    parts.users.precompute("listed", None, model_version="3", user_version=1, items=[[item, 1.0] for item in ODD])
    asked = [
        {"user_id": "odd", "k": 2},
        {"user_id": "listed", "k": 3},
        {"user_id": "new", "k": 4, "domain": "books"},
        {"user_id": "even", "k": 3, "items": [EVEN[2]]},
        {"user_id": "odd", "k": 1},
    ]
    answers = client.post(BATCH, json={"requests": asked}).json()["answers"]
    assert parts.users.round_trips == 1
    shown = [shown.answer.request_id for shown in parts.records.shown]
    alone = [client.post("/invocations", json=request).json() for request in asked]
    assert len(answers) == len(asked)
    assert [answer | {"request_id": ""} for answer in answers] == [answer | {"request_id": ""} for answer in alone]
    assert items(answers[0]) == ODD[2:4]
    assert items(answers[1]) == ODD[:3]
    assert shown == [answer["request_id"] for answer in answers]
    assert len(set(shown)) == len(asked)


def test_a_batch_without_the_store_is_answered_too(client, parts):
    parts.users.down = True
    answers = client.post(BATCH, json={"requests": [{"user_id": f"u{n}"} for n in range(100)]}).json()["answers"]
    assert [answer["user_id"] for answer in answers] == [f"u{n}" for n in range(100)]
    assert {answer["rung"] for answer in answers} == {"popular"}


@pytest.mark.parametrize(("body", "word"), [
    ({"requests": []}, "requests"),
    ({"requests": [{"user_id": "u"}] * 101}, "requests"),
    ({"requests": [{"user_id": "u"}, {"user_id": "u", "k": 0}]}, "requests.1.k"),
    ({"requests": [{"k": 1}]}, "requests.0.user_id"),
    ({"requests": [{"user_id": "u", "colour": "red"}]}, "requests.0.colour"),
    ({"requests": {"user_id": "u"}}, "requests"),
    ({}, "requests"),
    ([], "body"),
])  # fmt: skip
def test_one_bad_request_refuses_the_batch(client, parts, body, word):
    answer = client.post(BATCH, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert word in answer.json()["error"]["message"]
    assert not parts.records.shown


# A session of nobody in particular
@pytest.mark.parametrize(("wanted", "rung", "expected"), [
    ({"items": ODD[:2], "k": 2}, "session", ODD[2:4]),
    ({"items": [EVEN[0], "gone:1"], "k": 1, "domain": "books"}, "session", [EVEN[1]]),
    ({"items": ["gone:1"], "k": 2}, "popular", POPULAR[:2]),
    ({"k": 2}, "popular", POPULAR[:2]),
    ({"k": 2, "domain": "books"}, "segment_popular", BOOKS[::-1][:2]),
    ({"items": [], "k": 1000}, "popular", POPULAR),
])  # fmt: skip
def test_a_session_speaks_alone_and_the_store_is_not_asked(client, parts, wanted, rung, expected):
    answer = client.post(SESSION, json=wanted).json()
    assert (answer["rung"], items(answer)) == (rung, expected)
    assert parts.users.round_trips == 0


def test_without_an_id_a_session_is_outside_of_the_experiment(folder):
    parts = assemble(folder, {"champion": 0.0, "popular": 1.0})
    answer = TestClient(parts.app).post(SESSION, json={"items": ODD[:1], "k": 1}).json()
    assert (answer["variant"], answer["rung"], items(answer)) == ("none", "session", [ODD[1]])
    assert answer["user_id"] == f"session:{answer['request_id']}"
    assert not parts.records.shown


def test_with_an_id_a_session_is_a_unit_of_the_experiment(folder):
    weights = {"champion": 0.6, "popular": 0.4}
    parts = assemble(folder, weights)
    client = TestClient(parts.app)
    seen = set()
    for number in range(40):
        answer = client.post(SESSION, json={"session_id": f"s{number}", "items": ODD[:1], "k": 1}).json()
        variant = assign(f"session:s{number}", EXPERIMENT_SALT, weights)
        rung, wanted = ("popular", POPULAR[:1]) if variant == "popular" else ("session", ODD[1:2])
        assert (answer["user_id"], answer["variant"]) == (f"session:s{number}", variant)
        assert (answer["rung"], items(answer)) == (rung, wanted)
        (impression,) = impressions_of(parts.records.shown[-1])
        assert (impression.user_id, impression.variant) == (f"session:s{number}", variant)
        assert (impression.propensity, impression.shown_at) == (weights[variant], INSTANT)
        seen.add(variant)
    assert seen == set(weights)


@pytest.mark.parametrize(("wanted", "word"), [
    ({"session_id": ""}, "session_id"),
    ({"session_id": "a\x00"}, "session_id"),
    ({"session_id": "s" * 249}, "session_id"),
    ({"items": ["i"] * 101}, "items"),
    ({"items": [None]}, "items"),
    ({"k": 10_000}, "k"),
    ({"user_id": "u"}, "user_id"),
])  # fmt: skip
def test_a_bad_session_is_refused(client, wanted, word):
    answer = client.post(SESSION, json=wanted)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert word in answer.json()["error"]["message"]


def test_the_longest_session_id_makes_valid_impressions(client, parts):
    client.post(SESSION, json={"session_id": "s" * 248, "k": 16})
    assert [len(impression.user_id) for impression in impressions_of(parts.records.shown[0])] == [256] * 16
