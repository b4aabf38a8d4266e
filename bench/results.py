"""Where a figure is published: docs/results/, with the machine and the date."""

import json
import platform
import statistics
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import psutil
from scipy import stats

from bench.report import index
from recsys.settings import HOME

FOLDER = HOME / "docs" / "results"


def yardstick() -> float:
    """Return the seconds that ten million additions in Python take, the median of three: on a shared machine the same
    work takes more than twice as long in one hour as in another."""
    taken = []
    for _ in range(3):
        started, total = perf_counter(), 0
        for number in range(10_000_000):
            total += number
        taken.append(perf_counter() - started)
    return statistics.median(taken)


def interval(found: int, of: int) -> str:
    """Return a share in words, with its 95 % interval (Wilson)."""
    bounds = stats.binomtest(found, of).proportion_ci(method="wilson")
    return f"{found / of:.2%} of {of} [{bounds.low:.2%}, {bounds.high:.2%}]"


def machine() -> dict[str, Any]:
    """Return what the figures were measured on; nothing that names the host."""
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "seconds for ten million additions": round(yardstick(), 2),
    }


def publish(
    name: str, title: str, rows: list[dict[str, Any]], notes: str = "", details: dict[str, Any] | None = None
) -> None:
    """Write the rows (measure, target, measured, command) as JSON and as a table for people; then the index anew.
    Details, which are for machines, stand in the JSON alone."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    document = {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "rows": rows}
    document |= {"details": details} if details else {}
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    (FOLDER / f"{name}.md").write_text(page(title, document, notes))
    index.write(FOLDER)


def page(title: str, document: dict[str, Any], notes: str = "") -> str:
    """Return what was measured as a table for people."""
    measured_on = ", ".join(f"{key} {value}" for key, value in document["machine"].items())
    lines = [
        f"# {title}",
        "",
        f"Measured on {document['date']}: {measured_on}.",
        "",
        "| measure | target | measured | command |",
        "| --- | --- | --- | --- |",
        *(
            f"| {row['measure']} | {row['target']} | {row['measured']} | `{row['command']}` |"
            for row in document["rows"]
        ),
    ]
    return "\n".join([*lines, *(["", notes] if notes else [])]) + "\n"
