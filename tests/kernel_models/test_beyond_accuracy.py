"""Measures beyond accuracy: against values found by hand, and against a judge that goes item by item."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import beyond_accuracy as beyond

ITEMS, RANKS = 7, 4


@st.composite
def lists(draw) -> np.ndarray:
    """Some users' lists of up to RANKS of ITEMS items, none twice, padded with -1. (B, RANKS)"""
    users = draw(st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=RANKS, unique=True), min_size=1, max_size=5))
    return np.array([row + [-1] * (RANKS - len(row)) for row in users])


def test_gini_by_hand():
    """Four items shown 0, 0, 1 and 3 times: Σ |x - y| over pairs is 20, and 2 n² mean 32."""
    recommended = np.array([[3, 2], [3, -1], [3, -1]])
    assert beyond.gini_at_k(recommended, 4, 2) == pytest.approx(20 / 32)
    assert beyond.gini_at_k(np.array([[0, 1], [2, 3]]), 4, 2) == pytest.approx(0)
    assert beyond.gini_at_k(np.array([[0], [0]]), 5, 1) == pytest.approx(4 / 5)
    assert math.isnan(beyond.gini_at_k(np.array([[-1]]), 4, 1))


def test_novelty_by_hand():
    """Used by half of eight users: one bit; by one of eight: three; by nobody: as by one."""
    values = beyond.novelty_at_k(np.array([[0, 1], [2, -1], [-1, -1]]), np.array([4, 1, 0]), 8, 2)
    np.testing.assert_allclose(values, [2, 3, np.nan])


def test_diversity_by_hand():
    vectors = np.array([[1.0, 0], [2, 0], [0, 3]])
    values = beyond.diversity_at_k(np.array([[0, 1, -1], [0, 2, -1], [0, 1, 2], [2, -1, -1]]), vectors, 3)
    np.testing.assert_allclose(values, [0, 1, 2 / 3, np.nan], atol=1e-12)


def test_serendipity_by_hand():
    """Relevant at both ranks, but everybody would have been shown the first item."""
    recommended, hits = np.array([[0, 5], [0, 5], [0, 5]]), np.array([[1, 1], [1, 0], [0, 0]])
    values = beyond.serendipity_at_k(recommended, hits, np.array([2, 1, 0]), np.array([[3, 0]] * 3), 2)
    np.testing.assert_allclose(values, [0.5, 0, np.nan])


def test_miscalibration_by_hand():
    """70 % romance and 30 % action used: a list of the same shares is calibrated, one of romance alone is not."""
    categories = np.array([[1.0, 0]] * 7 + [[0, 1]] * 3 + [[0, 0]])
    history = np.arange(10)
    fitting, narrow = np.arange(10)[None], np.pad(np.arange(7), (0, 3), constant_values=-1)[None]
    assert beyond.miscalibration_at_k(fitting, [history], categories, 10)[0] == pytest.approx(0)
    expected = 0.7 * math.log(0.7 / (0.99 + 0.007)) + 0.3 * math.log(0.3 / 0.003)
    assert beyond.miscalibration_at_k(narrow, [history], categories, 10)[0] == pytest.approx(expected)
    assert np.isnan(beyond.miscalibration_at_k(np.array([[10]]), [history], categories, 1)).all()


@given(lists(), st.integers(1, RANKS), st.integers(0, 10_000))
def test_a_judge_that_goes_item_by_item_agrees(recommended, k, seed):
    rng = np.random.default_rng(seed)
    counts, vectors = rng.integers(0, 9, ITEMS), rng.normal(size=(ITEMS, 3))
    categories = rng.dirichlet(np.ones(3), ITEMS)
    expected, hits = rng.permutation(ITEMS)[:RANKS], rng.random(recommended.shape) < 0.5
    histories = [rng.integers(0, ITEMS, 3) for _ in recommended]
    shown = [[item for item in row[:k] if item >= 0] for row in recommended.tolist()]

    novelty = beyond.novelty_at_k(recommended, counts, 9, k)
    diversity = beyond.diversity_at_k(recommended, vectors, k)
    surprise = beyond.serendipity_at_k(recommended, hits, np.ones(len(shown)), np.tile(expected, (len(shown), 1)), k)
    off = beyond.miscalibration_at_k(recommended, histories, categories, k)
    for user, row in enumerate(shown):
        bits = [-math.log2(max(counts[item], 1) / 9) for item in row]
        np.testing.assert_allclose(novelty[user], np.mean(bits) if row else np.nan)
        apart = [
            1 - vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b])
            for a, b in combinations(row, 2)
        ]
        np.testing.assert_allclose(diversity[user], np.mean(apart) if apart else np.nan, atol=1e-9)
        good = [rank for rank, item in enumerate(row) if hits[user, rank] and item not in expected[:k]]
        assert surprise[user] == pytest.approx(len(good) / k)
        p = categories[histories[user]].mean(0)
        if row:
            q = 0.99 * categories[row].mean(0) + 0.01 * p
            assert off[user] == pytest.approx((p * np.log(p / q)).sum())
        else:
            assert np.isnan(off[user])
    often = [sum(item in row for row in shown) for item in range(ITEMS)]
    apart = sum(abs(a - b) for a in often for b in often)
    total = sum(often)
    gini = beyond.gini_at_k(recommended, ITEMS, k)
    assert math.isnan(gini) if not total else gini == pytest.approx(apart / (2 * ITEMS * total))


def test_lists_of_no_length_are_refused():
    with pytest.raises(ValueError, match="k=0"):
        beyond.gini_at_k(np.zeros((1, 1), int), 3, 0)
