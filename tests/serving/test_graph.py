"""The serving graph: rules, ladder and stages as data, what each does to a list, and what the record says of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from recsys.errors import UnusableInput
from serving.adapters import FolderModels
from serving.graph import DEFAULT_FILE, Graph, read_graph
from serving.metrics import Metrics
from serving.model import ServedModel, load
from serving.recommend import Query, Ranking, recommend
from tests.serving.ports import assemble
from tests.worlds.ranked import UNRATED, write_facts, write_ranker
from tests.worlds.served import BOOKS, EVEN, FILMS, ITEMS, ODD, POPULAR, write_world

PIN = {"name": "p", "action": "pin", "item_id": "a", "rank": 1}
HIDE_BOOKS = {"name": "no books", "action": "hide", "items": {"domain": "books"}}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = write_world(tmp_path_factory.mktemp("world"), "mean")
    items = json.loads((folder / "items.json").read_text())
    items["published_year"] = [None, *range(2005, 2005 + len(ITEMS) - 1)]  # the data is of 2020
    (folder / "items.json").write_text(json.dumps(items))
    write_facts(folder)
    return folder


@pytest.fixture(scope="module")
def ranked(world, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranked") / "world"
    shutil.copytree(world, folder)
    write_ranker(folder)
    return folder


def under(world: Path, **said: object) -> ServedModel:
    return load(world, graph=Graph.model_validate(said))


def answer(model: ServedModel, **query: object) -> tuple[Ranking, list[str]]:
    (ranking,) = recommend(model, [Query(**{"k": 4, **query})])
    return ranking, [ITEMS[item] for item in ranking.items]


def test_the_file_that_comes_along_is_the_default_graph():
    assert read_graph(DEFAULT_FILE) == Graph()


@pytest.mark.parametrize(("which", "hidden"), [
    ({"domain": "books"}, BOOKS),
    ({"item_ids": [FILMS[0], "gone:1"]}, FILMS[:1]),
    ({"categories": ["Even", "Unheard of"]}, EVEN),
    ({"min_price": 100}, ITEMS[10:]),
    ({"max_price": 40}, [item for item in ITEMS[:5] if item != ITEMS[UNRATED]]),
    ({"min_price": 20, "max_price": 40}, [ITEMS[2], ITEMS[4]]),
    ({"min_age_years": 12}, ITEMS[1:5]),
    ({"max_age_years": 2}, ITEMS[14:]),
    ({"domain": "movies", "categories": ["Odd"], "max_age_years": 2}, [ITEMS[15]]),
])  # fmt: skip
@pytest.mark.parametrize(
    "query", [{}, {"history": EVEN[:1]}, {"session": [ODD[0]]}], ids=["popular", "user", "session"]
)
def test_a_hidden_item_is_on_no_rung(world, which, hidden, query):
    model = under(world, rules=[{"name": "r", "action": "hide", "items": which}])
    _, shown = answer(model, k=1000, **query)
    assert set(shown) == set(ITEMS) - set(hidden) - set(query.get("history", ())) - set(query.get("session", ()))
    assert sum(model.counts(None)[2].values()) == len(hidden)


def test_an_item_counts_under_the_first_rule_that_hides_it(world):
    also = {"name": "cheap", "action": "hide", "items": {"max_price": 60}}
    model = under(world, rules=[HIDE_BOOKS, also])
    assert model.counts(None) == (16, 9, {"no books": 4, "cheap": 3})
    assert model.counts("books") == (4, 0, {"no books": 4})


def test_a_boost_lifts_and_a_negative_one_sinks(world):
    lifted = under(world, rules=[{"name": "odd", "action": "boost", "by": 5, "items": {"categories": ["Odd"]}}])
    ranking, shown = answer(lifted, history=[EVEN[0]])
    assert shown == ODD[:4]
    assert [stage.by for stage in ranking.stages if stage.stage == "boost"] == [{"odd": 8}]
    sunk = under(world, rules=[{"name": "even", "action": "boost", "by": -5, "items": {"categories": ["Even"]}}])
    assert answer(sunk, history=[EVEN[0]])[1] == ODD[:4]
    assert answer(sunk)[1] == [item for item in POPULAR if item in ODD][:4]


def test_a_limit_holds_among_the_first_places_whatever_the_length(world):
    rule = {"name": "few even", "action": "limit", "most": 1, "within": 3, "items": {"categories": ["Even"]}}
    model = under(world, rules=[rule])
    _, short = answer(model, history=[EVEN[0]], k=3)
    _, long = answer(model, history=[EVEN[0]], k=6)
    assert short == [EVEN[1], ODD[0], ODD[1]]
    assert long == [*short, EVEN[2], EVEN[3], EVEN[4]]
    only_even = under(world, rules=[rule, {"name": "h", "action": "hide", "items": {"categories": ["Odd"]}}])
    assert answer(only_even, history=[EVEN[0]])[1] == [EVEN[1]]  # rather a short list than a broken limit


def test_a_least_exposure_brings_what_is_seldom_seen_forward(world):
    rule = {"name": "odd", "action": "expose", "least": 0.5, "within": 4, "items": {"categories": ["Odd"]}}
    plain, fair = under(world), under(world, rules=[rule])
    assert answer(plain, history=[EVEN[0]])[1] == EVEN[1:5]
    ranking, shown = answer(fair, history=[EVEN[0]], k=6)
    seen = 1 / np.log2(np.arange(2, 6))
    is_odd = np.array([item in ODD for item in shown[:4]])
    assert seen[is_odd].sum() >= 0.5 * seen.sum() - seen[0]
    assert is_odd.any()
    assert [item for item in shown if item in EVEN] == EVEN[1 : 1 + sum(item in EVEN for item in shown)]
    assert next(stage.by for stage in ranking.stages if stage.stage == "expose")["odd"] > 0
    assert answer(under(world, rules=[rule | {"least": 0.0}]), history=[EVEN[0]])[1] == EVEN[1:5]


def test_the_long_tail_is_what_is_not_used_most(world):
    rule = {"name": "tail", "action": "expose", "least": 1.0, "within": 4, "items": {"beyond_most_used": 0.5}}
    _, shown = answer(under(world, rules=[rule]), k=4)
    assert not set(shown) & set(POPULAR[: len(ITEMS) // 2])


@pytest.mark.parametrize(
    "query", [{}, {"history": [EVEN[0]]}, {"session": [EVEN[0]]}], ids=["popular", "user", "session"]
)
def test_a_pin_stands_at_its_rank_on_every_rung(world, query):
    model = under(world, rules=[
        {"name": "second", "action": "pin", "item_id": ODD[2], "rank": 2},
        {"name": "unknown", "action": "pin", "item_id": "gone:1", "rank": 1},
    ])  # fmt: skip
    ranking, shown = answer(model, **query)
    assert (shown[1], len(shown), len(set(shown))) == (ODD[2], 4, 4)
    assert ranking.scores == sorted(ranking.scores, reverse=True)
    assert [stage.by for stage in ranking.stages if stage.stage == "pin"] == [{"second": 1}]


@pytest.mark.parametrize("query", [{"history": [ODD[2]]}, {"domain": "movies"}], ids=["seen", "another domain"])
def test_a_pin_does_not_show_what_may_not_be_shown(world, query):
    model = under(world, rules=[{"name": "second", "action": "pin", "item_id": BOOKS[1], "rank": 2}])
    seen = {"history": [BOOKS[1]]} if "history" in query else query
    assert BOOKS[1] not in answer(model, k=16, **seen)[1]


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_variety_puts_what_is_not_alike_forward(world, method):
    model = under(world, diversify={"method": method, "trade_off": 0.3})
    _, shown = answer(model, history=[EVEN[0], ODD[0], EVEN[1]], k=2)
    assert {shown[0] in EVEN, shown[1] in EVEN} == {True, False}


def test_the_ladder_is_data(world):
    without = under(world, ladder=["session", "segment_popular", "popular"])
    assert answer(without, history=[EVEN[0]])[0].rung == "popular"
    assert answer(without, history=[EVEN[0]], session=[ODD[0]])[1] == ODD[1:5]
    assert answer(under(world, ladder=["popular"]), history=[EVEN[0]], domain="movies")[0].rung == "popular"


@pytest.mark.parametrize("kind", ["mean", "ials", "onnx", "scorer"])
def test_neighbours_of_the_session_answer_where_the_graph_says_so(tmp_path, kind):
    model = load(write_world(tmp_path, kind), graph=Graph(session={"by": "neighbours"}))
    ranking, shown = answer(model, session=[EVEN[0], ODD[0]])
    assert (ranking.rung, shown) == ("session", ODD[1:5])  # the later one weighs twice as much
    assert ranking.scores == pytest.approx([1.0] * 4)
    assert answer(model, session=["gone:1"])[0].rung == "popular"


def test_a_model_without_vectors_has_no_neighbours(tmp_path):
    model = load(write_world(tmp_path, "popularity"), graph=Graph(session={"by": "neighbours"}))
    assert answer(model, session=[EVEN[0]])[0].rung == "popular"


@settings(max_examples=60, deadline=None)
@given(
    short=st.integers(1, 15),
    history=st.lists(st.sampled_from(ITEMS), max_size=5, unique=True),
    method=st.sampled_from(["none", "mmr", "dpp"]),
    within=st.integers(1, 6),
)
def test_a_short_list_is_the_beginning_of_a_long_one(ranked, short, history, method, within):
    """A stored list of 50 answers a wish for 10: every stage must keep this so."""
    model = under(ranked, diversify={"method": method}, rules=[
        {"name": "limit", "action": "limit", "most": 1, "within": within, "items": {"categories": ["Even"]}},
        {"name": "seen", "action": "expose", "least": 0.4, "within": within, "items": {"categories": ["Odd"]}},
        {"name": "pin", "action": "pin", "item_id": FILMS[7], "rank": 3},
        {"name": "boost", "action": "boost", "by": 0.7, "items": {"domain": "books"}},
    ])  # fmt: skip
    longer, shorter = (answer(model, k=k, history=history)[1] for k in (16, short))
    assert shorter == longer[:short]
    assert len(set(shorter)) == len(shorter) <= short
    assert not set(shorter) & set(history)


REFUSED = {
    "no last rung": {"ladder": ["personalised"]},
    "an unknown rung": {"ladder": ["editors", "popular"]},
    "a rung twice": {"ladder": ["popular", "popular"]},
    "an unknown stage": {"stages": ["sort"]},
    "an unknown field": {"weights": 1},
    "an unknown action": {"rules": [{"name": "r", "action": "promote", "items": {"domain": "books"}}]},
    "a rule about everything": {"rules": [{"name": "r", "action": "hide", "items": {}}]},
    "a name twice": {"rules": [HIDE_BOOKS, HIDE_BOOKS]},
    "two pins at one rank": {"rules": [{"name": n, "action": "pin", "item_id": n, "rank": 1} for n in "ab"]},
    "more exposure than there is": {"rules": [HIDE_BOOKS | {"action": "expose", "least": 1.5}]},
    "a pin at rank 0": {"rules": [PIN | {"rank": 0}]},
    "a rule without its stage": {"stages": ["rank"], "rules": [PIN]},
    "a boost that is no number": {"rules": [HIDE_BOOKS | {"action": "boost", "by": float("nan")}]},
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED.values(), ids=REFUSED)
def test_what_is_no_graph_is_refused(said):
    with pytest.raises(ValueError, match="validation error"):
        Graph.model_validate(said)


def test_a_file_that_cannot_be_used_names_itself(tmp_path):
    path = tmp_path / "graph.toml"
    for content in ("ladder = [", 'ladder = ["personalised"]', None):
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
        with pytest.raises(UnusableInput, match=r"graph\.toml"):
            read_graph(path)


def test_a_changed_graph_is_taken_without_a_new_model_and_a_broken_one_is_not(world, tmp_path):
    path, metrics = tmp_path / "graph.toml", Metrics()
    path.write_text("")
    models = FolderModels(world, metrics, graph_file=path)
    models.refresh()
    first = models.current
    path.write_text('[[rules]]\nname = "no books"\naction = "hide"\nitems.domain = "books"\n')
    models.refresh()
    changed = models.current
    assert changed.retriever is first.retriever
    assert changed.plan.version != first.plan.version
    assert not set(answer(changed, k=100)[1]) & set(BOOKS)
    path.write_text('ladder = ["personalised"]')
    models.refresh()
    assert models.current is changed
    count = metrics.registry.get_sample_value
    assert count("recsys_model_reloads_total", {"outcome": "graph"}) == 1
    assert count("recsys_model_reloads_total", {"outcome": "broken_graph"}) == 1


def test_the_record_says_for_each_stage_what_came_and_what_was_held_back(ranked):
    parts = assemble(ranked)
    client = TestClient(parts.app)
    parts.models.current = under(ranked, rules=[
        HIDE_BOOKS,
        {"name": "boosted", "action": "boost", "by": 1, "items": {"item_ids": [FILMS[3]]}},
        {"name": "limited", "action": "limit", "most": 1, "within": 2, "items": {"categories": ["Odd"]}},
        {"name": "pinned", "action": "pin", "item_id": FILMS[0], "rank": 1},
    ], rank={"weight": 1.0})  # fmt: skip
    parts.users.know("u", [FILMS[1], FILMS[2]])
    shown = client.get("/v1/users/u/recommendations", params={"k": 3}).json()
    record = client.get(f"/v1/requests/{shown['request_id']}").json()
    assert record["filtered"] == {
        "catalogue": 16, "domain": 0, "unavailable": 0, "rules": {"no books": 4}, "seen": 2, "eligible": 10,
    }  # fmt: skip
    stages = {stage["stage"]: stage for stage in record["stages"]}
    assert list(stages) == ["retrieve", "rank", "boost", "limit", "pin"]
    assert [(stage["came"], stage["gave"]) for stage in stages.values()] == [(16, 10), *[(10, 10)] * 4]
    assert (stages["boost"]["by"], stages["pin"]["by"]) == ({"boosted": 1}, {"pinned": 1})
    assert record["items"][0]["item_id"] == FILMS[0]


def test_a_list_made_under_another_graph_does_not_answer(world):
    parts = assemble(world)
    client = TestClient(parts.app)
    parts.users.know("u", [EVEN[0]])
    plan = parts.models.current.plan.version
    items = [[item, float(np.float32(0.5))] for item in ODD]
    parts.users.precompute("u", None, model_version="1", user_version=1, made_with=plan, items=items)

    def ask() -> list[str]:
        shown = client.get("/v1/users/u/recommendations", params={"k": 3}).json()
        return [item["item_id"] for item in shown["items"]]

    assert ask() == ODD[:3]
    parts.models.current = under(world, rules=[HIDE_BOOKS])
    assert ask() == [item for item in EVEN if item in FILMS][:3]
