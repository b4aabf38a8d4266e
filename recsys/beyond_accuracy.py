"""What lists are like beyond being right: how evenly the catalogue is shown, how new, varied, surprising and fitting.

`recommended` holds item indices, int (B, K), best first, -1 where a list is shorter; nothing but the first k counts. A
user whose list is empty, or who cannot be judged, gets NaN.
"""

import numpy as np


def _first(recommended: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first k, pads at 0, and where there is an item. Both (B, k)"""
    if k < 1 or np.ndim(recommended) != 2:
        raise ValueError(f"k={k} with lists of shape {np.shape(recommended)}")
    first = np.asarray(recommended)[:, :k]
    return np.maximum(first, 0), first >= 0


def _mean(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return each row's mean over the places inside, NaN where there is none. (B,)"""
    count = inside.sum(1)
    return np.where(count > 0, (values * inside).sum(1) / np.maximum(count, 1), np.nan)


def gini_at_k(recommended: np.ndarray, n_items: int, k: int) -> float:
    """Return the Gini index of how often each item of the catalogue is shown: 0 where all are shown alike, (I - 1) / I
    where one takes all. NaN where nothing is shown.

    Fleder and Hosanagar 2009, "Blockbuster Culture's Next Rise or Fall".
    """
    items, inside = _first(recommended, k)
    shown = np.sort(np.bincount(items[inside], minlength=n_items)).astype(float)  # (I,), ascending
    if not shown.sum():
        return float("nan")
    rank = np.arange(1, n_items + 1)
    return float(((2 * rank - n_items - 1) * shown).sum() / (n_items * shown.sum()))


def novelty_at_k(recommended: np.ndarray, counts: np.ndarray, n_users: int, k: int) -> np.ndarray:
    """Return the mean self-information of the items, -log2 of the share of users who have used them, in bits. (B,)

    Zhou, Kuscsik, Liu, Medo, Wakeling, Zhang 2010, "Solving the apparent diversity-accuracy dilemma of recommender
    systems". An item that nobody has used counts as one that one user has. `counts`: users of each item, (I,).
    """
    items, inside = _first(recommended, k)
    return _mean(-np.log2(np.clip(np.asarray(counts)[items], 1, None) / n_users), inside)


def diversity_at_k(recommended: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    """Return the mean of 1 - cosine over all pairs of a list's items, NaN for lists of less than two. (B,)

    Intra-list diversity: Ziegler, McNee, Konstan, Lausen 2005, "Improving Recommendation Lists Through Topic
    Diversification". `vectors`: (I, D); an item with the zero vector is like no other.
    """
    items, inside = _first(recommended, k)
    vectors = np.asarray(vectors, float)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    listed = unit[items] * inside[..., None]  # (B, k, D)
    lengths = (listed**2).sum((1, 2))  # as many as there are vectors of length one
    alike = (listed.sum(1) ** 2).sum(1) - lengths  # both orders of each pair
    pairs = inside.sum(1) * (inside.sum(1) - 1)
    return np.where(pairs > 0, 1 - alike / np.maximum(pairs, 1), np.nan)


def serendipity_at_k(
    recommended: np.ndarray, hits: np.ndarray, n_relevant: np.ndarray, expected: np.ndarray, k: int
) -> np.ndarray:
    """Return the share of the first k that is relevant and that the obvious recommender would not have shown. (B,)

    Ge, Delgado-Battenfeld, Jannach 2010, "Beyond Accuracy: Evaluating Recommender Systems by Coverage and Serendipity".
    `expected`: the lists of the obvious recommender, such as popularity, for the same users, (B, K').
    """
    _, inside = _first(recommended, k)
    first, obvious = np.asarray(recommended)[:, :k], np.asarray(expected)[:, :k]
    is_obvious = (first[:, :, None] == obvious[:, None, :]).any(2)  # (B, k)
    surprising = (np.asarray(hits, bool)[:, :k] & inside & ~is_obvious).sum(1) / k
    return np.where(np.asarray(n_relevant) > 0, surprising, np.nan)


def miscalibration_at_k(
    recommended: np.ndarray, histories: list[np.ndarray], categories: np.ndarray, k: int, smoothing: float = 0.01
) -> np.ndarray:
    """Return the Kullback-Leibler divergence of each list's categories from those of the user's history: 0 is perfectly
    calibrated. In nats. (B,)

    Steck 2018, "Calibrated Recommendations": KL(p, q~) with q~ = (1 - a) q + a p, a = `smoothing`. `categories`: each
    item's shares of its categories, (I, C); items without one say nothing, and who has only such items gets NaN.
    """
    items, inside = _first(recommended, k)
    categories = np.asarray(categories, float)
    shown = (categories[items] * inside[..., None]).sum(1)  # (B, C)
    used = np.stack([categories[np.asarray(history, int)].sum(0) for history in histories])  # (B, C)
    is_known = (shown.sum(1) > 0) & (used.sum(1) > 0)
    p = used / np.where(is_known, used.sum(1), 1)[:, None]
    q = shown / np.where(is_known, shown.sum(1), 1)[:, None]
    mixed = (1 - smoothing) * q + smoothing * p
    ratio = np.where(p > 0, p / np.where(mixed > 0, mixed, 1), 1)
    return np.where(is_known, (p * np.log(ratio)).sum(1), np.nan)
