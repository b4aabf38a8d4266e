"""Where a figure is published: docs/results/, with the machine and the date."""

import json
import platform
from datetime import UTC, datetime
from typing import Any

import psutil

from recsys.settings import HOME

FOLDER = HOME / "docs" / "results"


def machine() -> dict[str, Any]:
    """Return what the figures were measured on; nothing that names the host."""
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def publish(name: str, title: str, rows: list[dict[str, Any]], notes: str = "") -> None:
    """Write the rows (measure, target, measured, command) as JSON and as a table for people."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    day = datetime.now(UTC).date().isoformat()
    (FOLDER / f"{name}.json").write_text(json.dumps({"date": day, "machine": machine(), "rows": rows}, indent=2) + "\n")
    lines = [
        f"# {title}",
        "",
        f"Measured on {day}: {', '.join(f'{key} {value}' for key, value in machine().items())}.",
        "",
        "| measure | target | measured | command |",
        "| --- | --- | --- | --- |",
        *(f"| {row['measure']} | {row['target']} | {row['measured']} | `{row['command']}` |" for row in rows),
    ]
    (FOLDER / f"{name}.md").write_text("\n".join([*lines, *(["", notes] if notes else [])]) + "\n")
