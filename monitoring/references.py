"""What a model's features looked like when it was registered: histograms, kept by data cut, and the judgement on what
came since.

A histogram is kept by groups of units, so that a later judgement can deal them anew with what came since and learn how
far apart chance alone sets them (replay.py). Every row counts: a missing value has a bin of its own. So a feature that
was constant, or missing altogether, has a histogram like any other, and drifts when it is so no longer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

from monitoring import distances, replay
from monitoring.drift import CATEGORY_FLOOR, CATEGORY_METHOD, MIN_ROWS, NUMBER_PSI_FLOOR, Drift, Kind
from recsys.artifacts import DRIFT_REFERENCES

GROUPS = 200
"""At most so many groups of units a histogram."""


@dataclass(frozen=True)
class Histogram:
    """How often each bin was met in each group of units. The last bin is of missing values, of categories the one
    before it of others."""

    column: str
    kind: Kind
    bins: tuple[float, ...] | tuple[str, ...]
    """A number's inner edges (distances.bin_of), or the categories."""
    counts: np.ndarray  # (G, B)
    units: int

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    @classmethod
    def of(cls, column: str, kind: Kind, values: np.ndarray, units: np.ndarray, seed: int) -> "Histogram":
        """Return the histogram of a column; nulls are NaN or None."""
        there = values[~_is_missing(values)]
        if kind == "category":
            bins: tuple = tuple(sorted({str(value) for value in there.tolist()}))
        else:
            bins = tuple(distances.decile_edges(there).tolist()) if len(there) else ()
        groups, count = _grouped(units, GROUPS, seed)
        return cls(column, kind, bins, _counted(kind, bins, values, groups, count), len(np.unique(units)))

    def judge(self, values: np.ndarray, units: np.ndarray, seed: int) -> Drift:
        """Return whether these rows, of a later time, are distributed otherwise."""
        floor = CATEGORY_FLOOR if self.kind == "category" else NUMBER_PSI_FLOOR
        count = len(np.unique(units))
        if min(len(values), self.rows) < MIN_ROWS or min(count, self.units) < replay.MIN_UNITS:
            note = "too few rows or units"
            return Drift(self.column, CATEGORY_METHOD, floor, self.rows, len(values), None, note=note)
        alike = round(GROUPS * len(values) / self.rows)  # groups of about as many rows
        groups, n_groups = _grouped(units, max(replay.MIN_UNITS, min(GROUPS, alike)), seed)
        sums = np.concatenate([self.counts, _counted(self.kind, self.bins, values, groups, n_groups)])
        shares = replay.of_chance(sums, len(self.counts), replay.shares, seed)
        scores = distances.population_stability(*shares)  # as it is, then by chance
        chance = float(scores[1:].max())
        return Drift(self.column, CATEGORY_METHOD, max(floor, chance), self.rows, len(values), float(scores[0]), chance)


def _is_missing(values: np.ndarray) -> np.ndarray:
    return np.isnan(values) if values.dtype.kind == "f" else np.array([value is None for value in values], bool)


def _grouped(units: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, int]:
    """Return a group for each row, whole units together, and how many groups there are. (N,)"""
    _, index = np.unique(units, return_inverse=True)
    count = int(index.max()) + 1 if len(index) else 0
    wanted = max(1, min(count, most))
    dealt = np.random.default_rng([seed, count]).permutation(count) % wanted
    return dealt[index] if count else np.empty(0, int), wanted


def _counted(kind: Kind, bins: tuple, values: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Return how many rows of each group fall into each bin. (G, B)"""
    missing = _is_missing(values)
    if kind == "category":
        place = {name: number for number, name in enumerate(bins)}
        n_bins = len(bins) + 2
        index = np.array([place.get(str(value), len(bins)) for value in values.tolist()], int)
    else:
        n_bins = 2 * len(bins) + 2
        index = distances.bin_of(np.where(missing, 0.0, values.astype(float)), np.array(bins))
    return replay.totals(groups, np.where(missing, n_bins - 1, index), n_groups, n_bins)


def write(connection: psycopg.Connection, cut_id: str, until: datetime, histograms: Iterable[Histogram]) -> None:
    """Keep the histograms of a cut in place of those that it had; they are of rows before `until`."""
    connection.execute(f"delete from {DRIFT_REFERENCES} where cut_id = %s", (cut_id,))
    with connection.cursor() as cursor:
        cursor.executemany(
            f"insert into {DRIFT_REFERENCES} (cut_id, subject, kind, bins, counts, units, until)"
            " values (%s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    cut_id,
                    one.column,
                    one.kind,
                    Jsonb(list(one.bins)),
                    Jsonb(one.counts.astype(int).tolist()),
                    one.units,
                    until,
                )
                for one in histograms
            ],
        )


def read(connection: psycopg.Connection, cut_id: str) -> tuple[datetime | None, dict[str, Histogram]]:
    """Return until when a cut's histograms reach, and the histograms by column; nothing where none were kept."""
    rows = connection.execute(
        f"select subject, kind, bins, counts, units, until from {DRIFT_REFERENCES} where cut_id = %s order by subject",
        (cut_id,),
    ).fetchall()
    kept = {
        subject: Histogram(subject, kind, tuple(bins), np.array(counts, float), units)
        for subject, kind, bins, counts, units, _ in rows
    }
    return (rows[0][-1] if rows else None), kept
