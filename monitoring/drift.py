"""Data drift between two windows: sizes of an effect, beside what chance alone does on this very traffic.

numbers      Wasserstein distance in standard deviations of the reference; PSI over the reference's deciles
categories   population stability index (PSI)
embeddings   how far the mean has moved, in units of the embeddings' spread

A distance is drift when it is larger than every A/A replay's (`monitoring/replay.py`) and at least as large as what is
worth a look: on many rows every difference is significant, and only a large one is news. An HTML page for people is
Evidently's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from monitoring import distances, replay

NUMBER_METHOD, CATEGORY_METHOD, EMBEDDING_METHOD = "wasserstein", "psi", "mean shift"
NUMBER_FLOOR = 0.1
"""A shift of the mean by a tenth of a standard deviation."""
NUMBER_PSI_FLOOR = 0.02
"""A normal distribution that is shifted by .15 standard deviations has about as much."""
CATEGORY_FLOOR = 0.03
"""A mix that moves from 50:50 to 60:40 has .041, to 58:42 has .026."""
EMBEDDING_FLOOR = 0.1
MIN_ROWS = 500
"""Below so many values in a window there is little to be said of its distribution."""

Kind = Literal["number", "category"]


@dataclass(frozen=True)
class Column:
    """One feature in both windows; nulls are NaN or None. Rows of the two windows need not belong together."""

    name: str
    kind: Kind
    reference: np.ndarray
    reference_units: np.ndarray
    """Whose row it is: rows of one unit are dealt together."""
    current: np.ndarray
    current_units: np.ndarray


@dataclass(frozen=True)
class Drift:
    """One judgement on one column."""

    column: str
    method: str
    threshold: float
    reference_rows: int
    current_rows: int
    score: float | None
    """None where it cannot be judged; `note` says why."""
    chance: float | None = None
    """The largest distance of the A/A replays."""
    note: str = ""
    is_gone: bool = False
    """The column has values in one window only."""

    @property
    def is_drifted(self) -> bool:
        return self.is_gone or (self.score is not None and self.score > self.threshold)


def measure(columns: Sequence[Column], seed: int) -> list[Drift]:
    """Return the judgements on each column, in their order: two for a number, one for a category.

    A column without any value in the reference, or in the current window alone, is told as drift without a score. A
    constant reference has no standard deviation, and a thousandth stands for it: whatever moves away from a constant by
    more than chance would deal is drift.
    """
    found: list[Drift] = []
    for number, column in enumerate(columns):
        kept = [
            (values[present], units[present])
            for values, units in ((column.reference, column.reference_units), (column.current, column.current_units))
            for present in [_present(values)]
        ]
        refusal = _refused(column, kept)
        if refusal is not None:
            found.append(refusal)
            continue
        rng = np.random.default_rng([seed, number])
        (reference, reference_units), (current, current_units) = kept
        groups = replay.groups_of(reference_units, current_units, rng)
        for method, floor, index, score in _methods(column.kind, reference, current):
            score_, chance = _judged(groups, index, score, seed)
            found.append(Drift(column.name, method, max(floor, chance), len(reference), len(current), score_, chance))
    return found


def measure_embeddings(name: str, reference: np.ndarray, current: np.ndarray, units: tuple, seed: int) -> Drift:
    """Return the judgement on the embeddings of what was used in two windows.

    Args:
        reference: (N, D)
        current: (M, D)
        units: whose rows they are, of both windows. ((N,), (M,))
    """
    few = min(len(reference), len(current)) < MIN_ROWS or min(len(np.unique(one)) for one in units) < replay.MIN_UNITS
    if few:
        note = "too few rows or units"
        return Drift(name, EMBEDDING_METHOD, EMBEDDING_FLOOR, len(reference), len(current), None, note=note)
    rng = np.random.default_rng(seed)
    spread = float(np.sqrt(reference.var(0).sum()))
    of_reference, of_current = replay.groups_of(*units, rng)
    groups, rows = np.concatenate([of_reference, of_current]), np.concatenate([reference, current])
    sums = np.zeros((int(groups.max()) + 1, rows.shape[1] + 1))  # the last column counts
    np.add.at(sums[:, :-1], groups, rows)
    sums[:, -1] = np.bincount(groups)
    means = replay.of_chance(sums, int(of_reference.max()) + 1, replay.means, seed)
    scores = distances.mean_shift(*means, spread)  # as it is, then by chance
    chance = float(scores[1:].max())
    threshold = max(EMBEDDING_FLOOR, chance)
    return Drift(name, EMBEDDING_METHOD, threshold, len(reference), len(current), float(scores[0]), chance)


def _present(values: np.ndarray) -> np.ndarray:
    return ~np.isnan(values) if values.dtype.kind == "f" else np.array([value is not None for value in values], bool)


def _refused(column: Column, kept: list[tuple[np.ndarray, np.ndarray]]) -> Drift | None:
    rows, units = [len(values) for values, _ in kept], [len(np.unique(of)) for _, of in kept]
    method, floor = (NUMBER_METHOD, NUMBER_FLOOR) if column.kind == "number" else (CATEGORY_METHOD, CATEGORY_FLOOR)
    is_gone = min(rows) == 0 and max(rows) >= MIN_ROWS
    if is_gone:
        note = "no values in the reference: judge it against a newer one" if rows[0] == 0 else "no values any more"
    elif min(rows) < MIN_ROWS:
        note = "too few rows"
    elif min(units) < replay.MIN_UNITS:
        note = "too few units"
    else:
        return None
    return Drift(column.name, method, floor, *rows, None, note=note, is_gone=is_gone)


Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _methods(kind: Kind, reference: np.ndarray, current: np.ndarray) -> list[tuple[str, float, np.ndarray, Score]]:
    """Return method, floor, the bin of each pooled row, and the distance over shares of bins."""
    pooled = np.concatenate([reference, current])
    if kind == "category":
        _, index = np.unique(pooled.astype(str), return_inverse=True)
        return [(CATEGORY_METHOD, CATEGORY_FLOOR, index, distances.population_stability)]
    values, index = distances.support(pooled)
    unit = max(float(reference.std()), distances.LEAST_UNIT)
    return [
        (NUMBER_METHOD, NUMBER_FLOOR, index, lambda r, c: distances.wasserstein(r, c, values) / unit),
        (
            CATEGORY_METHOD,
            NUMBER_PSI_FLOOR,
            distances.bin_of(pooled, distances.decile_edges(reference)),
            distances.population_stability,
        ),
    ]


def _judged(groups: tuple[np.ndarray, np.ndarray], index: np.ndarray, score: Score, seed: int) -> tuple[float, float]:
    """Return the distance of the windows, and the largest of the replays."""
    n_columns, n_reference = int(index.max()) + 1, int(groups[0].max()) + 1
    n_groups = int(groups[1].max()) + 1
    sums = replay.totals(np.concatenate(groups), index, n_groups, n_columns)
    scores = score(*replay.of_chance(sums, n_reference, replay.shares, seed))
    return float(scores[0]), float(scores[1:].max())


def write_page(columns: Sequence[Column], found: Sequence[Drift], page: Path) -> None:
    """Write Evidently's HTML page of the judged columns, with this judgement's thresholds; its import takes seconds."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    first = {drift.column: drift for drift in reversed(found) if drift.score is not None}
    judged = [column for column in columns if column.name in first]
    page.parent.mkdir(parents=True, exist_ok=True)
    if not judged:
        page.write_text("<!doctype html><title>Drift</title><p>No column could be judged: too few rows.</p>\n")
        return
    definition = DataDefinition(
        numerical_columns=[column.name for column in judged if column.kind == "number"],
        categorical_columns=[column.name for column in judged if column.kind == "category"],
    )
    metrics = [
        ValueDrift(column=column.name, method=first[column.name].method, threshold=first[column.name].threshold)
        for column in judged
    ]
    reference = pd.concat([pd.Series(column.reference, name=column.name) for column in judged], axis=1)
    current = pd.concat([pd.Series(column.current, name=column.name) for column in judged], axis=1)
    run = Report(metrics, include_tests=True).run(
        Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)
    )
    run.save_html(str(page))
