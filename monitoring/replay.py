"""How large is a distance when nothing has changed? Asked of the traffic itself.

An A/A replay deals the units (users, items) of both windows anew between them, so that nothing but chance sets the
windows apart, and measures the same distance. Whole units are dealt: what one user does hangs together, and a threshold
that takes a user's events for independent ones alarms at nothing. The threshold is the largest of `REPLAYS` replays: a
distance that comes of chance alone exceeds it once in `REPLAYS` + 1 times (a permutation test by clusters).

Shapes: G groups of units, B columns of whatever is summed up (counts of bins, sums of embeddings), R replays.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

REPLAYS = 1999
"""The resamplings of a window of few, busy users fall short of what chance does: with 399 up to 1.6 % of A/A replays of
671 users alarmed, not ≤ 1 %. So many cost .15 s more for all columns of a check."""
MOST_GROUPS = 400
"""Units are put together at random to so many groups of about equally many rows: cheaper, and as right."""
MIN_UNITS = 20
"""With fewer units in a window there are too few ways to deal them."""


def groups_of(
    reference_units: np.ndarray, current_units: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a group for each row of both windows, from 0; a group holds whole units of one window, and the windows
    have groups in proportion to their rows. (N,), (M,)"""
    rows = len(reference_units) + len(current_units)
    labelled, first = [], 0
    for units in (reference_units, current_units):
        _, index = np.unique(units, return_inverse=True)
        count = int(index.max()) + 1
        wanted = min(count, max(2, round(MOST_GROUPS * len(units) / rows)))
        labelled.append(first + rng.permutation(count)[index] % wanted)
        first += wanted
    return labelled[0], labelled[1]


def totals(groups: np.ndarray, columns: np.ndarray, n_groups: int, n_columns: int) -> np.ndarray:
    """Return how many rows of each group fall into each column. (G, B)"""
    counts = np.bincount(groups * n_columns + columns, minlength=n_groups * n_columns)
    return counts.reshape(n_groups, n_columns).astype(float)  # products of whole numbers are slow


def of_chance(
    sums: np.ndarray, n_reference: int, of: Callable[[np.ndarray], np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what is compared of both windows: as it is (row 0), in `REPLAYS` replays, and in as many resamplings.

    Dealing the groups anew is exact where the windows' groups are alike. Where they are not (a window with few, busy
    users), its own groups are drawn with replacement, and what that moves is added to what both windows have in common:
    the cluster bootstrap of each window about the pooled one. The larger of the two is believed.

    Args:
        sums: of each group, those of the reference first. (G, B)
        n_reference: how many groups are the reference's.
        of: from sums of a window to what is compared, e.g. shares. (…, B) → (…, C)
        seed: of the dealing, which is the same for all columns with as many groups.

    Returns:
        Two arrays (1 + 2 R, C).
    """
    there = _deals(seed, len(sums), n_reference) @ sums
    here = sums.sum(0) - there
    common, found = of(sums.sum(0)), []
    for dealt, groups in ((there, sums[:n_reference]), (here, sums[n_reference:])):
        count = len(groups)
        drawn = of(_draws(seed, count) @ groups)
        moved = (drawn - of(groups.sum(0))) * np.sqrt(count / max(1, count - 1))
        found.append(np.concatenate([of(dealt), common + moved]))
    return found[0], found[1]


@lru_cache(maxsize=8)
def _deals(seed: int, n_groups: int, n_reference: int) -> np.ndarray:
    """Return which groups are the reference's, 1 or 0: as it is, then in each replay. (R + 1, G)"""
    order = np.argsort(np.random.default_rng([seed, n_groups]).random((REPLAYS, n_groups)), axis=1)
    is_reference = np.zeros((REPLAYS + 1, n_groups))
    is_reference[0, :n_reference] = 1
    np.put_along_axis(is_reference[1:], order[:, :n_reference], 1, axis=1)
    return is_reference


@lru_cache(maxsize=8)
def _draws(seed: int, n_groups: int) -> np.ndarray:
    """Return how often each group is drawn in each resampling. (R, G)"""
    rng = np.random.default_rng([seed, n_groups, 1])
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), REPLAYS).astype(float)


def shares(sums: np.ndarray) -> np.ndarray:
    """Return counts as shares of their row. (…, B)"""
    return sums / np.maximum(sums.sum(-1, keepdims=True), 1)


def means(sums: np.ndarray) -> np.ndarray:
    """Return sums as means; the last column counts. (…, D + 1) → (…, D)"""
    return sums[..., :-1] / np.maximum(sums[..., -1:], 1)
