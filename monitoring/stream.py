"""Did the quality of the answers fall, and when? Page and Hinkley's test over a stream of one number a request.

The statistic is how far the cumulated shortfall below the expected mean has risen above its lowest point (Page 1954;
Hinkley 1971). It needs no window: a small fall is found after long, a large one at once. Shapes: N values, R replays.
"""

from dataclasses import dataclass

import numpy as np

REPLAYS = 199
"""A/A replays of the stream, each as long as both windows; and as many resamplings."""
TOLERATED = 0.05
"""Shortfall that does not count, in standard deviations of a request's quality."""


def page_hinkley(values: np.ndarray, mean: np.ndarray | float, tolerated: np.ndarray | float) -> np.ndarray:
    """Return the statistic after each value of each stream. (…, N) → (…, N)"""
    risen = np.cumsum(np.asarray(mean)[..., None] - values - np.asarray(tolerated)[..., None], axis=-1)
    lowest = np.minimum(np.minimum.accumulate(risen, axis=-1), 0.0)
    return risen - lowest


@dataclass(frozen=True)
class StreamDrift:
    """The judgement on one stream."""

    reference_mean: float
    current_mean: float
    statistic: float
    threshold: float
    alarm_at: int | None
    """Index of the first value of the current window at which the alarm went off."""

    @property
    def is_drifted(self) -> bool:
        return self.alarm_at is not None


def judge_stream(reference: np.ndarray, current: np.ndarray, units: tuple, seed: int) -> StreamDrift:
    """Return whether quality fell in the current window, below what it was in the reference.

    The threshold is the largest statistic of `REPLAYS` A/A replays and of as many resamplings. A replay is the same
    values, unit by unit in random order, cut into windows as long as these: exact where the windows' units are alike.
    Where they are not (a window with few, busy users) its own units are drawn with replacement, moved to the mean of
    both windows, as in `replay.of_chance`. Values of one unit stay together there, which makes chance look larger than
    it is in the order of time, never smaller.

    Args:
        reference: quality of each request, in the order of time. (N,)
        current: likewise. (M,)
        units: whose requests they are, of both windows. ((N,), (M,))

    Raises:
        ValueError: a window is empty.
    """
    if not len(reference) or not len(current):
        raise ValueError(f"windows of {len(reference)} and {len(current)} values: both need some")
    pooled, n = np.concatenate([reference, current]), len(reference)
    _, unit = np.unique(np.concatenate(units), return_inverse=True)
    rng = np.random.default_rng(seed)
    largest = np.empty(2 * REPLAYS)
    places = np.arange(unit.max() + 1, dtype=np.uint16 if unit.max() < 2**16 else np.int64)  # short ones sort faster
    for number in range(REPLAYS):
        stream = pooled[np.argsort(rng.permutation(places)[unit], kind="stable")]
        largest[number] = _statistics(stream[:n], stream[n:]).max()
    windows = [
        _Units(values - values.mean() + pooled.mean(), of)
        for values, of in zip((reference, current), units, strict=True)
    ]
    for number in range(REPLAYS, 2 * REPLAYS):
        largest[number] = _statistics(*(window.drawn(rng) for window in windows)).max()
    found = _statistics(reference, current)
    threshold = float(largest.max())
    above = np.flatnonzero(found > threshold)
    return StreamDrift(
        float(reference.mean()), float(current.mean()), float(found.max()), threshold,
        int(above[0]) if len(above) else None,
    )  # fmt: skip


class _Units:
    """The values of one window by unit, to draw whole units from."""

    def __init__(self, values: np.ndarray, units: np.ndarray):
        _, unit, self._counts = np.unique(units, return_inverse=True, return_counts=True)
        self._values = values[np.argsort(unit, kind="stable")]  # (N,), a unit's values side by side
        self._ends = np.cumsum(self._counts)

    def drawn(self, rng: np.random.Generator) -> np.ndarray:
        """Return the values of as many units as there are, drawn with replacement: about as many values."""
        chosen = rng.integers(0, len(self._counts), len(self._counts))
        counts = self._counts[chosen]
        starts = self._ends[chosen] - counts
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._values[np.repeat(starts, counts) + within]


def _statistics(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    return page_hinkley(current, float(reference.mean()), TOLERATED * float(reference.std()))
