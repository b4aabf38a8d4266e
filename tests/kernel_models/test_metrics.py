"""Metrics against their definitions, against scikit-learn and ir-measures, and against answers counted by hand."""

import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, ndcg_score

from recsys import metrics


@st.composite
def judged_lists(draw):
    """Hits (B, L), the number of relevant items of each user (at least those found), and k."""
    hits = draw(hnp.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 12))))
    missed = draw(hnp.arrays(np.int64, len(hits), elements=st.integers(0, 5)))
    return hits, hits.sum(1) + missed, draw(st.integers(1, hits.shape[1]))


def by_definition(hits: list[bool], n_relevant: int, k: int) -> dict[str, float]:
    """Each metric of one user, rank by rank."""
    if n_relevant == 0:
        return dict.fromkeys(("recall", "precision", "hit_rate", "ndcg", "map", "mrr"), math.nan)
    ranks = [rank for rank, hit in enumerate(hits[:k], 1) if hit]
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, n_relevant) + 1))
    precisions = [sum(1 for other in ranks if other <= rank) / rank for rank in ranks]
    return {
        "recall": len(ranks) / n_relevant,
        "precision": len(ranks) / k,
        "hit_rate": 1.0 if ranks else 0.0,
        "ndcg": sum(1 / math.log2(rank + 1) for rank in ranks) / best,
        "map": sum(precisions) / min(k, n_relevant),
        "mrr": 1 / ranks[0] if ranks else 0.0,
    }


@settings(deadline=None)  # a busy machine is no property of the code
@given(judged_lists())
def test_every_metric_is_its_definition(lists):
    hits, n_relevant, k = lists
    expected = [by_definition(row.tolist(), int(n), k) for row, n in zip(hits, n_relevant, strict=True)]
    for name in ("recall", "precision", "hit_rate", "ndcg", "map", "mrr"):
        values = getattr(metrics, f"{name}_at_k")(hits, n_relevant, k)
        np.testing.assert_allclose(values, [user[name] for user in expected], atol=1e-12, err_msg=name)


@settings(deadline=None)  # a busy machine is no property of the code
@given(judged_lists())
def test_values_lie_between_zero_and_one_and_nobody_is_judged_without_a_relevant_item(lists):
    hits, n_relevant, k = lists
    for name in ("recall", "precision", "hit_rate", "ndcg", "map", "mrr"):
        values = getattr(metrics, f"{name}_at_k")(hits, n_relevant, k)
        assert (np.isnan(values) == (n_relevant == 0)).all()
        judged = values[n_relevant > 0]
        assert ((judged >= 0) & (judged <= 1 + 1e-12)).all()


@settings(deadline=None)  # a busy machine is no property of the code
@given(hnp.arrays(bool, st.tuples(st.integers(1, 5), st.integers(2, 12))), st.integers(1, 12))
def test_ndcg_and_average_precision_agree_with_scikit_learn_on_whole_rankings(relevant, k):
    relevant = relevant[relevant.any(1)]
    if not len(relevant):
        return
    n_relevant, scores = relevant.sum(1), np.tile(-np.arange(relevant.shape[1]), (len(relevant), 1))
    k = min(k, relevant.shape[1])
    assert metrics.ndcg_at_k(relevant, n_relevant, k).mean() == pytest.approx(ndcg_score(relevant, scores, k=k))
    whole = metrics.map_at_k(relevant, n_relevant, relevant.shape[1])
    theirs = [average_precision_score(row, score) for row, score in zip(relevant, scores, strict=True)]
    np.testing.assert_allclose(whole, theirs)


@settings(deadline=None)  # a busy machine is no property of the code
@given(judged_lists())
def test_a_hit_moved_up_never_makes_it_worse(lists):
    hits, n_relevant, k = lists
    better = np.sort(hits, 1)[:, ::-1]
    for name in ("recall", "hit_rate", "ndcg", "map", "mrr"):
        metric = getattr(metrics, f"{name}_at_k")
        worse_values, values = metric(hits, n_relevant, k), metric(better, n_relevant, k)
        assert (values[n_relevant > 0] >= worse_values[n_relevant > 0] - 1e-12).all()


def test_counted_by_hand():
    hits, n_relevant = np.array([[False, True, True, False]]), np.array([4])
    assert metrics.recall_at_k(hits, n_relevant, 4)[0] == 0.5
    assert metrics.mrr_at_k(hits, n_relevant, 4)[0] == 0.5
    assert metrics.map_at_k(hits, n_relevant, 4)[0] == pytest.approx((1 / 2 + 2 / 3) / 4)
    dcg, best = 1 / math.log2(3) + 1 / 2, 1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5)
    assert metrics.ndcg_at_k(hits, n_relevant, 4)[0] == pytest.approx(dcg / best)


def test_a_list_shorter_than_k_counts_as_if_padded():
    hits, n_relevant = np.array([[True, False]]), np.array([3])
    padded = np.array([[True, False, False, False, False]])
    for name in ("recall", "precision", "hit_rate", "ndcg", "map", "mrr"):
        metric = getattr(metrics, f"{name}_at_k")
        assert metric(hits, n_relevant, 5)[0] == metric(padded, n_relevant, 5)[0]


@pytest.mark.parametrize("k", [0, -1])
def test_a_list_of_no_length_is_refused(k):
    with pytest.raises(ValueError, match="k="):
        metrics.recall_at_k(np.ones((1, 3), bool), np.array([1]), k)


def test_lists_and_users_of_different_number_are_refused():
    with pytest.raises(ValueError, match="n_relevant"):
        metrics.recall_at_k(np.ones((2, 3), bool), np.array([1]), 3)


def test_coverage_counts_items_not_lists():
    lists = np.array([[0, 1, -1], [1, 2, -1]])
    assert metrics.coverage_at_k(lists, n_items=10, k=3) == 0.3
    assert metrics.coverage_at_k(lists, n_items=10, k=1) == 0.2
    assert metrics.coverage_at_k(np.full((2, 3), -1), n_items=10, k=3) == 0


def test_the_bootstrap_finds_a_difference_that_is_there_and_none_that_is_not():
    rng = np.random.default_rng(0)
    baseline = rng.random(500)
    better, low, high = metrics.paired_bootstrap(baseline + 0.1 + rng.normal(0, 0.05, 500), baseline, seed=1)
    assert low < better < high
    assert low > 0.08
    same, low, high = metrics.paired_bootstrap(baseline + rng.normal(0, 0.05, 500), baseline, seed=1)
    assert low < 0 < high
    assert abs(same) < 0.01


def test_the_bootstrap_leaves_out_users_that_cannot_be_judged():
    candidate, baseline = np.array([1.0, np.nan, 1.0]), np.array([0.5, 0.0, 0.5])
    assert metrics.paired_bootstrap(candidate, baseline, seed=1) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="no user"):
        metrics.paired_bootstrap(np.array([np.nan]), np.array([1.0]), seed=1)
    with pytest.raises(ValueError, match="shape"):
        metrics.paired_bootstrap(np.ones(2), np.ones(3), seed=1)


def test_the_bootstraps_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(4)
    covered = 0
    for trial in range(200):
        _, low, high = metrics.paired_bootstrap(rng.normal(0.3, 1, 80), np.zeros(80), seed=trial, draws=300)
        covered += low <= 0.3 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_the_bootstraps_seed_decides():
    candidate, baseline = np.random.default_rng(0).random((2, 50))
    first = metrics.paired_bootstrap(candidate, baseline, seed=1)
    assert first == metrics.paired_bootstrap(candidate, baseline, seed=1)
    assert first != metrics.paired_bootstrap(candidate, baseline, seed=2)


def test_the_field_s_own_tool_gives_the_same_values():
    """ir-measures, which asks trec_eval; it divides average precision by all relevant items, found within k or not."""
    rng, users, ranks, k = np.random.default_rng(3), 60, 25, 10
    hits = rng.random((users, ranks)) < 0.15
    n_relevant = hits.sum(1) + rng.integers(1, 15, users)
    run, judged = {}, {}
    for user in range(users):
        run[str(user)] = {f"i{rank:02d}": float(ranks - rank) for rank in range(ranks)}
        found = [f"i{rank:02d}" for rank in np.flatnonzero(hits[user])]
        missed = [f"m{place:02d}" for place in range(n_relevant[user] - len(found))]
        judged[str(user)] = dict.fromkeys(found + missed, 1)
    named = {"recall": "R", "precision": "P", "hit_rate": "Success", "ndcg": "nDCG", "map": "AP", "mrr": "RR"}
    measures = {name: ir_measures.parse_measure(f"{theirs}@{k}") for name, theirs in named.items()}
    theirs = {name: np.full(users, np.nan) for name in named}
    for value in ir_measures.iter_calc(measures.values(), judged, run):
        name = next(name for name, measure in measures.items() if measure == value.measure)
        theirs[name][int(value.query_id)] = value.value
    theirs["map"] *= n_relevant / np.minimum(n_relevant, k)
    for name, values in theirs.items():
        np.testing.assert_allclose(
            getattr(metrics, f"{name}_at_k")(hits, n_relevant, k), values, atol=1e-4, err_msg=name
        )
