"""The drift check of one pipeline run: windows of the marts in, outcome rows and an HTML report out."""

import logging
from pathlib import Path
from typing import Any

import psycopg

from recsys.interval import Interval
from recsys.receipts import code_fingerprint, fingerprint, latest, recall, record
from recsys.settings import Settings
from recsys.warehouse import Outcome, connect, write_outcomes

log = logging.getLogger(__name__)

STATION, TASK, CHECK = "monitoring", "monitoring.drift", "drift"


def check_drift(settings: Settings, interval: Interval) -> dict[str, Any]:
    """Judge each watched column and write what was found. Drift is news, not an error: the verdict is `warn`.

    Raises:
        CheckFailed: there are no events.
        MissingArtifact: the marts of this interval were not built.
    """
    report = settings.var_dir / "reports" / f"drift-{interval.as_of}.html"
    with connect(settings) as connection:
        wanted = fingerprint(
            code_fingerprint(STATION, "recsys"), latest(connection, "dbt.build", interval.key)[0], settings.seed
        )
        done = recall(connection, TASK, interval.key, wanted)
        if done is not None and report.exists():
            return {"unchanged": True, **done}
        detail = _judge(connection, interval, settings.seed, report)
        record(connection, TASK, interval.key, wanted, detail)
    return {"unchanged": False, **detail}


def _judge(connection: psycopg.Connection, interval: Interval, seed: int, report: Path) -> dict[str, Any]:
    import pandas as pd

    from monitoring.drift import Kind, measure  # Evidently: seconds
    from monitoring.windows import WATCHED, find_cut, read

    cut = find_cut(connection, interval)
    windows = [read(connection, watched, interval, cut, seed) for watched in WATCHED]
    kinds: dict[str, Kind] = {}
    for watched in WATCHED:
        kinds |= {f"{watched.table}.{name}": "number" for name in watched.numbers}
        kinds |= {f"{watched.table}.{name}": "category" for name in watched.categories}
    drifts = measure(
        pd.concat([window.reference for window in windows], axis=1),
        pd.concat([window.current for window in windows], axis=1),
        kinds,
        report,
    )
    write_outcomes(
        connection,
        [
            Outcome(
                STATION,
                interval.as_of,
                CHECK,
                "not judged: too few rows" if drift.score is None else f"{drift.score:.4f}",
                f"{drift.method} < {drift.threshold}",
                "warn" if drift.is_drifted else "pass",
                subject=drift.column,
                detail={
                    "score": drift.score,
                    "cut": cut.isoformat(),
                    "reference_rows": drift.reference_rows,
                    "current_rows": drift.current_rows,
                },
            )
            for drift in drifts
        ],
    )
    drifted = [drift.column for drift in drifts if drift.is_drifted]
    log.info("%s of %s columns drifted: %s", len(drifted), len(drifts), ", ".join(drifted) or "none")
    return {
        "columns": len(drifts),
        "judged": sum(drift.score is not None for drift in drifts),
        "drifted": drifted,
        "cut": cut.isoformat(),
        "report": str(report),
    }
