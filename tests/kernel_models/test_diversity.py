"""MMR and DPP: at one end the scores' order, at the other variety; checked against the definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys.diversity import dpp, mmr

TWINS = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
SCORES = np.array([3.0, 2.9, 2.0])
numbers = st.floats(-5, 5, allow_nan=False, width=32)


@pytest.mark.parametrize("rerank", [mmr, dpp])
def test_full_relevance_keeps_the_order_of_the_scores(rerank):
    assert rerank(SCORES, TWINS, 3, 1.0).tolist() == [0, 1, 2]


@pytest.mark.parametrize("rerank", [mmr, dpp])
def test_variety_puts_the_twin_last(rerank):
    assert rerank(SCORES, TWINS, 3, 0.3).tolist() == [0, 2, 1]
    assert rerank(SCORES, TWINS, 2, 0.3).tolist() == [0, 2]


@pytest.mark.parametrize("rerank", [mmr, dpp])
@given(arrays(float, (6,), elements=numbers), arrays(float, (6, 3), elements=numbers), st.floats(0, 1), st.data())
def test_each_candidate_once_and_the_best_first(rerank, scores, vectors, trade_off, data):
    k = data.draw(st.integers(1, 8))
    chosen = rerank(scores, vectors, k, trade_off)
    assert len(set(chosen.tolist())) == len(chosen) == min(k, 6)
    if trade_off > 0.01:
        assert scores[chosen[0]] >= scores.max() - 1e-9 or rerank is dpp


@given(arrays(float, (5,), elements=numbers), arrays(float, (5, 3), elements=numbers), st.floats(0.1, 0.9))
def test_mmr_is_its_definition(scores, vectors, trade_off):
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    span = scores.max() - scores.min()
    relevance = (scores - scores.min()) / span if span else np.zeros(5)
    chosen = mmr(scores, vectors, 5, trade_off).tolist()
    assert len(chosen) == 5
    for place in range(1, 5):
        before, rest = chosen[:place], [one for one in range(5) if one not in chosen[:place]]
        gain = {
            one: trade_off * relevance[one] - (1 - trade_off) * max(unit[one] @ unit[other] for other in before)
            for one in rest
        }
        assert gain[chosen[place]] >= max(gain.values()) - 1e-9


def test_dpp_takes_the_largest_determinant():
    rng = np.random.default_rng(2)
    vectors, scores = rng.normal(size=(6, 4)), rng.normal(size=6)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = (scores - scores.min()) / (scores.max() - scores.min())
    kernel = np.exp(0.5 * (relevance[:, None] + relevance[None])) * (unit @ unit.T)  # trade_off .5: a = 1/2
    first, second = dpp(scores, vectors, 2, 0.5)
    assert first == np.argmax(np.diag(kernel))
    determinants = [np.linalg.det(kernel[np.ix_([first, i], [first, i])]) if i != first else -1 for i in range(6)]
    assert second == np.argmax(determinants)


def test_what_may_not_be_shown_is_never_chosen():
    assert mmr(np.array([1.0, -np.inf, 0.5]), TWINS, 5, 0.5).tolist() == [0, 2]
    assert dpp(np.array([1.0, -np.inf, 0.5]), TWINS, 5, 0.5).tolist() == [0, 2]
    assert mmr(np.full(3, -np.inf), TWINS, 5, 0.5).tolist() == []


@pytest.mark.parametrize(
    ("scores", "vectors", "k", "trade_off"),
    [
        (SCORES[:2], TWINS, 1, 0.5),
        (SCORES, TWINS, 0, 0.5),
        (SCORES, TWINS, 1, 1.5),
        (np.array([1, np.nan, 2]), TWINS, 1, 0.5),
        (SCORES, np.full((3, 2), np.inf), 1, 0.5),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, vectors, k, trade_off):
    with pytest.raises(ValueError, match=r"must lie in|with scores|is NaN"):
        mmr(scores, vectors, k, trade_off)
