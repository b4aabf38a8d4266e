"""Data drift between two windows, as sizes of an effect and not as p-values: on many rows every difference is
significant, and only a large one is news.

numbers      Wasserstein distance in standard deviations of the reference (Evidently `wasserstein`)
categories   population stability index (Evidently `psi`)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift

NUMBER_METHOD, CATEGORY_METHOD = "wasserstein", "psi"
NUMBER_THRESHOLD = 0.1
"""A shift of the mean by a tenth of a standard deviation."""
CATEGORY_THRESHOLD = 0.03
"""A mix that moves from 50:50 to 60:40 has .041, to 58:42 has .026."""
MIN_ROWS = 500
"""Below so many values in a window, the distance between two samples of one distribution comes near the thresholds."""

Kind = Literal["number", "category"]


@dataclass(frozen=True)
class Drift:
    """The judgement on one column."""

    column: str
    method: str
    threshold: float
    reference_rows: int
    current_rows: int
    score: float | None
    """None where a window has fewer than `MIN_ROWS` values: not judged."""

    @property
    def is_drifted(self) -> bool:
        return self.score is not None and self.score >= self.threshold


def measure(
    reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, Kind], report: Path | None = None
) -> list[Drift]:
    """Return the drift of each column, in the order of `kinds`; nulls are left out.

    Args:
        reference: the earlier window, with the columns of `kinds`; rows need not belong together.
        current: the later window, likewise.
        kinds: column → what it holds.
        report: where to write Evidently's HTML page of the judged columns, if anywhere.
    """
    counts = {name: (int(reference[name].count()), int(current[name].count())) for name in kinds}
    judged = [name for name in kinds if min(counts[name]) >= MIN_ROWS]
    scores = _scores(reference[judged], current[judged], {name: kinds[name] for name in judged}, report)
    return [Drift(name, *_method(kind), *counts[name], scores.get(name)) for name, kind in kinds.items()]


def _method(kind: Kind) -> tuple[str, float]:
    return (NUMBER_METHOD, NUMBER_THRESHOLD) if kind == "number" else (CATEGORY_METHOD, CATEGORY_THRESHOLD)


def _scores(
    reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, Kind], report: Path | None
) -> dict[str, float]:
    if not kinds:
        return {}
    definition = DataDefinition(
        numerical_columns=[name for name, kind in kinds.items() if kind == "number"],
        categorical_columns=[name for name, kind in kinds.items() if kind == "category"],
    )
    metrics = []
    for name, kind in kinds.items():
        method, threshold = _method(kind)
        metrics.append(ValueDrift(column=name, method=method, threshold=threshold))
    run = Report(metrics, include_tests=True).run(
        Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)
    )
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        run.save_html(str(report))
    results = run.dict()["metrics"]
    return {name: float(result["value"]) for name, result in zip(kinds, results, strict=True)}
