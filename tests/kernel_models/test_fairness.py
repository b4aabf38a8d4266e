"""Exposure and equal quality, by hand and by what must hold for any list."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import fairness

GROUPS = np.array([0, 0, 1, 1])


def test_a_rank_is_seen_less_than_the_one_before():
    seen = fairness.exposure(5)
    assert seen[0] == 1
    assert (np.diff(seen) < 0).all()


def test_shares_of_exposure_by_hand():
    second = 1 / np.log2(3)
    shares = fairness.exposure_shares(np.array([[0, 2, -1], [3, -1, -1]]), GROUPS, 2)
    np.testing.assert_allclose(shares, np.array([1, 1 + second]) / (2 + second))
    assert fairness.exposure_shares(np.full((2, 3), -1), GROUPS, 2).tolist() == [0, 0]


def test_who_is_seen_as_used_has_a_ratio_of_one():
    listed = np.array([[0], [0], [0], [2]])
    np.testing.assert_allclose(fairness.exposure_ratios(listed, GROUPS, np.array([2.0, 1.0, 1.0, 0.0])), [1, 1])
    ratios = fairness.exposure_ratios(listed, GROUPS, np.array([1.0, 0.0, 3.0, 0.0]))
    np.testing.assert_allclose(ratios, [3, 1 / 3])
    assert np.isnan(fairness.exposure_ratios(listed, GROUPS, np.array([1.0, 1.0, 0.0, 0.0]))[1])


CANDIDATES = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=30)


@given(CANDIDATES, st.integers(1, 30), st.floats(0, 1))
def test_the_protected_are_behind_their_share_by_less_than_the_first_rank_is_seen(candidates, k, least):
    scores, protected = np.array([c[0] for c in candidates], float), np.array([c[1] for c in candidates])
    chosen = fairness.with_least_exposure(scores, protected, k, least)
    assert len(set(chosen.tolist())) == len(chosen) == min(k, len(scores))
    seen, given_so_far = fairness.exposure(k), 0.0
    for rank, position in enumerate(chosen):
        given_so_far += seen[rank] * protected[position]
        left = protected.sum() - protected[chosen[: rank + 1]].sum()
        if left:
            assert given_so_far > least * seen[: rank + 1].sum() - seen[0] - 1e-9
    for kind in (True, False):  # within a kind the order is that of the scores
        own = chosen[protected[chosen] == kind]
        assert (np.diff(scores[own]) <= 0).all()


@given(CANDIDATES, st.integers(1, 30))
def test_a_share_of_nothing_changes_nothing(candidates, k):
    scores, protected = np.array([c[0] for c in candidates], float), np.array([c[1] for c in candidates])
    by_score = np.argsort(-scores, kind="stable")[:k]
    np.testing.assert_array_equal(fairness.with_least_exposure(scores, protected, k, 0.0), by_score)


def test_what_may_not_be_shown_is_not_even_if_protected():
    scores = np.array([3.0, -np.inf, 1.0])
    assert fairness.with_least_exposure(scores, np.array([False, True, False]), 3, 1.0).tolist() == [0, 2]


@pytest.mark.parametrize(
    "given_values",
    [
        (np.ones(3), np.ones(2, bool), 1, 0.5),
        (np.ones(2), np.ones(2, bool), 0, 0.5),
        (np.ones(2), np.ones(2, bool), 1, 1.5),
        (np.array([np.nan, 1.0]), np.ones(2, bool), 1, 0.5),
    ],
)
def test_what_cannot_be_meant_is_refused(given_values):
    with pytest.raises(ValueError, match=r"k=|least"):
        fairness.with_least_exposure(*given_values)


def test_quality_of_groups_and_the_worst_over_the_best():
    values = np.array([0.2] * 30 + [0.4] * 30 + [0.9] * 5 + [np.nan] * 40)
    groups = np.repeat([0, 1, 2, 1], [30, 30, 5, 40])
    assert fairness.quality_by_group(values, groups) == pytest.approx({0: 0.2, 1: 0.4})
    assert fairness.worst_over_best(values, groups) == pytest.approx(0.5)
    assert np.isnan(fairness.worst_over_best(values[:30], groups[:30]))
