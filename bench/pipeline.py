"""How long the warm pipeline takes on a data set, how much of it is Airflow, and how much memory the platform needs.

    make up
    python -m bench.pipeline DATA_DIR --runs 3

Each run takes a data cut of its own (a later as-of day), so that every task works; one more run repeats the last cut.
`DATA_DIR` holds files in an official format, for MovieLens 1M written by `bench.prepare_ml1m`.
"""

import argparse
import statistics
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

from bench.memory import MemorySampler
from bench.results import publish
from infra.local.airflow_client import Airflow
from infra.local.platform import configure, platform_pids
from recsys import artifacts
from recsys.settings import load_settings
from recsys.warehouse import connect

POLL_SECONDS = 2.0
"""So much too long a run may seem; asking the API server more often would slow the run itself."""


TIMELESS = {"apply_features"}
"""Tasks that one cut does for all."""


def run_once(airflow: Airflow, as_of: str) -> tuple[float, list[tuple[str, float, float, float]], set[str]]:
    """Run the pipeline; return its seconds, per task its name, Airflow's seconds, the command's own and its processor
    seconds, and the tasks that had nothing to do."""
    started = perf_counter()
    run_id = airflow.trigger(artifacts.DAG_PIPELINE, {"as_of": as_of})
    state = airflow.watch(artifacts.DAG_PIPELINE, run_id, lambda tasks: None, every=POLL_SECONDS)
    seconds = perf_counter() - started
    tasks = airflow.tasks(artifacts.DAG_PIPELINE, run_id)
    assert state == "success", [(task.label, task.state) for task in tasks]
    measured, idle = [], set()
    for task in tasks:
        result = airflow.result(artifacts.DAG_PIPELINE, run_id, task)
        if isinstance(result, dict) and "command_seconds" in result:
            own = (result["command_seconds"], result["command_cpu_seconds"])
            measured.append((task.label, task.seconds, *own))
            if result["unchanged"]:
                idle.add(task.label)
    return seconds, measured, idle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--days-ago", type=int, default=30, help="as-of day of the first run; no run may have had it")
    arguments = parser.parse_args()
    settings = load_settings()
    configure(settings, data_dir=arguments.data_dir)
    airflow = Airflow(settings)
    airflow.wait_for_dag(artifacts.DAG_PIPELINE)

    today = datetime.now(UTC).date()
    full, tasks = [], []
    with MemorySampler(lambda: platform_pids(settings)) as memory:
        for number in range(arguments.runs):
            as_of = (
                today - timedelta(days=arguments.days_ago - number)
            ).isoformat()  # a champion never knows later data
            seconds, measured, idle = run_once(airflow, as_of)
            assert idle <= TIMELESS, f"{idle} had been done for {as_of} before: choose other --days-ago"
            full.append(seconds)
            tasks.extend(measured)
    again, _, _ = run_once(airflow, as_of)
    with connect(settings) as connection:
        (rows,) = connection.execute(f"select count(*) from {artifacts.FCT_INTERACTIONS}").fetchone()
        values = dict(
            connection.execute(
                "select model, value from monitoring.model_evaluations where as_of = %s and metric = 'ndcg_at_10'",
                (as_of,),
            ).fetchall()
        )
    overhead = sorted(airflow_seconds - own for _, airflow_seconds, own, _ in tasks)
    best = max(values, key=values.get)
    command = "python -m bench.pipeline DATA_DIR"
    per_task: dict[str, list[tuple[float, float]]] = {}
    for label, _, own, processor in tasks:
        per_task.setdefault(label, []).append((own, processor))
    medians = {label: tuple(map(statistics.median, zip(*taken, strict=True))) for label, taken in per_task.items()}
    publish(
        "pipeline",
        f"The warm pipeline on {rows:,} interactions",
        [
            {"measure": f"pipeline, warm, median of {len(full)} (lowest to highest)", "target": "≤ 240 s",
             "measured": f"{statistics.median(full):.0f} s ({min(full):.0f} to {max(full):.0f})", "command": command},
            {"measure": "pipeline again, no new data", "target": "≤ 45 s", "measured": f"{again:.1f} s",
             "command": command},
            {"measure": "peak memory of the platform and its tasks, PSS (RSS)", "target": "≤ 8 GiB",
             "measured": f"{memory.peak_pss / 2**30:.2f} GiB ({memory.peak_rss / 2**30:.2f} GiB)", "command": command},
            {"measure": f"Airflow's overhead per task ({len(overhead)} tasks): median, p95", "target": "reported",
             "measured": f"{statistics.median(overhead):.2f} s, {overhead[int(len(overhead) * 0.95)]:.2f} s",
             "command": command},
            {"measure": f"ndcg@10 of the best model ({best}) over popularity", "target": "≥ 1.5 ×",
             "measured": f"{values[best] / values[artifacts.BASELINE_MODEL]:.2f} × "
                         f"({values[best]:.4f} / {values[artifacts.BASELINE_MODEL]:.4f})", "command": command},
        ],
        "Median seconds of each task's own command (processor seconds): "
        + ", ".join(f"{label} {own:.1f} ({processor:.1f})" for label, (own, processor) in medians.items()) + ".",
    )  # fmt: skip


if __name__ == "__main__":
    main()
