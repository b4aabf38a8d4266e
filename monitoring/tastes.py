"""Since when people choose otherwise: the day on which the mix of the used items' first categories breaks, per domain.

A distance between two windows says that something has moved, not when. Here each day may be the break; the likelihood
of one mix before it and another from it on, beside that of a single mix, chooses among them (a multinomial change
point).
What chance does on this very traffic is seen by shuffling whole days, so that the bursts of a day stay together.

Shapes: D days, C categories.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import psycopg

from monitoring.drift import CATEGORY_FLOOR, MIN_ROWS
from recsys import columns as c
from recsys.artifacts import DIM_ITEMS, FCT_INTERACTIONS
from recsys.interval import Interval
from recsys.warehouse import Outcome

CHECK = "drift_date"
LOOK_DAYS = 180
"""So many days before the interval's end are looked at."""
EDGE_DAYS = 7
"""A break so near to either end is not judged: a week holds each weekday once."""
NAMED = 30
"""Categories of a domain that are counted by themselves, the largest first; the others are one."""
SHUFFLES = 200


@dataclass(frozen=True)
class Break:
    """The likeliest break of a series of mixes."""

    day: int
    """The first day of the new mix."""
    gain: float
    """Log-likelihood gained by two mixes instead of one."""
    chance: float
    """The largest gain among shuffled days."""
    psi: float
    category: int
    """The one whose share moved most."""
    before: float
    after: float

    @property
    def is_drift(self) -> bool:
        return self.gain > self.chance and self.psi > CATEGORY_FLOOR


def find_break(counts: np.ndarray, seed: int) -> Break | None:
    """Return the likeliest break of daily counts (D, C); None with too few days or rows on a side to say anything."""
    if len(counts) < 2 * EDGE_DAYS + 1:
        return None
    gains = _gains(counts)
    before, after = counts[:EDGE_DAYS].sum(), counts[-EDGE_DAYS:].sum()
    day = EDGE_DAYS + int(gains.argmax())
    first, second = counts[:day].sum(0), counts[day:].sum(0)  # each (C,)
    if min(first.sum(), second.sum()) < MIN_ROWS or min(before, after) == 0:
        return None
    rng = np.random.default_rng(seed)
    chance = max(float(_gains(rng.permutation(counts)).max()) for _ in range(SHUFFLES))
    shares = [(side + 0.5) / (side.sum() + 0.5 * len(side)) for side in (first, second)]
    moved = int(np.abs(shares[1] - shares[0]).argmax())
    psi = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    return Break(day, float(gains.max()), chance, psi, moved, float(shares[0][moved]), float(shares[1][moved]))


def _gains(counts: np.ndarray) -> np.ndarray:
    """Return what a break before each day but those of the edges gains: (D - 2 * EDGE_DAYS + 1,)."""
    before = counts.cumsum(0)[EDGE_DAYS - 1 : len(counts) - EDGE_DAYS]
    whole = counts.sum(0)
    return _fit(before) + _fit(whole - before) - _fit(whole[None])


def _fit(counts: np.ndarray) -> np.ndarray:
    """Return the log-likelihood of counts (…, C) under their own shares."""
    counts = counts.astype(float)
    total = counts.sum(-1, keepdims=True)
    shares = np.divide(counts, total, out=np.ones_like(counts), where=counts > 0)
    return (counts * np.log(shares)).sum(-1)


COUNTS_SQL = f"""
    select events.{c.DOMAIN}, (events.{c.OCCURRED_AT} at time zone 'UTC')::date as day,
        coalesce(items.categories[1], '') as category, count(*)
    from {FCT_INTERACTIONS} as events left join {DIM_ITEMS} as items using ({c.ITEM_ID})
    where events.{c.DOMAIN} = any(%(domains)s) and events.{c.OCCURRED_AT} < %(end)s
        and events.{c.OCCURRED_AT} >= %(start)s
    group by 1, 2, 3
"""


def judge_tastes(connection: psycopg.Connection, station: str, interval: Interval, seed: int) -> list[Outcome]:
    """Return one outcome for each domain with events: since when its mix is another one, or that it is not."""
    start = interval.end - timedelta(days=LOOK_DAYS)
    asked = {"domains": list(interval.domains), "end": interval.end, "start": start}
    of_domain: dict[str, list[tuple[date, str, int]]] = {}
    for domain, day, category, events in connection.execute(COUNTS_SQL, asked):
        of_domain.setdefault(domain, []).append((day, category, events))
    found = []
    for domain, rows in sorted(of_domain.items()):
        first, names, counts = _table(rows)
        broken = find_break(counts, seed)
        detail: dict[str, Any] = {}
        observed = "not judged: too few days or events"
        if broken is not None:
            day = first + timedelta(days=broken.day)
            detail = {
                "since": day.isoformat(), "score": broken.psi, "gain": broken.gain, "largest_of_chance": broken.chance,
                "category": names[broken.category], "share_before": broken.before, "share_after": broken.after,
            }  # fmt: skip
            moved = f"{names[broken.category]}: {broken.before:.1%} to {broken.after:.1%}"
            observed = f"{broken.psi:.4f} since {day} ({moved})" if broken.is_drift else f"{broken.psi:.4f}"
        is_drift = broken is not None and broken.is_drift
        found.append(
            Outcome(
                station, interval.as_of, CHECK, observed, f"psi <= {CATEGORY_FLOOR}, or no more than shuffled days",
                "warn" if is_drift else "pass", subject=f"first categories in {domain}", detail=detail,
            )
        )  # fmt: skip
    return found


def _table(rows: list[tuple[date, str, int]]) -> tuple[date, list[str], np.ndarray]:
    """Return the first day, the categories' names and the counts (D, C), a row for each day in between."""
    totals: dict[str, int] = {}
    for _, category, events in rows:
        totals[category] = totals.get(category, 0) + events
    largest = sorted(totals, key=lambda name: (-totals[name], name))
    place = {name: min(at, NAMED) for at, name in enumerate(largest)}
    names = [name or "without a category" for name in largest[:NAMED]] + ["all others"] * (len(largest) > NAMED)
    first, last = min(row[0] for row in rows), max(row[0] for row in rows)
    counts = np.zeros(((last - first).days + 1, len(names)), np.int64)
    for day, category, events in rows:
        counts[(day - first).days, place[category]] += events
    return first, names, counts
