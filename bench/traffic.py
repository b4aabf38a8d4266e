"""Traffic that nobody tuned on: families of traces, each drawn from a seed.

A family's ranges were written down before the first replay and not changed after one. Every trace carries noise, which
the four of `infra.scaling_simulation` do not: requests scatter by some percent from step to step and wander slowly
(a mean-reverting walk), as counted requests do.

    diurnal       a day between a random night and a random peak; a new model at a random hour empties the cache
    flash crowd   six hours, a crowd of two to eight times the traffic, up in half a minute to ten, gone in half an hour
                  to two hours
    slow leak     a day of waves, answers slowing down to between one and a half and three and a half times
    weekly        a week with its own weekend and up to three mails to all users
    crowds        six hours with two to five small crowds, some of them over each other: no tuned trace has that
    client        twelve hours of a batch client that comes and goes like a switch: no tuned trace has that
"""

from collections.abc import Callable

import numpy as np

from infra.scaling_simulation import DAY_S, STEP_S, Moment, Trace

HOUR_S = 3600
Course = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Requests a second, hit ratio, slowness: one value a step, each (T,)."""


def _seconds(length: int) -> np.ndarray:
    return np.arange(0, length, STEP_S, dtype=float)


def _day(seconds: np.ndarray, low: float, high: float, trough: float) -> np.ndarray:
    """A day's wave, lowest at `trough` seconds after midnight."""
    return low + (high - low) * (0.5 - 0.5 * np.cos(2 * np.pi * (seconds - trough) / DAY_S)) ** 1.5


def _crowd(seconds: np.ndarray, begins: float, rise_s: float, fade_s: float) -> np.ndarray:
    """From 0 to 1 in `rise_s`, then fading."""
    since = seconds - begins
    return np.where(since < 0, 0.0, np.clip(since / rise_s, 0, 1) * np.exp(-np.clip(since - rise_s, 0, None) / fade_s))


def _emptied(seconds: np.ndarray, hits: float, at: float, fill_s: float) -> np.ndarray:
    """Hit ratio of a cache that starts anew at this second."""
    since = seconds - at
    return np.where(since < 0, hits, hits * (1 - np.exp(-np.clip(since, 0, None) / fill_s)))


def diurnal(rng: np.random.Generator) -> Course:
    seconds = _seconds(DAY_S)
    low, high = rng.uniform(100, 600), rng.uniform(1500, 4000)
    hits = _emptied(seconds, rng.uniform(0.3, 0.7), rng.uniform(6, 22) * HOUR_S, rng.uniform(600, 3600))
    return _day(seconds, low, high, rng.uniform(2, 6) * HOUR_S), hits, np.zeros_like(seconds)


def flash_crowd(rng: np.random.Generator) -> Course:
    seconds = _seconds(6 * HOUR_S)
    base, times, hits = rng.uniform(300, 900), rng.uniform(2, 8), rng.uniform(0.3, 0.6)
    crowd = _crowd(seconds, rng.uniform(1, 3) * HOUR_S, rng.uniform(30, 600), rng.uniform(1800, 7200))
    return base * (1 + (times - 1) * crowd), hits * (1 - rng.uniform(0, 0.7) * crowd), np.zeros_like(seconds)


def slow_leak(rng: np.random.Generator) -> Course:
    seconds = _seconds(DAY_S)
    base, wave, period = rng.uniform(800, 1600), rng.uniform(0.05, 0.3), rng.uniform(1, 6) * HOUR_S
    requests = base * (1 + wave * np.sin(2 * np.pi * seconds / period))
    slowness = rng.uniform(0.5, 2.5) * (seconds / DAY_S) ** rng.uniform(0.5, 2)
    return requests, np.full_like(seconds, rng.uniform(0.2, 0.6)), slowness


def weekly(rng: np.random.Generator) -> Course:
    seconds = _seconds(7 * DAY_S)
    weekend = np.where(seconds // DAY_S >= 5, rng.uniform(0.5, 1.8), 1.0)
    base = _day(seconds, rng.uniform(100, 500), rng.uniform(1200, 2800), rng.uniform(2, 6) * HOUR_S) * weekend
    mails = np.zeros_like(seconds)
    for _ in range(rng.integers(0, 4)):
        begins = rng.integers(0, 7) * DAY_S + rng.uniform(7, 21) * HOUR_S
        mails += rng.uniform(500, 3000) * _crowd(seconds, begins, rng.uniform(60, 900), rng.uniform(900, 5400))
    hits = rng.uniform(0.3, 0.6) * (1 - 0.4 * mails / (base + mails))
    return base + mails, hits, np.zeros_like(seconds)


def crowds(rng: np.random.Generator) -> Course:
    seconds = _seconds(6 * HOUR_S)
    base, extra = rng.uniform(300, 900), np.zeros_like(seconds)
    for _ in range(rng.integers(2, 6)):
        begins = rng.uniform(0.5, 5.5) * HOUR_S
        extra += rng.uniform(0.5, 2.5) * _crowd(seconds, begins, rng.uniform(30, 300), rng.uniform(300, 1800))
    return base * (1 + extra), rng.uniform(0.3, 0.6) / (1 + 0.3 * extra), np.zeros_like(seconds)


def client(rng: np.random.Generator) -> Course:
    seconds = _seconds(12 * HOUR_S)
    base, added, requests = rng.uniform(300, 900), rng.uniform(300, 2000), np.zeros_like(seconds)
    begins = rng.uniform(0.5, 2) * HOUR_S
    while begins < 12 * HOUR_S:
        ends = begins + rng.uniform(300, 5400)
        requests[(seconds >= begins) & (seconds < ends)] += added
        begins = ends + rng.uniform(600, 7200)
    hits = rng.uniform(0.3, 0.6) * base / (base + requests)  # the client asks for each user once
    return base + requests, hits, np.zeros_like(seconds)


FAMILIES: dict[str, Callable[[np.random.Generator], Course]] = {
    "diurnal": diurnal, "flash crowd": flash_crowd, "slow leak": slow_leak, "weekly": weekly,
    "crowds": crowds, "client": client,
}  # fmt: skip
TUNED_ON = ("diurnal", "flash crowd", "slow leak", "weekly")
"""Families that a tuned trace belongs to; the others have another shape altogether."""


def drawn(family: str, seed: int) -> Trace:
    """Return the family's trace of this seed. Equal seeds give equal traces."""
    rng = np.random.default_rng([list(FAMILIES).index(family), seed])
    requests, hits, slowness = FAMILIES[family](rng)
    wander, walk = np.empty_like(requests), 0.0
    for step, pull in enumerate(rng.normal(0, 0.01, len(requests))):
        walk = 0.98 * walk + pull  # settles at 5 % of the level
        wander[step] = walk
    scatter = rng.normal(0, 0.03, len(requests))
    requests = requests * np.exp(wander + scatter)
    columns = (requests.tolist(), np.clip(hits, 0, 1).tolist(), slowness.tolist())
    moments = [Moment(*each) for each in zip(*columns, strict=True)]
    return Trace(f"{family} {seed}", len(moments) * STEP_S, lambda second: moments[int(second) // STEP_S])
