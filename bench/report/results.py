"""What was measured: docs/results/*.json, each row with its verdict."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Verdict = Literal["met", "missed", "told"]
NO_TARGET = {"", "none", "reported", "said", "told beside it", "the peer"}


@dataclass(frozen=True)
class Row:
    """One measure. `verdict` is `told` where none is stated and none follows from the target."""

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


NUMBER = r"(?:(?:\d{1,3}(?:[, ]\d{3})+|\d+)(?:\.\d+)?|\.\d+)"
BOUND = re.compile(
    rf"(?:(?P<name>[\w@ ]+) )?(?P<sign>≤|≥|<|>) ?(?P<bound>{NUMBER}) ?(?P<unit>%|×|[a-zA-Z]\w*)?(?!\w).*"
)
SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0}


def verdict(row: dict) -> Verdict:
    """Return the verdict that a row states itself, else the one that follows from a target of plain bounds.

    A bound is a sign and a number, with a name before it or a unit behind it (`p99 ≤ 100 ms`), or a bare `0`; clauses
    follow one another after a comma or a semicolon, and what begins with `beyond` is a wish. A target that holds
    anything else, or whose figure is not found in what was measured, is not judged: `told`.
    """
    text = f"{row['target']} {row['measured']}"
    if re.search(r"\bMISSED\b|\bmissed\b(?!,)(?! ?%)", text) and not re.search(r"% missed", text):
        return "missed"
    if re.search(r"\bmet\b", text):
        return "met"
    clauses = [clause for clause in re.split(r"[,;] (?=\D)", row["target"]) if not clause.startswith("beyond")]
    kept = [_keeps(clause, row["measured"]) for clause in clauses]
    if not kept or None in kept:
        return "told"
    return "met" if all(kept) else "missed"


def _keeps(clause: str, measured: str) -> bool | None:
    """Return whether what was measured keeps one bound, None where that cannot be read with certainty."""
    if none := re.fullmatch(r"0(?: \w+)?", clause):
        found = re.match(rf"({NUMBER}){re.escape(none[0][1:])}(?![\w.,])", measured)
        return float(found[1].replace(",", "")) == 0 if found else None
    bound = BOUND.fullmatch(clause)
    if not bound:
        return None
    before = rf"(?:^|[\s;,]){re.escape(bound['name'])} " if bound["name"] else ""
    units = "|".join(SECONDS) if bound["unit"] in SECONDS else re.escape(bound["unit"] or "")
    where = re.search if before or units else re.match
    found = where(rf"{before}({NUMBER}) ?({units})(?![\w.,]*\w)", measured)
    if not found:
        return None
    value, limit = (
        float(re.sub("[, ]", "", number)) * SECONDS.get(unit, 1)
        for number, unit in ((found[1], found[2]), (bound["bound"], bound["unit"]))
    )
    return {"≤": value <= limit, "≥": value >= limit, "<": value < limit, ">": value > limit}[bound["sign"]]


ROW_OF_MODELS = re.compile(r"(?P<cpu>[\d.]+) CPU s \(fit (?P<fit>[\d.]+)\), (?P<memory>[\d.]+) GiB")

ANSWER = re.compile(
    r"an answer p50 (?P<p50>[\d.]+) ms, p99 (?P<p99>[\d.]+) ms, (?P<size>[\d.]+) MiB, (?P<framework>\w+)"
)


BY_DEFAULT = ("recall@20", "hit_rate@10")
"""Metrics of a split whose rows have no published figure to reach, the first that was measured."""
NAMED = re.compile(r"([\w@]+) ([\d.]+)")


def trained(models: Result) -> list[Trained]:
    """Return the rows of `models` as numbers, each by the first metric that its target names, else by that of its
    split's other rows."""
    named = {row.measure.partition(": ")[0]: found[1] for row in models.rows if (found := NAMED.match(row.target))}
    found = []
    for row in models.rows:
        split, _, model = row.measure.partition(": ")
        target, cost, answer = (
            NAMED.match(row.target), ROW_OF_MODELS.search(row.measured), ANSWER.search(row.measured)
        )  # fmt: skip
        values = dict(NAMED.findall(row.measured.partition(";")[0]))
        metric = next((one for one in (target and target[1], named.get(split), *BY_DEFAULT) if one in values), None)
        if not cost or not metric:
            continue
        more = (answer["framework"], *(float(answer[name]) for name in ("p50", "p99", "size"))) if answer else ()
        published = float(target[2]) if target else None
        found.append(
            Trained(split, model, metric, float(values[metric]), published, float(cost["cpu"]), float(cost["fit"]),
                    float(cost["memory"]), row.verdict, *more)
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
