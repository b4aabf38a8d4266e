"""Answers held in the process: given again only while they would be the same, never without what they leave behind."""

import json
from dataclasses import dataclass, field

import pytest
from starlette.testclient import TestClient

from recsys.promotion import Rollout, Stage
from recsys.schemas import ShownList
from recsys.user_state import UserState
from serving.answering import Answering
from serving.app import create_app
from serving.cache import ListLine
from serving.contracts import Answer
from serving.explanation import RequestRecord
from serving.graph import Graph
from serving.held import HeldAnswers
from serving.metrics import Metrics
from serving.model import load
from serving.rollout import Candidate
from tests.serving.ports import INSTANT, Candidates, Log, Models, Records, Splits, Users
from tests.worlds.served import EVEN, write_world

LIST = "/v1/users/{}/recommendations"


class Versioned(Users):
    """Users whose stored lists are those that answers left behind."""

    looks = 0

    async def version(self, user_id: str) -> int:
        if self.down:
            await self.read([(user_id, None)])
        self.looks += 1
        return self.states.get(user_id, UserState([], {}, 0)).version


@dataclass
class Left:
    """What answers leave behind; a list is in the store at once."""

    users: Versioned
    again_given: list[tuple[bytes, bytes, int]] = field(default_factory=list)

    def remember(self, line: ListLine) -> None:
        self.users.lists[line.user_id, line.domain] = line.list.model_dump_json()

    def again(self, *line: object) -> None:
        self.again_given.append(line)


class World:
    def __init__(self, folder, most: int = 100, weights: dict[str, float] | None = None):
        self.models, self.users, self.log, self.metrics = Models(load(folder)), Versioned(), Log(), Metrics()
        self.left, self.candidates, self.splits = Left(self.users), Candidates(), Splits(weights or {"champion": 1.0})
        answering = Answering(
            self.models, self.users, Records(), self.splits, self.metrics, self.left, 600, self.candidates,
            held=HeldAnswers(self.users, self.left, self.metrics, most),
        )  # fmt: skip
        self.client = TestClient(create_app(answering, self.log, self.metrics, lambda: INSTANT))

    def ask(self, user: str = "u", **wanted: object) -> dict:
        answer = self.client.get(LIST.format(user), params={"k": 3, **wanted})
        assert answer.status_code == 200
        return Answer.model_validate_json(answer.content).model_dump()

    @property
    def held(self) -> float:
        return self.metrics.registry.get_sample_value("recsys_cached_lists_total", {"result": "held"}) or 0.0


@pytest.fixture
def world(tmp_path) -> World:
    made = World(write_world(tmp_path, version="3"))
    made.users.know("u", [EVEN[0]])
    made.first, made.second = made.ask(), made.ask()
    assert made.held == 0
    return made


def test_the_third_time_an_answer_is_at_hand(world):
    trips = world.users.round_trips
    third = world.ask()
    assert (world.held, world.users.round_trips, world.users.looks) == (1, trips, 1)
    assert third | {"request_id": ""} == world.second | {"request_id": ""} == world.first | {"request_id": ""}
    assert len({third["request_id"], world.second["request_id"], world.first["request_id"]}) == 3


def test_it_leaves_behind_what_every_answer_does(world):
    third = world.ask()
    ((text, record, items),) = world.left.again_given
    shown = ShownList.model_validate_json(text)
    assert (shown.request_id, shown.shown_at, items, shown.propensity) == (third["request_id"], INSTANT, 3, 1.0)
    assert [(i.item_id, i.rank) for i in shown.items] == [(item["item_id"], item["rank"]) for item in third["items"]]
    told = RequestRecord.model_validate_json(record)
    assert (told.request_id, told.user_id, told.answered_at) == (third["request_id"], "u", INSTANT)
    assert (told.retrieval.source, told.retrieval.computed_by) == ("cached_list", world.first["request_id"])
    assert [item.item_id for item in told.items] == [item["item_id"] for item in third["items"]]


def test_an_event_of_the_user_ends_it(world):
    world.users.know("u", [EVEN[0], EVEN[1]], version=2)
    assert world.ask()["items"][0]["item_id"] == EVEN[2]
    assert world.held == 0


@pytest.mark.parametrize("change", ["model", "graph", "candidate", "experiment"])
def test_whatever_else_decides_the_answer_ends_it(world, tmp_path, change):
    if change == "model":
        world.models.current = load(write_world(tmp_path / "next", version="4"))
    elif change == "graph":
        hide = {"name": "h", "action": "hide", "items": {"item_ids": [EVEN[1]]}}
        world.models.current = world.models.current.under(Graph(rules=[hide]))
    elif change == "candidate":
        rollout = Rollout(version="4", stage=Stage.CANARY_50, share=0.5)
        world.candidates.current = Candidate(load(write_world(tmp_path / "next", version="4")), rollout)
    else:
        world.splits.current = Splits({"popular": 1.0}).current
    world.ask()
    assert world.held == 0


@pytest.mark.parametrize("wanted", [{"k": 4}, {"domain": "movies"}, {"items": EVEN[3]}], ids=str)
def test_another_wish_is_another_answer(world, wanted):
    world.ask(**wanted)
    assert world.held == 0


def test_with_the_store_away_it_is_given_as_it_was(world):
    world.users.down = True
    assert world.ask()["items"] == world.first["items"]
    assert world.ask("somebody else")["rung"] == "popular"


def test_lists_of_another_policy_are_not_held(tmp_path):
    world = World(write_world(tmp_path), weights={"popular": 1.0})
    world.users.know("u", [EVEN[0]])
    assert [world.ask()["rung"] for _ in range(4)] == ["popular"] * 4
    assert world.held == 0


def test_the_least_lately_asked_goes_first(tmp_path):
    world = World(write_world(tmp_path), most=2)
    for user in ("a", "b", "c"):
        world.users.know(user, [EVEN[0]])
        world.ask(user), world.ask(user)
    world.ask("a")
    assert world.held == 0
    world.ask("c")
    assert world.held == 1


def test_the_text_is_that_of_the_long_way(world):
    held = world.client.get(LIST.format("u"), params={"k": 3})
    assert held.headers["content-type"] == "application/json"
    assert json.loads(held.content).keys() == world.first.keys()
    assert world.held == 1
