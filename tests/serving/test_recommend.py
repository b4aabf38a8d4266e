"""The pure core: what every list must be, on each rung, for each kind of model."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.model import ServedModel, load
from serving.recommend import Query, recommend
from tests.worlds.served import BOOKS, EVEN, FILMS, ITEMS, KINDS, ODD, POPULAR, write_world

ANY_ITEMS = st.lists(st.sampled_from([*ITEMS, "movielens:unknown"]), max_size=20)
QUERIES = st.builds(
    Query,
    k=st.integers(1, 40),
    history=st.lists(st.sampled_from([*ITEMS, "movielens:unknown"]), max_size=12, unique=True),
    session=ANY_ITEMS,
    domain=st.sampled_from([None, "movies", "books", "social"]),
    personal=st.booleans(),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, ServedModel]:
    return {kind: load(write_world(tmp_path_factory.mktemp(kind), kind)) for kind in KINDS}


def names(model: ServedModel, query: Query) -> tuple[str, list[str]]:
    (ranking,) = recommend(model, [query])
    return ranking.rung, [model.retriever.catalogue.item_id[item] for item in ranking.items]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=QUERIES)
def test_every_list_keeps_its_promises(models, kind, query):
    model = models[kind]
    (ranking,) = recommend(model, [query])
    items = [ITEMS[item] for item in ranking.items]
    eligible = [
        item for item in ITEMS if item not in {*query.history, *query.session}
        and (query.domain is None or item in {"movies": FILMS, "books": BOOKS}.get(query.domain, []))
    ]  # fmt: skip
    assert len(set(items)) == len(items)
    assert set(items) <= set(eligible)
    assert len(items) == min(query.k, len(eligible))
    pairs = [(-score, item) for score, item in zip(ranking.scores, ranking.items, strict=True)]
    assert pairs == sorted(pairs)
    assert np.isfinite(ranking.scores).all()


@settings(max_examples=30, deadline=None)
@given(queries=st.lists(QUERIES, min_size=1, max_size=8))
def test_a_block_answers_as_its_queries_one_by_one(models, queries):
    together = recommend(models["mean"], queries)
    alone = [recommend(models["mean"], [query])[0] for query in queries]
    assert [(r.rung, r.items) for r in together] == [(r.rung, r.items) for r in alone]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-6)


@pytest.mark.parametrize("kind", ["ials", "mean", "onnx", "linear", "scorer"])
@pytest.mark.parametrize("liked", [EVEN, ODD], ids=["even", "odd"])
def test_even_users_get_even_items_in_order_of_id(models, kind, liked):
    rung, items = names(models[kind], Query(k=4, history=liked[:2]))
    assert (rung, items) == ("personalised", liked[2:6])


@pytest.mark.parametrize(
    ("query", "rung", "items"),
    [
        (Query(k=2), "popular", POPULAR[:2]),
        (Query(k=2, domain="books"), "segment_popular", BOOKS[::-1][:2]),
        (Query(k=2, history=["gone:1"]), "popular", POPULAR[:2]),
        (Query(k=2, session=[ODD[0]]), "session", ODD[1:3]),
        (Query(k=2, session=["gone:1"]), "popular", POPULAR[:2]),
        (Query(k=2, history=[EVEN[0]], session=[EVEN[1]]), "personalised", EVEN[2:4]),
        (Query(k=2, history=[EVEN[0]], session=[EVEN[0]]), "personalised", EVEN[1:3]),
        (Query(k=2, history=[EVEN[0]], personal=False), "popular", POPULAR[:2]),
        (Query(k=2, history=[POPULAR[0]], personal=False), "popular", POPULAR[1:3]),
        (Query(k=2, domain="social"), "segment_popular", []),
        (Query(k=1000, history=ITEMS), "personalised", []),
    ],
)
def test_the_rung_says_who_spoke(models, query, rung, items):
    assert names(models["mean"], query) == (rung, items)


def test_the_session_s_latest_item_weighs_most(models):
    evens, odds = names(models["mean"], Query(k=1, session=[ODD[0], EVEN[0]])), Query(k=1, session=[EVEN[0], ODD[0]])
    assert evens == ("session", [EVEN[1]])
    assert names(models["mean"], odds) == ("session", [ODD[1]])


def test_a_model_of_popularity_does_not_claim_to_know_the_user(models):
    rung, items = names(models["popularity"], Query(k=3, history=[POPULAR[1]]))
    assert (rung, items) == ("popular", [POPULAR[0], POPULAR[2], POPULAR[3]])
