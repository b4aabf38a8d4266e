"""Ranking metrics over recommendation lists, one value a user, so that differences can be tested in pairs.

Shapes: `hits` is bool (n_users, n_ranks), True where the item at that rank is relevant; `n_relevant` is int (n_users,),
the number of relevant items of each user, found or not. Users without a relevant item get NaN: they cannot be judged.
Definitions as in Järvelin and Kekäläinen 2002 (NDCG with binary gains) and TREC's average precision cut at k.
"""

import numpy as np


def _checked(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    hits, n_relevant = np.asarray(hits, bool), np.asarray(n_relevant)
    if k < 1 or hits.ndim != 2 or len(hits) != len(n_relevant):
        raise ValueError(f"k={k} with hits {hits.shape} and n_relevant {n_relevant.shape}")
    return hits[:, :k], np.where(n_relevant > 0, n_relevant, np.nan)


def recall_at_k(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Return the share of each user's relevant items that is among the first k. (n_users,)"""
    hits, n_relevant = _checked(hits, n_relevant, k)
    return hits.sum(1) / n_relevant


def precision_at_k(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Return the share of the first k ranks that is relevant; a list shorter than k counts as if padded. (n_users,)"""
    hits, n_relevant = _checked(hits, n_relevant, k)
    return np.where(np.isnan(n_relevant), np.nan, hits.sum(1) / k)


def hit_rate_at_k(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Return 1 where any of the first k is relevant, else 0. (n_users,)"""
    hits, n_relevant = _checked(hits, n_relevant, k)
    return np.where(np.isnan(n_relevant), np.nan, hits.any(1))


def ndcg_at_k(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Return the discounted cumulative gain over that of the best possible list of k. (n_users,)"""
    hits, n_relevant = _checked(hits, n_relevant, k)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gain = hits @ discounts[: hits.shape[1]]
    best = np.append(0, np.cumsum(discounts))[np.minimum(np.nan_to_num(n_relevant), k).astype(int)]
    return np.where(np.isnan(n_relevant), np.nan, gain / np.where(best > 0, best, np.nan))


def map_at_k(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Return the mean of the precisions at the relevant ranks, over min(k, relevant items). (n_users,)"""
    hits, n_relevant = _checked(hits, n_relevant, k)
    ranks = np.arange(1, hits.shape[1] + 1)
    precisions = np.cumsum(hits, 1) / ranks
    return (precisions * hits).sum(1) / np.minimum(n_relevant, k)


def mrr_at_k(hits: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Return one over the rank of the first relevant item among the first k, 0 where there is none. (n_users,)"""
    hits, n_relevant = _checked(hits, n_relevant, k)
    first = np.where(hits.any(1), 1 / (hits.argmax(1) + 1), 0.0)
    return np.where(np.isnan(n_relevant), np.nan, first)


def coverage_at_k(recommended: np.ndarray, n_items: int, k: int) -> float:
    """Return the share of the catalogue that is in anybody's first k. `recommended`: item indices, -1 pads."""
    shown = np.unique(recommended[:, :k])
    return float((shown >= 0).sum() / n_items)


def paired_bootstrap(
    candidate: np.ndarray, baseline: np.ndarray, seed: int, draws: int = 2000, level: float = 0.95
) -> tuple[float, float, float]:
    """Return the mean per-user difference and its percentile bootstrap interval (difference, low, high).

    Users are drawn with replacement; users that either side cannot judge (NaN) are left out.

    Raises:
        ValueError: the arrays differ in shape or share no judged user.
    """
    if candidate.shape != baseline.shape:
        raise ValueError(f"paired values differ in shape: {candidate.shape} and {baseline.shape}")
    difference = (candidate - baseline)[~np.isnan(candidate - baseline)]
    if not len(difference):
        raise ValueError("no user has a value on both sides")
    rng = np.random.default_rng(seed)
    means = np.array([difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(draws)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(difference.mean()), float(low), float(high)
