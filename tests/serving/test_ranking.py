"""The ranking stage: the registered ranker over the candidates, its features, what the record keeps of them."""

import numpy as np
import pytest
from pydantic_core import to_json
from starlette.testclient import TestClient

from recsys.artifacts import ITEM_FACTS_FILE, RANKER_FILES
from recsys.user_state import UserState
from serving.adapters import FolderModels
from serving.explanation import RequestRecord
from serving.graph import Graph
from serving.left_behind import Decision, Facts, facts, record
from serving.made import MadeAnswer
from serving.metrics import Metrics
from serving.model import load
from serving.recommend import Query, recommend
from tests.serving.ports import INSTANT, assemble
from tests.worlds.ranked import UNRATED, write_facts, write_ranker
from tests.worlds.served import EVEN, ITEMS, ODD, write_world

BY_RANKER = Graph(rank={"weight": 1.0})


@pytest.fixture
def folder(tmp_path):
    write_world(tmp_path)
    write_ranker(tmp_path)
    return tmp_path


def test_the_ranker_orders_the_candidates_of_retrieval(folder):
    (ranking,) = recommend(load(folder, graph=BY_RANKER), [Query(k=5, history=[EVEN[0]])])
    assert [ITEMS[item] for item in ranking.items] == ITEMS[::-1][:5]  # by its place, whatever retrieval says
    assert np.diff(ranking.scores).max() < 0
    few = Graph(rank={"weight": 1.0}, retrieve={"candidates": 3})
    (ranking,) = recommend(load(folder, graph=few), [Query(k=2, history=[EVEN[0]])])
    assert [ITEMS[item] for item in ranking.items] == [EVEN[3], EVEN[2]]  # of the three that retrieval likes best


@pytest.mark.parametrize(("weight", "first"), [(0.0, EVEN[1]), (0.1, EVEN[7]), (1.0, ODD[7])])
def test_the_weight_is_the_ranker_s_share(folder, weight, first):
    (ranking,) = recommend(load(folder, graph=Graph(rank={"weight": weight})), [Query(k=1, history=[EVEN[0]])])
    assert ITEMS[ranking.items[0]] == first


def test_a_graph_that_gives_logits_ranks_like_one_that_gives_probabilities_alone(folder):
    query = Query(k=5, history=[EVEN[0]], features={"user_mean_rating": 4.0})
    (before,) = recommend(load(folder, graph=BY_RANKER), [query])
    write_ranker(folder, logits=True)
    (after,) = recommend(load(folder, graph=BY_RANKER), [query])
    assert after.items == before.items
    assert after.ranked == pytest.approx(before.ranked, abs=1e-4)


def test_what_is_unknown_comes_through_the_line_to_the_carrier(folder):
    pinned = {"action": "pin", "name": "first", "item_id": ODD[0], "rank": 1}
    model = load(folder, graph=Graph(rank={"weight": 1.0}, retrieve={"candidates": 5}, rules=[pinned]))
    query = Query(k=6, history=[EVEN[0]])  # nothing is known of the user but an item
    (ranking,) = recommend(model, [query])
    answer = MadeAnswer("r", "u", "champion", model, ranking.rung, ranking.items, ranking.scores)
    told = facts(Decision(answer, query, "model", 1.0, INSTANT, ranking))
    line = to_json(told)
    kept = RequestRecord.model_validate_json(to_json(record(Facts.read(line))))
    assert kept == RequestRecord.model_validate(record(told))
    assert b"\n" not in line
    assert (kept.items[0].item_id, kept.items[0].retrieval_score) == (ODD[0], None)
    assert kept.ranker is not None
    assert kept.ranker.user_features == {"user_mean_rating": None}


def test_popular_lists_are_not_ranked(folder):
    model = load(folder, graph=BY_RANKER)
    (ranking,) = recommend(model, [Query(k=3)])
    assert (ranking.rung, ranking.ranked, ranking.stages) == ("popular", [], ())


def test_the_record_keeps_what_the_ranker_read_and_says_what_weighed_most(folder):
    parts = assemble(folder)
    client = TestClient(parts.app)
    parts.models.current = load(folder, graph=BY_RANKER)
    parts.users.states["u"] = UserState([EVEN[0]], {"user_mean_rating": 4.0, "user_interactions_30d": 1.0}, 1)
    shown = client.get("/v1/users/u/recommendations", params={"k": 15}).json()
    record = client.get(f"/v1/requests/{shown['request_id']}").json()
    assert record["ranker"] == {"model": "by_place", "version": "5", "user_features": {"user_mean_rating": 4.0}}
    first, last = record["items"][0], record["items"][-2]
    assert first["features"] == {"item_mean_rating": 15.0}
    assert first["ranker_score"] == pytest.approx((15 + 4) / 8, rel=1e-4)
    assert [top["feature"] for top in first["top_features"]] == ["item_mean_rating", "user_mean_rating"]
    assert [top["contribution"] for top in first["top_features"]] == pytest.approx([15 / 8, 4 / 8], rel=1e-3)
    unrated = next(item for item in record["items"] if item["item_id"] == ITEMS[UNRATED])
    assert (unrated["features"], [top["feature"] for top in unrated["top_features"]]) == (
        {"item_mean_rating": None}, ["user_mean_rating"],
    )  # fmt: skip
    drivers = {item["item_id"]: item["drivers"] for item in record["items"]}
    assert drivers[EVEN[1]] == [{"item_id": EVEN[0], "contribution": 1.0}]  # of retrieval's score, not of the blend
    assert drivers[ODD[0]] == []
    assert last["retrieval_score"] is not None


def test_another_ranker_does_not_say_what_weighed_in_this_one(folder):
    parts = assemble(folder)
    client = TestClient(parts.app)
    parts.users.know("u", [EVEN[0]])
    shown = client.get("/v1/users/u/recommendations", params={"k": 2}).json()
    write_ranker(folder, version="6")
    parts.models.current = load(folder)
    record = client.get(f"/v1/requests/{shown['request_id']}").json()
    assert (record["ranker"]["version"], record["items"][0]["top_features"]) == ("5", None)


def test_ready_names_the_ranker(folder):
    parts = assemble(folder)
    client = TestClient(parts.app)
    assert client.get("/readyz").json()["ranker_version"] == "5"
    parts.models.current = parts.models.current.under(Graph(stages=["pin"]))
    assert client.get("/readyz").json()["ranker_version"] is None


def cut_graph(folder):
    (folder / RANKER_FILES[0]).write_bytes(b"no graph")


UNUSABLE = {
    "no facts": lambda folder: (folder / ITEM_FACTS_FILE).unlink(),
    "facts without the feature": lambda folder: np.savez(folder / ITEM_FACTS_FILE, price=np.ones(len(ITEMS))),
    "no graph": lambda folder: (folder / RANKER_FILES[0]).unlink(),
    "a graph that is none": cut_graph,
    "a signature that is none": lambda folder: (folder / RANKER_FILES[1]).write_text("[]"),
}


@pytest.mark.parametrize("harm", UNUSABLE.values(), ids=UNUSABLE)
def test_a_ranker_that_cannot_be_used_costs_the_stage_and_is_counted(folder, harm):
    harm(folder)
    metrics = Metrics()
    models = FolderModels(folder, metrics)
    models.refresh()
    assert models.current.plan.ranker is None
    (ranking,) = recommend(models.current, [Query(k=1, history=[EVEN[0]])])
    assert ITEMS[ranking.items[0]] == EVEN[1]
    labels = {"outcome": "without_its_ranker"}
    assert metrics.registry.get_sample_value("recsys_model_reloads_total", labels) == 1


def test_a_ranker_that_comes_later_is_taken(tmp_path):
    models = FolderModels(write_world(tmp_path), Metrics())
    models.refresh()
    assert models.current.plan.ranker is None
    write_facts(tmp_path)
    write_ranker(tmp_path)
    models.refresh()
    assert models.current.plan.ranker.version == "5"
