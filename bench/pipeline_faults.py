"""One fault a run of the pipeline, and what becomes of it: green by itself, red with a sentence, or wrong data.

    python -m bench.pipeline_faults [--world FOLDER] [--seconds SECONDS] [--runs RUNS]

A platform of its own on a small world of real ratings. Each run has work to do (the receipts of a stretch of its tasks
are withdrawn) and meets one fault while a chosen task is at work, at a random moment of its usual time:

    killed task      SIGKILL to the task's own process
    killed service   SIGKILL to a service; its supervisor starts it again
    slow disk        the database's processes stand still two thirds of the time, as behind a slow disk
    full queue       two slots for all tasks of Airflow, and 5 000 events at once in the log
    corrupt file     the file of ratings is empty, cut off within its header, or holds other bytes
    clock step       the wall clock of all services and tasks jumps by a minute or ten, and back (a preloaded library)

After each run, green or red, every table must hold what an undisturbed run leaves; after a red one the fault is taken
away and the run that follows must be green with the same tables. With `--world` the platform's folder is kept, and the
outcomes in it, so that the bench can be run in slices; each slice publishes the sum of all, and the outcomes as
docs/results/pipeline_faults_runs.jsonl.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import psycopg
import requests
from kafka import KafkaProducer

from bench.own_platform import kept_addresses, platform
from bench.results import FOLDER, interval, publish
from bench.stepped_clock import Clock
from infra.local.airflow import DATABASE
from infra.local.airflow_client import FINISHED, Airflow
from infra.local.platform import definitions
from infra.local.service import poll
from infra.local.stores import with_database
from recsys.artifacts import (
    BASELINE_MODEL,
    DAG_HEALTH,
    DAG_INSIGHT,
    DAG_PIPELINE,
    DAG_PROMOTION,
    DAG_RETRAINING,
    TOPIC_INTERACTIONS,
)
from recsys.errors import RecsysError
from recsys.schemas import Interaction, event_id
from recsys.settings import Settings
from tests.end_to_end.conftest import AS_OF, Installation, write_ratings

COMMAND = "python -m bench.pipeline_faults"
WANTED, GOOD = 200, 0.99
RIGHT = {"green", "red with a sentence"}
RUNS = "pipeline_faults_runs.jsonl"
TASKS = {
    "land_raw": ("etl land", "etl.land"),
    "load_raw": ("etl load", "etl.load"),
    "check_raw": ("expectations raw", "expectations.raw"),
    "build_marts": ("recsys.task dbt.build", "dbt.build"),
    "check_marts": ("expectations marts", "expectations.marts"),
    "check_features": ("expectations features", "expectations.features"),
    "apply_features": ("recsys.task feast.apply", "feast.apply"),
    "materialize_features": ("recsys.task feast.materialize", "feast.materialize"),
    "rebuild_user_state": ("streaming rebuild", "streaming.rebuild"),
    "cut_dataset": ("training cut", "training.cut"),
    "check_drift": ("monitoring drift", "monitoring.drift"),
    "train": ("training fit", "training.fit."),
    "evaluate": ("training evaluate", "training.evaluate"),
    "register": ("training register", "training.register"),
    "promote": ("training promote", "training.promote"),
    "deploy": ("infra.local deploy", "infra.deploy"),
    "smoke_test": ("infra.local smoke", "none"),
    "precompute_lists": ("serving batch", "serving.batch"),
}
"""Task → its command, and what its receipt begins with; in about the order in which they run."""
STRETCH = 2
"""So many tasks, from the one that meets the fault on, have work to do."""
FAULTS = ("killed task", "killed service", "slow disk", "full queue", "corrupt file", "clock step")
SERVICES = (
    "postgres", "valkey", "records", "kafka", "mlflow", "airflow-scheduler", "airflow-api", "airflow-dag-processor",
    "serving", "streaming",
)  # fmt: skip
STEPS = (-600, -60, 60, 600)
FAULT_SECONDS, LONGEST_SECONDS = 12.0, 300.0
CALM = {
    "RECSYS_PROMOTION_LOOK_SECONDS": "3600", "RECSYS_RETRAINING_LOOK_SECONDS": "3600",
    "RECSYS_SCHEDULE_FROM": "2099-01-01",
    # Only the pace: what was lost is looked for every 15 s, not every 60; files do not change, and are not read again.
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "600",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
}  # fmt: skip


@contextmanager
def world(kept: Path | None) -> Iterator[tuple[Installation, Clock]]:
    with tempfile.TemporaryDirectory(prefix="rs-faults-", dir="/tmp") as scratch:
        folder = kept or Path(scratch)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711)
        if not (folder / "data").exists():
            write_ratings(folder / "data")
        clock, at = Clock(folder), kept_addresses(folder / "addresses.json")
        with platform(folder / "var", folder / "data", CALM, at) as settings:
            yield Installation(settings, dict(os.environ), folder / "data"), clock


class Run:
    """One run of the pipeline, watched in Airflow's database until it ends; Airflow may be away meanwhile."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._database = with_database(settings.postgres_url, DATABASE)
        conf = {"as_of": AS_OF, "models": [BASELINE_MODEL]}
        self.id = self._patiently(lambda airflow: airflow.trigger(DAG_PIPELINE, conf))

    def _patiently(self, ask: Callable[[Airflow], Any], seconds: float = 120) -> Any:
        began = perf_counter()
        while True:
            try:
                return ask(Airflow(self._settings))
            except (RecsysError, requests.RequestException):
                if perf_counter() - began > seconds:
                    raise
                threading.Event().wait(1)

    def watch(self, look: Callable[[dict[str, str | None]], None], longest: float = LONGEST_SECONDS) -> str:
        """Call `look` with each task's state until the run has ended; return `success`, `failed` or `did not end`."""
        began = perf_counter()
        while perf_counter() - began < longest:
            with (
                suppress(psycopg.OperationalError),
                psycopg.connect(self._database, autocommit=True, connect_timeout=10) as connection,
            ):
                while perf_counter() - began < longest:
                    (state,) = connection.execute("select state from dag_run where run_id = %s", [self.id]).fetchone()
                    if state in FINISHED:
                        return state
                    tasks = "select task_id, state from task_instance where run_id = %s"
                    look(dict(connection.execute(tasks, [self.id]).fetchall()))
                    threading.Event().wait(0.1)
            threading.Event().wait(0.5)
        self._patiently(lambda airflow: airflow.fail(DAG_PIPELINE, self.id))
        return "did not end"

    def told(self) -> tuple[dict[str, str], int, dict[str, float]]:
        """Return what the log of each failed task says last, the most tries of a task, and each task's seconds."""

        def ask(airflow: Airflow) -> tuple[dict[str, str], int, dict[str, float]]:
            tasks = airflow.tasks(DAG_PIPELINE, self.id)
            red = {one.label: airflow.sentence(DAG_PIPELINE, self.id, one) for one in tasks if one.state == "failed"}
            return red, max(one.tries for one in tasks), {one.task_id: round(one.seconds, 2) for one in tasks}

        return self._patiently(ask)


class Fault:
    """One fault, done once when its target has been at work for a while, and ended with the run."""

    def __init__(self, kind: str, target: str, delay: float, installation: Installation, clock: Clock, dice):
        self.kind, self.target, self.done = kind, target, ""
        self._delay, self._installation, self._clock, self._dice = delay, installation, clock, dice
        self._begun: float | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def look(self, tasks: dict[str, str | None]) -> None:
        if self.done or tasks.get(self.target) in {None, "scheduled", "queued"}:
            return
        if self._begun is None:
            self._begun = perf_counter()
        if perf_counter() - self._begun >= self._delay:
            self.done = self._do()

    def _do(self) -> str:
        """Do it; return what was done, nothing where it could not be."""
        if self.kind == "killed task":
            fragment = f"-m {TASKS[self.target][0]}"
            for process, command in self._installation.processes():
                if fragment in " ".join(command) and process.ppid() != 1:
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGKILL)
                        return f"{self.target} killed after {self._delay:.1f} s"
            return ""
        if self.kind == "killed service":
            name = self._dice.choice(SERVICES)
            self._installation.kill_service(name)
            return f"{name} killed during {self.target}"
        if self.kind == "full queue":
            burst(self._installation.settings)
            return f"during {self.target}"
        step = self._dice.choice(STEPS)
        work = self._stand_still if self.kind == "slow disk" else lambda: self._step(step)
        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        return f"during {self.target}" if self.kind == "slow disk" else f"{step:+d} s during {self.target}"

    def end(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _step(self, seconds: int) -> None:
        self._clock.set(seconds)
        self._over.wait(FAULT_SECONDS)
        self._clock.set(0)

    def _stand_still(self) -> None:
        began = perf_counter()
        while perf_counter() - began < FAULT_SECONDS and not self._over.is_set():
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(self._installation.services()["postgres"]["pid"])
                members = [root, *root.children(recursive=True)]
                for number, seconds in ((signal.SIGSTOP, 0.2), (signal.SIGCONT, 0.1)):
                    for member in members:
                        with suppress(psutil.NoSuchProcess):
                            member.send_signal(number)
                    threading.Event().wait(seconds)


def burst(settings: Settings, events: int = 5_000) -> None:
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap.split(","), linger_ms=20)
    at = datetime.now(UTC)
    for number in range(events):
        user, item = f"burst:{number % 50}", f"movielens:{number}"
        event = Interaction(
            event_id=event_id("burst", at.isoformat(), number), user_id=user, item_id=item, occurred_at=at,
            domain="movies", event_type="view",
        )  # fmt: skip
        producer.send(settings.topic_prefix + TOPIC_INTERACTIONS, event.model_dump_json().encode(), user.encode())
    producer.close()


def corrupted(ratings: Path, dice: random.Random) -> str:
    """Break the file of ratings; return how."""
    good = ratings.read_bytes()
    how, broken = dice.choice(
        [("empty", b""), ("cut off in its header", good[:9]), ("other bytes", dice.randbytes(len(good)))]
    )
    ratings.write_bytes(broken)
    return f"ratings.csv: {how}"


def slots(installation: Installation, count: int) -> None:
    body = {"slots": count, "include_deferred": False}
    Airflow(installation.settings)._call("PATCH", "pools/default_pool", params={"update_mask": list(body)}, json=body)


def wait_until_healthy(settings: Settings) -> None:
    for service in definitions(settings):
        if not service.is_optional:
            poll(service.check, 180)


def one_run(number: int, installation: Installation, clock: Clock, undisturbed: dict, usual: dict[str, float]) -> dict:
    dice = random.Random(number)
    kind = FAULTS[number % len(FAULTS)]
    names = list(TASKS)
    at = 0 if kind == "corrupt file" else dice.randrange(len(names))
    ratings = installation.data_dir / "ratings.csv"
    if kind != "corrupt file":  # another file is work enough
        withdrawn = ", ".join(f"'{TASKS[name][1]}%'" for name in names[at : at + STRETCH])
        installation.query_nothing(f"delete from monitoring.receipts where task like any (array[{withdrawn}])")
    delay = dice.random() * usual.get(names[at], 1.0)
    fault = Fault(kind, names[at], delay, installation, clock, dice)
    good = ratings.read_bytes()
    if kind == "corrupt file":
        fault.done = corrupted(ratings, dice)
    if kind == "full queue":
        slots(installation, 2)
    began, run = perf_counter(), Run(installation.settings)
    state = run.watch(fault.look)
    seconds = perf_counter() - began
    fault.end()
    ratings.write_bytes(good)
    if kind == "killed service":
        wait_until_healthy(installation.settings)
    red, tries, _ = run.told()
    red = {label: said.replace(str(installation.data_dir.parent), "…") for label, said in red.items()}
    changed = [name for name, digest in installation.table_digests().items() if digest != undisturbed[name]]
    told = bool(red) and all(sentence.startswith("FAILED ") for sentence in red.values())
    outcome = "wrong data" if changed else "green" if state == "success" else "red with a sentence" if told else state
    if kind == "full queue":
        slots(installation, 128)
    healed = None
    if state != "success":
        again = Run(installation.settings).watch(lambda tasks: None)
        healed = again == "success" and installation.table_digests() == undisturbed
    return {
        "number": number, "fault": kind, "done": fault.done or "came too late", "state": state, "outcome": outcome,
        "changed": changed, "tries": tries, "seconds": round(seconds, 1), "red": red, "healed": healed,
        "all_seconds": round(perf_counter() - began, 1),
    }  # fmt: skip


def first_run(installation: Installation, note: Path) -> tuple[dict, dict[str, float]]:
    """Run the pipeline undisturbed; return what its tables hold, and each task's seconds when it had work to do."""
    airflow = Airflow(installation.settings)
    airflow.wait_for_dag(DAG_PIPELINE)
    for dag_id in (DAG_INSIGHT, DAG_PROMOTION, DAG_RETRAINING, DAG_HEALTH):
        airflow._call("PATCH", f"dags/{dag_id}", json={"is_paused": True})
    run = Run(installation.settings)
    state = run.watch(lambda tasks: None, 3 * LONGEST_SECONDS)
    red, _, seconds = run.told()
    assert state == "success", red
    tables = {name: list(digest) for name, digest in installation.table_digests().items()}
    if not note.exists():
        note.write_text(json.dumps({"tables": tables, "seconds": seconds}))
    known = json.loads(note.read_text())
    assert known["tables"] == tables, "an undisturbed run left other tables than the one of the slice before"
    return installation.table_digests(), known["seconds"]


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # the platform goes down with it
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="no run begins later than this")
    parser.add_argument("--runs", type=int, default=WANTED, help="with a fault, of all slices together")
    parser.add_argument("--first", type=int, default=0, help="number of the first run: it draws the fault")
    parser.add_argument("--world", type=Path, help="folder of the platform, kept for the next slice")
    arguments = parser.parse_args()
    began, kept = perf_counter(), (arguments.world or FOLDER) / RUNS
    outcomes = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    with world(arguments.world) as (installation, clock):
        undisturbed, usual = first_run(installation, installation.data_dir.parent / "undisturbed.json")
        print(f"undisturbed after {perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        while len(counted(outcomes)) < arguments.runs and perf_counter() - began < arguments.seconds:
            number = max((one["number"] for one in outcomes), default=arguments.first - 1) + 1
            outcomes.append(one_run(number, installation, clock, undisturbed, usual))
            print(json.dumps(outcomes[-1]), file=sys.stderr, flush=True)
            with kept.open("a") as file:
                file.write(json.dumps(outcomes[-1]) + "\n")
    (FOLDER / RUNS).write_text("".join(json.dumps(one) + "\n" for one in outcomes))
    report(outcomes)


NOTES = """Each run has work to do (the receipts of two tasks are withdrawn) and meets one fault at a random moment
of a chosen task's usual time; a file is corrupt from the run's begin. What each run met is in
pipeline_faults_runs.jsonl. The world is 120 users of MovieLens; the popularity baseline is trained, and
the other DAGs are paused. Tables are compared row by row, but for who wrote them when (the model's
version, the transaction). A file that is cut off between two rows is not among the faults: it cannot be
told from a smaller one, and only `rows_kept` warns of it. Found on the way, of the bench: the
transaction's number was taken for data; Airflow's patience with its scheduler, cut to 10 s to save time,
called live tasks orphans on a busy machine. Of the platform: a killed MLflow left a child that answered
on, held the port, and let each new start fail; the runs were green, but the supervisor started it every
20 s for ever (mended before run 1048: infra/local/leftovers.py). After a clock that went ten minutes
ahead (run 1097, green) Airflow's scheduler had marked itself as failed and called itself unhealthy for
good, though it went on working; the slice ended there, its run 1099, green in Airflow, is not counted,
for its tables were not compared. Not mended: docs/runbooks/airflow_down.md says what to do. Run 2053 did
not end within the bench's 300 s: two runs before, the clock had gone ten minutes ahead, so that the
killed scheduler's last sign of life lay in the future, and Airflow would have given its two running tasks
to the new one only after that time; the run after it was green."""


def counted(outcomes: list[dict]) -> list[dict]:
    return [one for one in outcomes if one["done"] != "came too late"]


def verdict(kept: bool) -> str:
    return "met" if kept else "MISSED"


def report(outcomes: list[dict]) -> None:
    met = counted(outcomes)
    rows = []

    def row(measure: str, target: str, measured: str) -> None:
        rows.append({"measure": measure, "target": target, "measured": measured, "command": COMMAND})

    row("runs with a fault", f"≥ {WANTED}", f"{len(met)} (in {len(outcomes) - len(met)} more it came too late)")
    right = sum(one["outcome"] in RIGHT for one in met)
    row("green by themselves, or red with a sentence", f"≥ {GOOD:.0%}", interval(right, len(met)))
    row("wrong data", "0", str(sum(one["outcome"] == "wrong data" for one in outcomes)))
    red = [one for one in met if one["healed"] is not None]
    healed = sum(one["healed"] for one in red)
    told = f"{healed} of {len(red)}: {verdict(healed == len(red))}"
    row("red ones: the next run is green, with the same tables", "all", told)
    for kind in FAULTS:
        mine = [one for one in met if one["fault"] == kind]
        told = ", ".join(f"{count} {name}" for name, count in Counter(one["outcome"] for one in mine).most_common())
        right = all(one["outcome"] in RIGHT for one in mine)
        row(kind, "green, or red with a sentence", f"{len(mine)} runs: {told or 'none'}: {verdict(right)}")
    publish("pipeline_faults", "Faults in the pipeline: green, red with a sentence, never wrong data", rows, NOTES)


if __name__ == "__main__":
    main()
