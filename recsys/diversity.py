"""Re-ranking for variety: a list whose items are good and not all alike. Pure: arrays in, positions out.

Both take candidates in order of score with a vector each and give positions into them, in the order of the new list.
Cosines say how alike two items are; an item with the zero vector is like no other. Shapes: N candidates, D dimensions.
"""

import numpy as np


def mmr(scores: np.ndarray, vectors: np.ndarray, k: int, trade_off: float) -> np.ndarray:
    """Return the positions of k candidates, chosen one by one by maximal marginal relevance. int64 (min(k, N),)

    Carbonell and Goldstein 1998, "The Use of MMR, Diversity-Based Reranking": the next is the one with the largest

        trade_off · relevance - (1 - trade_off) · max cosine to those chosen before,

    where relevance is the score moved to [0, 1] over the candidates, so that the trade-off means the same for every
    model. 1 keeps the order of the scores, 0 looks at nothing but variety behind the first. Ties go to the earlier one.
    A score of -inf stands behind all finite ones and is never chosen.

    Args:
        scores: (N,), higher is better.
        vectors: (N, D) of the candidates.
        trade_off: in [0, 1].

    Raises:
        ValueError: the shapes differ, k is below one, the trade-off lies outside [0, 1], or something is NaN.
    """
    relevance, unit = _checked(scores, vectors, k)
    if not 0 <= trade_off <= 1:
        raise ValueError(f"trade_off must lie in [0, 1], got {trade_off}")
    left = relevance > -np.inf
    closest = np.zeros(len(relevance))  # cosine to the nearest of those chosen
    chosen = np.empty(min(k, int(left.sum())), np.int64)
    for place in range(len(chosen)):
        gain = trade_off * relevance - (1 - trade_off) * closest if place else relevance
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        chosen[place], left[best] = best, False
        alike = unit @ unit[best]  # (N,)
        closest = np.maximum(closest, alike) if place else alike
    return chosen


def dpp(scores: np.ndarray, vectors: np.ndarray, k: int, trade_off: float) -> np.ndarray:
    """Return the positions of k candidates whose determinantal point process is largest, greedily. int64 (min(k, N),)

    Chen, Zhang, Zhou 2018, "Fast Greedy MAP Inference for Determinantal Point Process": the kernel is
    q_i · cosine_ij · q_j with q = exp(a · relevance), a = trade_off / (2 (1 - trade_off)), so 1 would be the scores'
    order and 0 variety alone. Each step adds the candidate that multiplies the determinant most; where the vectors span
    no more dimensions, the rest follows by score. Arguments and errors as for `mmr`.
    """
    relevance, unit = _checked(scores, vectors, k)
    if not 0 <= trade_off <= 1:
        raise ValueError(f"trade_off must lie in [0, 1], got {trade_off}")
    if trade_off == 1:
        return mmr(scores, vectors, k, 1.0)
    left = relevance > -np.inf
    size = min(k, int(left.sum()))
    quality = trade_off / (1 - trade_off) * np.where(left, relevance, 0.0)  # log q², (N,)
    rest = np.ones(len(relevance))  # squared length of what the chosen ones do not span, (N,)
    rows = np.zeros((size, len(relevance)))  # Cholesky factor of the cosines
    chosen = np.empty(size, np.int64)
    for place in range(size):
        spanned = rest < 1e-9
        gain = np.where(spanned, -1e9 + relevance, quality + np.log(np.maximum(rest, 1e-9)))
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        chosen[place], left[best] = best, False
        if spanned[best]:
            continue
        cosine = unit @ unit[best]
        cosine[best] = 1.0
        row = (cosine - rows[:place, best] @ rows[:place]) / np.sqrt(rest[best])
        rows[place], rest = row, np.maximum(rest - row**2, 0.0)
    return chosen


def _checked(scores: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return relevance in [0, 1] (-inf where the score is) and vectors of length one."""
    scores, vectors = np.asarray(scores, float), np.asarray(vectors, float)
    if k < 1 or scores.ndim != 1 or vectors.ndim != 2 or len(scores) != len(vectors):
        raise ValueError(f"k={k} with scores {scores.shape} and vectors {vectors.shape}")
    if np.isnan(scores).any() or (scores == np.inf).any() or not np.isfinite(vectors).all():
        raise ValueError("a score is NaN or infinite, or a vector holds a number that is none")
    finite = scores > -np.inf
    low, high = (scores[finite].min(), scores[finite].max()) if finite.any() else (0.0, 1.0)
    relevance = (scores - low) / (high - low) if high > low else np.where(finite, 0.0, -np.inf)
    return relevance, vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
