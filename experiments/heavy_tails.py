"""Metrics whose variance may not exist: a few whales decide the mean, and no interval of it keeps its promise."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

INFINITE_VARIANCE = 2.0
"""Tail index up to which a distribution has no variance."""
MIN_TAIL = 10
"""Fewer values in the tail tell nothing about it."""
CAPPED_SHARE = 0.01
"""Share of the positive values that winsorising moves down to the largest of the others."""


@dataclass(frozen=True)
class Tamed:
    """Values that can be averaged, and what was done to them."""

    values: np.ndarray
    """(N,)"""
    cap: float | None = None
    """None: nothing had to be done."""
    tail_index: float | None = None

    @property
    def sentence(self) -> str:
        if self.cap is None:
            return ""
        return (
            f"A few users dominate it (tail index {self.tail_index:.2f}; up to {INFINITE_VARIANCE:g} there is no "
            f"variance), so values above {self.cap:g} count as {self.cap:g}: it is the effect on all but the largest."
        )


def tail_index(values: np.ndarray) -> float | None:
    """Return Hill's estimate of the tail index over the √n largest positive values: the number of moments that exist.
    None with too few of them; infinite where they are all equal (Hill 1975)."""
    positive = np.sort(np.asarray(values, float))
    positive = positive[positive > 0]
    count = int(sqrt(len(positive)))
    if count < MIN_TAIL:
        return None
    excess = float(np.log(positive[-count:] / positive[-count - 1]).mean())
    return 1 / excess if excess > 0 else float("inf")


def tame(values: np.ndarray) -> Tamed:
    """Return the values, winsorised if their variance does not seem to exist.

    The cap is one for all variants, from all values together; else it would be an effect of its own.

    Raises:
        ValueError: a value is not finite: such a metric has no mean either.
    """
    values = np.asarray(values, float)
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {len(values)} values are not finite")
    index = tail_index(values)
    if index is None or index > INFINITE_VARIANCE:
        return Tamed(values, None, index)
    cap = float(np.quantile(values[values > 0], 1 - CAPPED_SHARE))
    return Tamed(np.minimum(values, cap), cap, index)
