"""Faults under load: what users see while a service is killed, frozen or slow, and whether an event is lost.

    python -m bench.chaos [seconds of each fault]

Writes docs/results/chaos.md. The platform's own services run as processes (bench/live_world.py); lists are asked for at
an open loop's instants (bench/load_generator.py), clicks go into the log, and each fault is done to a service in the
middle of a stretch of load:

    kill      SIGKILL to the process and its group, half the stretch down, then started again
    freeze    SIGSTOP, then SIGCONT: connections are taken and never answered, as by a black hole
    slow      stopped and continued in turns of 50 ms: everything is answered, late

A list that is not personalised is an answer; a 5xx, a lost connection or a missing answer is a failure.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import psutil
import psycopg
import redis
from kafka import KafkaProducer

from bench.live_world import consumer, event, names, platform, running, write_past
from bench.load_generator import Plan
from bench.results import publish
from bench.serving_world import ML_1M_ITEMS, write_model
from infra.local import applications
from recsys import user_state
from recsys.artifacts import TOPIC_INTERACTIONS
from recsys.settings import HOME, Settings
from streaming.rebuild import rebuild_all
from tests.conftest import Services, start
from tests.streaming.log import eventually, uncommitted

USERS, REQUESTS_A_SECOND, EVENTS_A_SECOND, CONNECTIONS = 2000, 300, 200, 64
FAULT_SECONDS, TURN_SECONDS = 20.0, 0.05
COMMAND = "python -m bench.chaos"


class Clicks(threading.Thread):
    """Sends clicks into the log at a steady rate and keeps the numbers of those that the log has acknowledged."""

    def __init__(self, settings: Settings):
        super().__init__(daemon=True)
        self._settings = settings
        self.acknowledged: set[int] = set()
        self.refused: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        chance, items = np.random.default_rng(21), names(ML_1M_ITEMS)
        log = KafkaProducer(
            bootstrap_servers=self._settings.kafka_bootstrap, acks="all", enable_idempotence=True, linger_ms=5,
            delivery_timeout_ms=300_000, max_block_ms=120_000, reconnect_backoff_max_ms=1000,
        )  # fmt: skip
        started, sent = perf_counter(), 0
        while not self.stopping.wait(0.01):
            due = int((perf_counter() - started) * EVENTS_A_SECOND)
            for number in range(sent, due):
                user = f"live:{chance.integers(USERS)}"
                body = event(number, user, items[chance.integers(ML_1M_ITEMS)], datetime.now(UTC), "chaos")
                future = log.send(self._settings.topic_prefix + TOPIC_INTERACTIONS, key=user.encode(), value=body)
                future.add_callback(lambda _, number=number: self.acknowledged.add(number))
                future.add_errback(lambda error: self.refused.append(repr(error)))
            sent = due
        log.flush(timeout=300)
        log.close()


@dataclass(frozen=True)
class Fault:
    """What is done to which service."""

    service: str
    kind: str


FAULTS = [Fault(name, kind) for name in ("redis", "kafka", "postgres") for kind in ("kill", "freeze", "slow")]
FAULTS += [Fault("mlflow", "kill"), Fault("streaming", "kill")]


def members(process: subprocess.Popen) -> list[psutil.Process]:
    """Return a service's process and its children."""
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def tell(process: subprocess.Popen, number: int) -> None:
    for member in members(process):
        with suppress(psutil.NoSuchProcess):
            member.send_signal(number)


def do(fault: Fault, process: subprocess.Popen, again: Callable[[], None], seconds: float) -> None:
    """Do a fault for so long; the service is well again when this returns."""
    over = threading.Event()
    if fault.kind == "kill":
        tell(process, signal.SIGKILL)
        process.wait()
        over.wait(seconds)
        again()
        return
    end = perf_counter() + seconds
    turn = TURN_SECONDS if fault.kind == "slow" else seconds
    while perf_counter() < end:
        tell(process, signal.SIGSTOP)
        over.wait(turn)
        tell(process, signal.SIGCONT)
        over.wait(TURN_SECONDS)


def load(settings: Settings, seconds: float) -> subprocess.Popen:
    """Start the generator of requests for lists."""
    port = int(settings.serving_url.rpartition(":")[2])
    requests = [("GET", f"/v1/users/live:{number}/recommendations?k=10", "") for number in range(USERS)]
    plan = Plan(
        host="127.0.0.1", port=port, requests=requests, expected='"rung":"personalised"', connections=CONNECTIONS,
        seconds=seconds, rate=REQUESTS_A_SECOND,
    )  # fmt: skip
    generator = subprocess.Popen(
        [sys.executable, "-m", "bench.load_generator"], cwd=HOME, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    generator.stdin.write(plan.model_dump_json())
    generator.stdin.close()
    generator.stdin = None
    return generator


def stretch(settings: Settings, seconds: float, during: Callable[[], None] | None) -> dict[str, Any]:
    """Return the generator's report of a stretch of load, in whose second quarter a fault begins."""
    generator = load(settings, seconds)
    if during is not None:
        threading.Event().wait(seconds / 4)
        during()
    said, _ = generator.communicate()
    if generator.returncode:
        return {"failed": "the generator lost its connection to serving", "statuses": {}, "lost": -1}
    return json.loads(said)


def failures(report: dict[str, Any]) -> int:
    return report["lost"] + sum(count for status, count in report["statuses"].items() if int(status) >= 500)


def survey(settings: Settings, clicks: Clicks) -> dict[str, int]:
    """Wait until the consumer has caught up; return what became of the acknowledged events."""
    eventually(lambda: uncommitted(settings) == 0, seconds=300)
    with psycopg.connect(settings.postgres_url) as connection:
        rows = connection.execute(
            "select event_id, user_id, item_id from raw.interactions_stream where event_id like 'chaos-%'"
        ).fetchall()
    landed = {int(event_id.rpartition("-")[2]) for event_id, _, _ in rows}
    with redis.Redis.from_url(settings.redis_url) as client, client.pipeline(transaction=False) as pipeline:
        for _, user_id, item_id in rows:
            pipeline.zscore(user_state.history_key(user_id), item_id)
        missing = sum(score is None for score in pipeline.execute())
    return {
        "acknowledged": len(clicks.acknowledged),
        "lost": len(clicks.acknowledged - landed),
        "twice": len(rows) - len(landed),
        "not in the user's state": missing,
        "refused by the log": len(clicks.refused),
    }


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else FAULT_SECONDS
    table: list[dict[str, str]] = []

    def row(measure: str, target: str, measured: str) -> None:
        table.append({"measure": measure, "target": target, "measured": measured, "command": f"{COMMAND} {seconds:g}"})
        print(measure, measured, file=sys.stderr, flush=True)

    with platform("mlflow") as (settings, services):
        write_model(settings.served_model, ML_1M_ITEMS)
        write_past(settings, USERS, ML_1M_ITEMS)
        with redis.Redis.from_url(settings.redis_url) as client:
            rebuild_all(settings, client)
        with running(settings, consumer(settings), applications.serving(settings)) as processes:
            eventually(lambda: httpx.get(f"{settings.serving_url}/readyz").status_code == 200)
            clicks = Clicks(settings)
            clicks.start()
            began = perf_counter()
            tell_stretch(row, "no fault", stretch(settings, seconds, None))
            memory = resident(processes)
            for fault in FAULTS:
                stretch_with(settings, services, processes, fault, seconds, row)
            tell_stretch(row, "no fault, afterwards", stretch(settings, seconds, None))
            lasted = perf_counter() - began
            clicks.stopping.set()
            clicks.join(320)
            for what, count in survey(settings, clicks).items():
                row(f"events {what}", "none" if what in ("acknowledged", "refused by the log") else "0", f"{count:,}")
            for name, before in memory.items():
                row(f"resident memory of {name}", "flat", f"{before:.0f} MiB, then {resident(processes)[name]:.0f} MiB")
            row("duration", "30 min", f"{lasted / 60:.1f} min")
    publish("chaos", "Faults under load", table, notes())


def stretch_with(
    settings: Settings,
    services: Services,
    processes: dict[str, subprocess.Popen],
    fault: Fault,
    seconds: float,
    row: Callable[[str, str, str], None],
) -> None:
    """Measure one stretch with a fault in it."""
    is_ours = fault.service in processes
    process = processes[fault.service] if is_ours else services.process(fault.service)

    def again() -> None:
        if is_ours:
            processes[fault.service] = start(consumer(settings), settings.var_dir / "streaming.log")
        else:
            services.restart(fault.service)

    report = stretch(settings, seconds, lambda: do(fault, process, again, seconds / 3))
    tell_stretch(row, f"{fault.service}: {fault.kind}", report)


def tell_stretch(row: Callable[[str, str, str], None], name: str, report: dict[str, Any]) -> None:
    if "failed" in report:
        row(f"{name}: lists", "0 failures", report["failed"])
        return
    said = f"{failures(report)} failures of {report['answers']}, {report['wrong']} not personalised"
    row(f"{name}: lists", "0 failures", said)
    said = f"{report['p50_ms']:.1f}, {report['p99_ms']:.1f}, {report['max_ms']:.0f} ms"
    row(f"{name}: p50, p99, worst", "p99 ≤ 100 ms", said)


def resident(processes: dict[str, subprocess.Popen]) -> dict[str, float]:
    return {name: sum(one.memory_info().rss for one in members(process)) / 2**20 for name, process in processes.items()}


def notes() -> str:
    return (
        f"{REQUESTS_A_SECOND} lists (open loop) and {EVENTS_A_SECOND} clicks into the log a second.\n"
        "Load and all services share this machine; a fault lasts a third of its stretch. A killed PostgreSQL recovers\n"
        "from its log, a killed Valkey from its append-only file: what that lacks, `rebuild` brings back. Not done\n"
        f"here: a full disk, and the loss of serving itself. Load average at the end: {os.getloadavg()[1]:.1f}."
    )


if __name__ == "__main__":
    main()
