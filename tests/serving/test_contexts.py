"""Contexts of the serving graph: rules for a device, a place, an hour; no list of one context answers in another."""

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from serving.graph import Context, Graph
from serving.model import load
from tests.serving.ports import INSTANT, assemble
from tests.serving.test_held import World
from tests.worlds.served import BOOKS, EVEN, FILMS, ODD, write_world

PIN = {"name": "on a television", "action": "pin", "item_id": FILMS[1], "rank": 1}
NO_BOOKS = {"name": "no books there", "action": "hide", "items": {"domain": "books"}}
TV = {"name": "tv", "devices": ["tv", "projector"], "rules": [PIN]}
ABROAD = {"name": "abroad", "locations": ["DE"], "rules": [NO_BOOKS]}
NIGHT = {"name": "night", "hours": [22, 6], "rules": [NO_BOOKS]}
MORNING = {"name": "morning", "hours": [6, 12], "devices": ["phone"], "rules": [NO_BOOKS]}
GRAPH = Graph.model_validate({"contexts": [TV, ABROAD, NIGHT, MORNING]})


@pytest.fixture
def world(tmp_path) -> World:
    made = World(write_world(tmp_path, version="3"))
    made.models.current = load(tmp_path, graph=GRAPH)
    made.users.know("u", [EVEN[0]])
    return made


def items(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


@pytest.mark.parametrize(("said", "device", "location", "hour", "fits"), [
    (TV, "tv", None, 3, True), (TV, "projector", "DE", 3, True), (TV, "phone", None, 3, False),
    (TV, None, None, 3, False), (ABROAD, "tv", "DE", 3, True), (ABROAD, None, "AT", 3, False),
    (NIGHT, None, None, 22, True), (NIGHT, None, None, 5, True), (NIGHT, None, None, 6, False),
    (NIGHT, None, None, 21, False), (MORNING, "phone", None, 6, True), (MORNING, "phone", None, 12, False),
    (MORNING, "tv", None, 7, False),
])  # fmt: skip
def test_all_that_a_context_says_must_fit(said, device, location, hour, fits):
    assert Context.model_validate(said).fits(device, location, hour) is fits


@pytest.mark.parametrize("contexts", [
    [{"name": "always", "rules": [PIN]}],
    [{"name": "empty", "devices": ["tv"], "rules": []}],
    [{"name": "Not a key!", "devices": ["tv"], "rules": [PIN]}],
    [TV, TV],
    [{**NIGHT, "hours": [22, 25]}],
], ids=["always", "no rule", "name", "twice", "hour"])  # fmt: skip
def test_a_context_that_says_nothing_usable_is_refused(contexts):
    with pytest.raises(ValidationError):
        Graph.model_validate({"contexts": contexts})


def test_a_context_may_not_contradict_the_rules_that_hold_always():
    with pytest.raises(ValidationError, match="two pins"):
        Graph.model_validate({"rules": [PIN | {"name": "always first"}], "contexts": [TV]})


def test_the_first_context_that_fits_has_its_rules_behind_the_others(world):
    model = world.models.current
    assert [one.context for one in (
        model, model.within(None, None, INSTANT), model.within("tv", "DE", INSTANT),
        model.within(None, "DE", INSTANT), model.within("phone", None, INSTANT), model.within("laptop", "AT", INSTANT),
        model.within(None, None, INSTANT.replace(hour=23)),
    )] == ["", "", "tv", "abroad", "morning", "", "night"]  # fmt: skip
    assert model.within("tv", None, INSTANT).plan.version != model.plan.version
    assert model.within("phone", None, INSTANT).counts("books")[1] == 0


def test_lists_of_different_contexts_never_answer_each_other(world):
    alone, tv, abroad = {}, {"device": "tv"}, {"location": "DE"}
    first = {name: items(world.ask(**wanted)) for name, wanted in (("", alone), ("tv", tv), ("abroad", abroad))}
    assert first[""] == EVEN[1:4]
    assert first["tv"] == [FILMS[1], *EVEN[1:3]]
    assert set(first["abroad"]).isdisjoint(BOOKS)
    for _ in range(3):  # computed, then from the stored list, then held
        assert items(world.ask(**tv)) == first["tv"]
        assert items(world.ask()) == first[""]
        assert items(world.ask(**abroad)) == first["abroad"]
    assert world.held >= 3
    assert {domain for _, domain in world.users.lists} == {None, "all@tv", "all@abroad"}

    world.users.know("u", [EVEN[0], ODD[0]], version=2)  # an event of the user ends them all
    held = world.held
    assert items(world.ask(**tv))[0] == FILMS[1] or ODD[0] == FILMS[1]
    assert items(world.ask()) != first[""]
    assert world.held == held


def test_every_door_knows_the_context(tmp_path):
    parts = assemble(write_world(tmp_path))
    parts.models.current = load(tmp_path, graph=GRAPH)
    parts.users.know("u", [EVEN[0]])
    client = TestClient(parts.app)
    rest = client.get("/v1/users/u/recommendations", params={"k": 3, "device": "tv"}).json()
    record = client.get(f"/v1/requests/{rest['request_id']}").json()
    assert (items(rest)[0], record["context"]) == (FILMS[1], "tv")
    session = client.post("/v1/sessions/recommendations", json={"items": [EVEN[0]], "k": 3, "device": "tv"}).json()
    batch = client.post("/v1/recommendations:batch", json={"requests": [{"user_id": "u", "device": "tv", "k": 3}]})
    cloud = client.post("/invocations", json={"user_id": "u", "device": "tv", "k": 3}).json()
    query = '{ recommendations(userId: "u", k: 3, device: "tv") { items { itemId } } }'
    told = client.post("/graphql", json={"query": query}).json()["data"]["recommendations"]["items"]
    for answer in (session, batch.json()["answers"][0], cloud):
        assert items(answer)[0] == FILMS[1]
    assert told[0]["itemId"] == FILMS[1]
    assert client.get("/v1/users/u/recommendations", params={"device": "a\0b"}).status_code == 422
