"""How far apart two distributions are: sizes of an effect, over counts, for many replays at once.

Shapes: R replays, B bins, G groups of units, D embedding size. Shares are rows that sum to one.
"""

import numpy as np

FINE_BINS = 256
"""Bins for the Wasserstein distance of a number with more different values; each stands for the mean of its values."""
DECILES = 10
NO_SHARE = 1e-4
"""Stands for the share of an empty bin, whose logarithm would be infinite (Evidently takes the same)."""
LEAST_UNIT = 1e-3
"""Unit of the distance where the reference is constant and has no standard deviation of its own."""


def population_stability(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Return Σ (c - r) · ln(c / r) over the bins (Siddiqi 2006): 0 for equals. Shares (…, B) → (…)."""
    r, c = (np.where(shares <= 0, NO_SHARE, shares) for shares in (reference, current))
    return ((c - r) * np.log(c / r)).sum(-1)


def decile_edges(reference: np.ndarray) -> np.ndarray:
    """Return the inner edges of the reference's deciles, those that fall together once. (≤ 9,)

    A constant has one edge at itself, and two bins: below, and from it on; see `bin_of`.
    """
    return np.unique(np.quantile(reference, np.linspace(0, 1, DECILES + 1)[1:-1]))


def bin_of(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the bin of each value: an edge belongs to the bin above it, and a value equal to the last edge has its own
    where many values share it, so that moving away from a constant to either side shows. (N,)"""
    return np.searchsorted(edges, values, "right") + np.searchsorted(edges, values, "left")


def wasserstein(reference: np.ndarray, current: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the area between two cumulative distributions over these ascending values. Shares (…, B) → (…)."""
    apart = np.abs(np.cumsum(reference - current, -1))[..., :-1]
    return apart @ np.diff(values)


def support(pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values that stand for a number's distribution, ascending, and which of them each pooled value is: the
    different values themselves, or means of quantile bins where there are more than `FINE_BINS`. (B,), (N,)"""
    values, index = np.unique(pooled, return_inverse=True)
    if len(values) <= FINE_BINS:
        return values, index
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, FINE_BINS + 1)[1:-1]))
    index = np.searchsorted(edges, pooled, "right")
    counts = np.bincount(index, minlength=len(edges) + 1)
    kept = counts > 0
    means = np.bincount(index, pooled, len(edges) + 1)[kept] / counts[kept]
    return means, (np.cumsum(kept) - 1)[index]


def mean_shift(reference: np.ndarray, current: np.ndarray, spread: float) -> np.ndarray:
    """Return how far the mean embedding has moved, in units of the embeddings' spread about their mean.

    Args:
        reference: means. (…, D)
        current: means. (…, D)
        spread: root of the summed variances of the reference's dimensions.
    """
    return np.linalg.norm(reference - current, axis=-1) / max(spread, LEAST_UNIT)
