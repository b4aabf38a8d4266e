"""Who is shown and who is served: exposure across groups of items, quality across groups of users. Pure.

Exposure is what a rank is seen: 1 / log2(1 + rank), ranks from 1, as in Singh and Joachims 2018, "Fairness of Exposure
in Rankings". Groups are numbers from 0. Shapes: B users, K ranks, I items, G groups, N candidates.
"""

import numpy as np


def exposure(k: int) -> np.ndarray:
    """Return how much each of the first k ranks is seen. (k,)"""
    return 1 / np.log2(np.arange(2, k + 2))


def exposure_shares(listed: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Return each item group's share of all exposure. float64 (G,), sums to one; zeros where nothing is shown.

    Args:
        listed: items in order of rank, -1 pads. (B, K)
        groups: of each item. (I,)
    """
    seen = np.broadcast_to(exposure(listed.shape[1]), listed.shape)
    there = listed >= 0
    total = np.bincount(groups[listed[there]], seen[there], n_groups)
    return total / max(total.sum(), 1e-12)


def exposure_ratios(listed: np.ndarray, groups: np.ndarray, merit: np.ndarray) -> np.ndarray:
    """Return each group's share of exposure over its share of merit: 1 is what it deserves, less is too little.
    float64 (G,), NaN for a group without merit.

    Args:
        merit: what an item deserves to be seen for, such as how often it is used. (I,), none below zero
    """
    n_groups = int(groups.max()) + 1
    deserved = np.bincount(groups, merit, n_groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        return exposure_shares(listed, groups, n_groups) / np.where(deserved > 0, deserved / deserved.sum(), np.nan)


def with_least_exposure(scores: np.ndarray, is_protected: np.ndarray, k: int, least: float) -> np.ndarray:
    """Return the positions of k candidates in an order that gives the protected ones this share of exposure, as long as
    there are any, and is else that of the scores. int64 (min(k, N),)

    Rank by rank the best candidate is taken, unless the protected would then have less than `least` of the exposure so
    far: then the best protected one (a share of exposure in place of the share of places of Zehlike et al. 2017,
    "FA*IR"). A rank cannot be divided: a list may be behind its share by less than its first rank is seen.

    Args:
        scores: (N,), higher is better; -inf is never chosen.
        is_protected: bool (N,)
        least: in [0, 1]; 0 changes nothing.

    Raises:
        ValueError: the shapes differ, k is below one, `least` lies outside [0, 1], or a score is NaN.
    """
    scores, is_protected = np.asarray(scores, float), np.asarray(is_protected, bool)
    if k < 1 or scores.ndim != 1 or scores.shape != is_protected.shape:
        raise ValueError(f"k={k} with scores {scores.shape} and is_protected {is_protected.shape}")
    if not 0 <= least <= 1 or np.isnan(scores).any():
        raise ValueError(f"least must lie in [0, 1], got {least}, and no score may be NaN")
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > -np.inf]
    waiting = {True: list(order[is_protected[order]][::-1]), False: list(order[~is_protected[order]][::-1])}
    place = np.empty(len(scores), np.int64)
    place[order] = np.arange(len(order))
    chosen, given, seen = [], 0.0, exposure(k)
    for rank in range(min(k, len(order))):
        owed = least * seen[: rank + 1].sum() - given
        if waiting[True] and (owed >= seen[rank] - 1e-9 or not waiting[False]):
            kind = True
        elif not waiting[True]:
            kind = False
        else:
            kind = bool(place[waiting[True][-1]] < place[waiting[False][-1]])
        chosen.append(waiting[kind].pop())
        given += seen[rank] * kind
    return np.array(chosen, np.int64)


def quality_by_group(values: np.ndarray, groups: np.ndarray, fewest: int = 30) -> dict[int, float]:
    """Return the mean of each user group with at least `fewest` judged users. NaN values are not judged.

    Args:
        values: a metric of each user. (B,)
        groups: of each user. (B,)
    """
    judged = ~np.isnan(values)
    counted = ((int(group), judged & (groups == group)) for group in np.unique(groups[judged]))
    return {group: float(values[inside].mean()) for group, inside in counted if inside.sum() >= fewest}


def worst_over_best(values: np.ndarray, groups: np.ndarray, fewest: int = 30) -> float:
    """Return the lowest group's mean over the highest's: 1 is equal quality for all. NaN with fewer than two groups or
    where the best is zero."""
    means = quality_by_group(values, groups, fewest).values()
    return min(means) / max(means) if len(means) > 1 and max(means) > 0 else float("nan")
