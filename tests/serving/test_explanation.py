"""Why these items: the record of an answer says what the answer was made of, and only what is so."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from recsys.retriever import by_latest_event
from serving.explanation import contributions
from serving.model import ServedModel, load
from tests.serving.ports import INSTANT, Parts, assemble
from tests.worlds.served import BOOKS, EVEN, ITEMS, KINDS, ODD, write_world

LIST, WHY = "/v1/users/{}/recommendations", "/v1/requests/{}"
HISTORIES = st.lists(st.integers(0, len(ITEMS) - 1), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, ServedModel]:
    """Each kind, with vectors that are no checkerboard, a bias and a recency that counts."""
    found = {}
    for kind in KINDS:
        folder, chance = write_world(tmp_path_factory.mktemp(kind), kind), np.random.default_rng(7)
        if kind in {"ials", "mean"}:
            vectors = chance.normal(size=(len(ITEMS), 4)).astype(np.float32)
            np.save(folder / "item_vectors.npy", vectors)
            np.save(folder / "gram.npy", vectors.T @ vectors)
        model = load(folder)
        model.retriever.item_bias = chance.normal(size=len(ITEMS)).astype(np.float32)
        if kind == "linear":
            weights = model.retriever.item_vectors
            weights.value[:] = chance.normal(size=len(weights.value))
        found[kind] = model
    return found


@pytest.mark.parametrize("kind", ["ials", "mean", "linear"])
@settings(max_examples=60, deadline=None)
@given(history=HISTORIES)
def test_contributions_and_bias_are_the_score(models, kind, history):
    retriever = models[kind].retriever
    used, shown = by_latest_event(np.array(history)), np.array([3, 0, 11])
    given_ = contributions(retriever, used, shown)
    assert given_ is not None
    assert given_.shape == (len(used), 3)
    (scores,) = retriever.score([np.array(history)])
    np.testing.assert_allclose(given_.sum(axis=0) + retriever.item_bias[shown], scores[shown], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["onnx", "scorer", "popularity"])
def test_what_does_not_decompose_is_not_explained_by_items(models, kind):
    assert contributions(models[kind].retriever, np.array([0, 1]), np.array([2])) is None


@pytest.fixture
def parts(tmp_path) -> Parts:
    write_world(tmp_path, version="3")
    (tmp_path / "deployment.json").write_text(json.dumps({"model_version": "3", "unavailable_items": [BOOKS[3]]}))
    return assemble(tmp_path)


@pytest.fixture
def client(parts) -> TestClient:
    return TestClient(parts.app, raise_server_exceptions=False)


def why(client: TestClient, answer: dict) -> dict:
    record = client.get(WHY.format(answer["request_id"]))
    assert record.status_code == 200
    return record.json()


def test_a_personalised_answer_is_explained_in_full(client, parts):
    parts.users.know("ml-1m:17", [ODD[0], "gone:1", EVEN[0], EVEN[1]])  # all but the second are books
    wanted = {"k": 2, "domain": "books", "items": ODD[0]}
    answer = client.get(LIST.format("ml-1m:17"), params=wanted).json()
    assert [item["item_id"] for item in answer["items"]] == []
    wanted = {"k": 2, "domain": "movies", "items": EVEN[2]}
    answer = client.get(LIST.format("ml-1m:17"), params=wanted).json()
    record = why(client, answer)
    shown = record.pop("items")
    assert record.pop("graph") == parts.models.current.plan.version
    assert record == {
        "request_id": answer["request_id"], "answered_at": INSTANT.isoformat().replace("+00:00", "Z"),
        "user_id": "ml-1m:17", "variant": "champion", "propensity": 1.0, "rung": "personalised",
        "retrieval": {
            "source": "model", "model": "even_mean", "model_version": "3", "kind": "mean", "cut_id": "cut-even",
            "as_of": "2020-01-01T00:00:00Z", "computed_by": None,
        },
        "history": {"items": 4, "session_items": 1, "used_items": 4,
                    "latest_items": [EVEN[2], EVEN[1], EVEN[0], ODD[0]]},
        "filtered": {"catalogue": 16, "domain": 4, "unavailable": 0, "rules": {}, "seen": 1, "eligible": 11},
        "context": "", "stages": [], "ranker": None,
    }  # fmt: skip
    assert [(item["rank"], item["item_id"], item["score"]) for item in shown] == [
        (item["rank"], item["item_id"], item["score"]) for item in answer["items"]
    ]
    weights = [1, 1 / 2, 1 / 3]  # of the three even items, latest first; the odd one adds nothing
    for item in shown:
        assert [driver["item_id"] for driver in item["drivers"]] == [EVEN[2], EVEN[1], EVEN[0]]
        given_ = [driver["contribution"] for driver in item["drivers"]]
        assert given_ == pytest.approx([weight / (sum(weights) + 1 / 4) for weight in weights])
        assert sum(given_) == pytest.approx(item["score"])


@pytest.mark.parametrize(("wanted", "expected"), [
    ({}, {"catalogue": 16, "domain": 0, "unavailable": 1, "seen": 2, "eligible": 13}),
    ({"domain": "books"}, {"catalogue": 16, "domain": 12, "unavailable": 1, "seen": 2, "eligible": 1}),
    ({"domain": "movies"}, {"catalogue": 16, "domain": 4, "unavailable": 0, "seen": 0, "eligible": 12}),
    ({"domain": "social"}, {"catalogue": 16, "domain": 16, "unavailable": 0, "seen": 0, "eligible": 0}),
    ({"items": f"{BOOKS[3]},{BOOKS[0]}"}, {"catalogue": 16, "domain": 0, "unavailable": 1, "seen": 2, "eligible": 13}),
])  # fmt: skip
def test_every_item_is_counted_once(client, parts, wanted, expected):
    parts.users.know("u", BOOKS[:2])
    answer = client.get(LIST.format("u"), params=wanted | {"k": 1000}).json()
    assert why(client, answer)["filtered"] == expected | {"rules": {}}
    assert len(answer["items"]) == expected["eligible"]
    assert sum(expected.values()) == 2 * expected["catalogue"]


def test_a_popular_answer_claims_no_history(tmp_path):
    parts = assemble(write_world(tmp_path), {"popular": 1.0})
    client = TestClient(parts.app)
    parts.users.know("u", EVEN[:2])
    record = why(client, client.get(LIST.format("u"), params={"k": 2}).json())
    assert record["history"] == {"items": 2, "session_items": 0, "used_items": 0, "latest_items": []}
    assert [item["drivers"] for item in record["items"]] == [None, None]
    assert (record["rung"], record["filtered"]["seen"]) == ("popular", 2)


def test_a_precomputed_list_is_named_and_not_explained_by_scores_that_are_not_its_own(client, parts):
    parts.users.know("u", [EVEN[0]])
    parts.users.precompute("u", None, model_version="3", user_version=1, items=[[item, 7.0] for item in ODD[2:]])
    record = why(client, client.get(LIST.format("u"), params={"k": 2}).json())
    assert record["retrieval"]["source"] == "precomputed_list"
    assert [item["drivers"] for item in record["items"]] == [None, None]


def test_each_answer_of_a_batch_and_a_session_is_explained(client):
    batch = client.post("/v1/recommendations:batch", json={"requests": [{"user_id": f"u{n}"} for n in range(3)]})
    records = [why(client, answer) for answer in batch.json()["answers"]]
    assert [record["user_id"] for record in records] == ["u0", "u1", "u2"]
    session = why(client, client.post("/v1/sessions/recommendations", json={"items": [ODD[0]]}).json())
    assert (session["rung"], session["variant"], session["propensity"]) == ("session", "none", None)
    assert session["history"]["latest_items"] == [ODD[0]]


def test_another_model_does_not_say_what_drove_this_one(client, parts, tmp_path):
    parts.users.know("u", EVEN[:2])
    answer = client.get(LIST.format("u"), params={"k": 1}).json()
    assert why(client, answer)["items"][0]["drivers"]
    parts.models.current = load(write_world(tmp_path / "next", version="4"))
    record = why(client, answer)
    assert (record["retrieval"]["model_version"], record["history"]["latest_items"]) == ("3", EVEN[1::-1])
    assert record["items"][0]["drivers"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_explained_as_far_as_it_goes(tmp_path, kind):
    parts = assemble(write_world(tmp_path, kind))
    client = TestClient(parts.app)
    parts.users.know("u", EVEN[:2])
    record = why(client, client.get(LIST.format("u"), params={"k": 1}).json())
    (item,) = record["items"]
    assert record["retrieval"]["kind"] == kind
    if kind in {"ials", "mean", "linear"}:
        assert [driver["item_id"] for driver in item["drivers"]] == [EVEN[1], EVEN[0]]
    else:
        assert item["drivers"] is None


@pytest.mark.parametrize(("request_id", "status", "code"), [
    ("0" * 32, 404, "unknown_request"),
    ("a/b", 404, "unknown_request"),
    ("a%00", 422, "invalid_request"),
    ("r" * 257, 422, "invalid_request"),
])  # fmt: skip
def test_what_cannot_be_explained(client, request_id, status, code):
    answer = client.get(WHY.format(request_id))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
