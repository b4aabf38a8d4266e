"""What was measured: docs/results/*.json, each row with the verdict that it states itself."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Verdict = Literal["met", "missed", "told"]


@dataclass(frozen=True)
class Row:
    """One measure. `verdict` is `told` where the script that measured it states none."""

    measure: str
    target: str
    measured: str
    command: str
    verdict: Verdict


@dataclass(frozen=True)
class Result:
    """One published table."""

    name: str
    title: str
    date: str
    machine: str
    rows: tuple[Row, ...]
    notes: str

    def count(self, verdict: Verdict) -> int:
        return sum(row.verdict == verdict for row in self.rows)


@dataclass(frozen=True)
class Trained:
    """One model on one public split, read out of a row of `models`. Published values are None where none is named."""

    split: str
    model: str
    metric: str
    value: float
    published: float | None
    cpu_seconds: float
    fit_seconds: float
    memory_gib: float
    verdict: Verdict
    framework: str = ""
    answer_p50_ms: float | None = None
    answer_p99_ms: float | None = None
    size_mib: float | None = None


def read(folder: Path) -> list[Result]:
    """Return every result of the folder by its name; a page of another shape (the clouds') speaks for itself.

    Raises:
        ValueError: there is none.
    """
    found = [_result(path) for path in sorted(folder.glob("*.json")) if "rows" in json.loads(path.read_text())]
    if not found:
        raise ValueError(f"no results in {folder}")
    return found


def _result(path: Path) -> Result:
    told = json.loads(path.read_text())
    page = path.with_suffix(".md").read_text()
    after_table = page.rsplit("\n| ", 1)[-1].split("\n", 1)
    return Result(
        name=path.stem,
        title=page.splitlines()[0].removeprefix("# "),
        date=told["date"],
        machine=", ".join(f"{name} {value}" for name, value in told["machine"].items()),
        rows=tuple(
            Row(*(str(row[name]) for name in ("measure", "target", "measured", "command")), verdict=verdict(row))
            for row in told["rows"]
        ),
        notes=after_table[1].strip() if len(after_table) > 1 else "",
    )


def verdict(row: dict) -> Verdict:
    """Return the verdict that a row states itself; a bare target is not judged here a second time."""
    text = f"{row['target']} {row['measured']}"
    if re.search(r"\bMISSED\b|\bmissed\b(?!,)(?! ?%)", text) and not re.search(r"% missed", text):
        return "missed"
    return "met" if re.search(r"\bmet\b", text) else "told"


ROW_OF_MODELS = re.compile(r"(?P<cpu>[\d.]+) CPU s \(fit (?P<fit>[\d.]+)\), (?P<memory>[\d.]+) GiB")

ANSWER = re.compile(
    r"an answer p50 (?P<p50>[\d.]+) ms, p99 (?P<p99>[\d.]+) ms, (?P<size>[\d.]+) MiB, (?P<framework>\w+)"
)


def trained(models: Result) -> list[Trained]:
    """Return the rows of `models` as numbers, each by the first metric that its target names."""
    found = []
    for row in models.rows:
        answer = ANSWER.search(row.measured)
        more = (answer["framework"], *(float(answer[name]) for name in ("p50", "p99", "size"))) if answer else ()
        cost, metric = ROW_OF_MODELS.search(row.measured), re.match(r"([\w@]+) ([\d.]+)", row.target)
        if not cost or not metric:
            continue
        value = re.search(rf"{re.escape(metric[1])} ([\d.]+)", row.measured)
        split, _, model = row.measure.partition(": ")
        if value:
            found.append(
                Trained(split, model, metric[1], float(value[1]), float(metric[2]), float(cost["cpu"]),
                        float(cost["fit"]), float(cost["memory"]), row.verdict, *more)
            )  # fmt: skip
    return found


LATENCY = re.compile(r"p50 ([\d.]+) ms.*?p99 ([\d.]+) ms")


def latencies(serving: Result) -> list[tuple[str, float, float]]:
    """Return measure, median and 99th percentile in milliseconds of the rows that state both."""
    return [
        (row.measure, float(found[1]), float(found[2]))
        for row in serving.rows
        if (found := LATENCY.search(row.measured))
    ]


CURVE = re.compile(r"ndcg@10 ([\d.]+) .*?diversity ([\d.]+)")


def curves(diversity: Result) -> list[tuple[str, float, float, float]]:
    """Return method, trade-off, ndcg@10 and diversity of the re-ranked lists."""
    found = []
    for row in diversity.rows:
        method, separator, trade_off = row.measure.partition(", trade-off ")
        if separator and (values := CURVE.search(row.measured)):
            found.append((method, float(trade_off), float(values[1]), float(values[2])))
    return found
