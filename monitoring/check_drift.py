"""The drift check of one pipeline run: windows of the marts in, outcome rows and an HTML report out."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from recsys.artifacts import FCT_INTERACTIONS
from recsys.bundle import read_arrays, read_catalogue, read_manifest
from recsys.columns import ITEM_ID
from recsys.interval import Interval
from recsys.receipts import code_fingerprint, fingerprint, latest, recall, record
from recsys.settings import Settings
from recsys.warehouse import Outcome, connect, write_outcomes

log = logging.getLogger(__name__)

STATION, TASK, CHECK = "monitoring", "monitoring.drift", "drift"
SINCE_TRAINING = "drift_since_training"
"""Check of what came since the served model's cut, beside the histograms that were kept when it was registered."""
EMBEDDINGS = "embeddings of the used items"
VECTORS = "item_vectors"


def check_drift(settings: Settings, interval: Interval) -> dict[str, Any]:
    """Judge each watched column, the embeddings of what was used and the quality of the answers, and write what was
    found. Drift is news, not an error: the verdict is `warn`.

    An interval is judged once for each state of its marts, in the space of the model that serves at that time; the
    deployment that follows in the same run is no reason to judge it again.

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
        detail = _judge(connection, interval, settings, report)
        record(connection, TASK, interval.key, wanted, detail)
    return {"unchanged": False, **detail}


def _judge(connection: psycopg.Connection, interval: Interval, settings: Settings, report: Path) -> dict[str, Any]:
    from monitoring.concept import CONCEPT, judge_answers
    from monitoring.drift import measure, write_page
    from monitoring.tastes import judge_tastes
    from monitoring.windows import WATCHED, find_cut, read

    cut = find_cut(connection, interval)
    windows = [read(connection, watched, interval, cut, settings.seed) for watched in WATCHED]
    columns = [column for window in windows for column in window.columns()]
    drifts = measure(columns, settings.seed)
    write_page(columns, drifts, report)
    embeddings = _embeddings(connection, interval, settings, cut)
    answers = judge_answers(connection, STATION, interval, settings.seed)
    seen: set[str] = set()
    tastes = judge_tastes(connection, STATION, interval, settings.seed)
    rows = [*tastes, *answers]
    for drift in [*drifts, *embeddings]:
        # the first judgement on a column is the one that people know; a second one says how it was measured
        check = f"{CHECK}_{drift.method}" if drift.column in seen else CHECK
        seen.add(drift.column)
        rows.append(
            Outcome(
                STATION,
                interval.as_of,
                check,
                f"not judged: {drift.note}" if drift.score is None else f"{drift.score:.4f}",
                f"{drift.method} <= {drift.threshold:.4f}",
                "warn" if drift.is_drifted else "pass",
                subject=drift.column,
                detail={
                    "score": drift.score,
                    "largest_of_chance": drift.chance,
                    "cut": cut.isoformat(),
                    "reference_rows": drift.reference_rows,
                    "current_rows": drift.current_rows,
                },
            )
        )
    since = _since_training(connection, interval, settings)
    rows += [
        Outcome(
            STATION, interval.as_of, SINCE_TRAINING,
            f"not judged: {drift.note}" if drift.score is None else f"{drift.score:.4f}",
            f"{drift.method} <= {drift.threshold:.4f}", "warn" if drift.is_drifted else "pass", drift.column,
            {"score": drift.score, "largest_of_chance": drift.chance, "reference_rows": drift.reference_rows,
             "current_rows": drift.current_rows},
        )
        for drift in since
    ]  # fmt: skip
    write_outcomes(connection, rows)
    drifted = list(dict.fromkeys(drift.column for drift in [*drifts, *embeddings] if drift.is_drifted))
    log.info("%s of %s columns drifted: %s", len(drifted), len(columns), ", ".join(drifted) or "none")
    return {
        "columns": len(columns),
        "judged": len({drift.column for drift in drifts if drift.score is not None}),
        "drifted": drifted,
        "drifted_since_training": [drift.column for drift in since if drift.is_drifted],
        "concept_drifted": [row.subject for row in answers if row.check_name == CONCEPT and row.verdict == "warn"],
        "predictions_drifted": sorted(
            {row.check_name for row in answers if row.check_name != CONCEPT and row.verdict == "warn"}
        ),
        "mix_changed": {row.subject: row.detail["since"] for row in tastes if row.verdict == "warn"},
        "cut": cut.isoformat(),
        "report": str(report),
    }


def _since_training(connection: psycopg.Connection, interval: Interval, settings: Settings) -> list[Any]:
    """Return the judgements on what came since the served model's cut; nothing where nothing is served, nothing came,
    or no histograms were kept."""
    from monitoring.references import read as read_references
    from monitoring.windows import WATCHED, read_rows

    if not (settings.served_model / "manifest.json").exists():
        return []
    until, kept = read_references(connection, read_manifest(settings.served_model).cut_id)
    if until is None or until >= interval.end:
        return []
    found = []
    for watched in WATCHED:
        rows = read_rows(connection, watched, interval, until, settings.seed)
        names = [f"{watched.table}.{name}" for name in watched.kinds()]
        found += [
            kept[name].judge(rows[name.rpartition(".")[2]], rows[watched.unit], settings.seed)
            for name in names
            if name in kept
        ]
    return found


def _embeddings(connection: psycopg.Connection, interval: Interval, settings: Settings, cut: Any) -> list[Any]:
    """Return the judgement on what was used, in the served model's own space; nothing without a model that has one."""
    import numpy as np

    from monitoring.drift import measure_embeddings
    from monitoring.windows import WATCHED, read

    folder = settings.served_model
    if not (folder / f"{VECTORS}.npy").exists():
        return []
    vectors, catalogue = read_arrays(folder)[VECTORS], read_catalogue(folder)
    index = {item: number for number, item in enumerate(catalogue.item_id)}
    events = next(watched for watched in WATCHED if watched.table == FCT_INTERACTIONS)
    used = read(connection, replace(events, numbers=(), categories=(ITEM_ID,)), interval, cut, settings.seed)
    rows, units = [], []
    for window in (used.reference, used.current):
        known = np.array([index.get(item, -1) for item in window[ITEM_ID].tolist()], int)
        rows.append(vectors[known[known >= 0]].astype(float))
        units.append(window[events.unit][known >= 0])
    return [measure_embeddings(EMBEDDINGS, *rows, tuple(units), settings.seed)]
