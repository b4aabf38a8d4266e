"""Faults under load: what users see while a service is killed, frozen, slow, unreachable or without a byte of disk, and
whether an event is lost.

    python -m bench.chaos [--seconds 20] [--rounds 1] [--minutes M]

Writes docs/results/chaos.md. The platform's own services run as processes (bench/live_world.py); lists are asked for at
an open loop's instants (bench/load_generator.py), clicks go into the log, and each fault (bench/faults.py) is done to a
service in the middle of a stretch of load, `--rounds` times. `--minutes` chooses the length of a stretch such that all
together last so long: `--minutes 30 --rounds 2` is the soak.

Two serving processes share a port. A list that is not personalised is an answer, and a request whose connection was
lost is sent again, as a client would, its time counted on; a 5xx or a missing answer is a failure. Needs root.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import psycopg
import redis
from kafka import KafkaProducer

from bench.faults import FAULTS, FOLDERS, Fault, Target, disks, do, members
from bench.live_world import consumer, event, names, platform, running, write_past
from bench.load_generator import Plan
from bench.results import publish
from bench.serving_world import ML_1M_ITEMS, write_model
from infra.local import applications, broker, stores
from infra.local.service import Service
from recsys import user_state
from recsys.artifacts import TOPIC_INTERACTIONS
from recsys.settings import HOME, Settings
from streaming.rebuild import rebuild_all
from tests.conftest import Services, start
from tests.streaming.log import eventually, uncommitted

USERS, REQUESTS_A_SECOND, EVENTS_A_SECOND, CONNECTIONS = 2000, 300, 200, 64
STRETCH_SECONDS = 20.0
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


def load(settings: Settings, seconds: float) -> subprocess.Popen:
    """Start the generator of requests for lists."""
    port = int(settings.serving_url.rpartition(":")[2])
    requests = [("GET", f"/v1/users/live:{number}/recommendations?k=10", "") for number in range(USERS)]
    plan = Plan(
        host="127.0.0.1", port=port, requests=requests, expected='"rung":"personalised"', connections=CONNECTIONS,
        seconds=seconds, rate=REQUESTS_A_SECOND, retries=True,
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
    given = arguments()
    stretches = given.rounds * (len(FAULTS) + 1) + 1
    seconds = given.minutes * 60 / stretches if given.minutes else given.seconds
    command = f"{COMMAND} {' '.join(sys.argv[1:])}".strip()
    table: list[dict[str, str]] = []

    def row(measure: str, target: str, measured: str) -> None:
        table.append({"measure": measure, "target": target, "measured": measured, "command": command})
        print(measure, measured, file=sys.stderr, flush=True)

    with platform("mlflow", on=disks) as (settings, services):
        write_model(settings.served_model, ML_1M_ITEMS)
        write_past(settings, USERS, ML_1M_ITEMS)
        with redis.Redis.from_url(settings.redis_url) as client:
            rebuild_all(settings, client)
        with running(settings, consumer(settings), *servings(settings)) as processes:
            eventually(lambda: httpx.get(f"{settings.serving_url}/readyz").status_code == 200)
            clicks = Clicks(settings)
            clicks.start()
            began = perf_counter()
            memory: list[dict[str, float]] = []
            for number in range(1, given.rounds + 1):
                tell_stretch(row, f"no fault, round {number}", stretch(settings, seconds, None))
                memory.append(resident(processes))
                for fault in FAULTS:
                    target = target_of(settings, services, processes, fault)
                    report = stretch(settings, seconds, partial(do, fault, target, seconds / 3))
                    tell_stretch(row, f"{fault.service}: {fault.kind}, round {number}", report)
                    memory.append(resident(processes))
            tell_stretch(row, "no fault, afterwards", stretch(settings, seconds, None))
            memory.append(resident(processes))
            lasted = perf_counter() - began
            clicks.stopping.set()
            clicks.join(320)
            for what, count in survey(settings, clicks).items():
                row(f"events {what}", "none" if what in ("acknowledged", "refused by the log") else "0", f"{count:,}")
            for name in memory[0]:
                told = ", ".join(f"{one.get(name, 0):.0f}" for one in memory)
                row(f"resident memory of {name} after each stretch, MiB", "flat", told)
            row("duration", "30 min", f"{lasted / 60:.1f} min")
    publish("chaos", "Faults under load", table, notes())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=STRETCH_SECONDS, help="length of a stretch")
    parser.add_argument("--rounds", type=int, default=1, help="how often each fault is done")
    parser.add_argument("--minutes", type=float, default=None, help="length of all stretches together")
    return parser.parse_args()


def servings(settings: Settings) -> list[Service]:
    """Return two processes that answer at one address."""
    one = applications.serving(settings)
    command = (*one.command, "serve", "--share-port")
    return [replace(one, name=name, command=command) for name in ("serving", "serving 2")]


def target_of(settings: Settings, services: Services, processes: dict[str, subprocess.Popen], fault: Fault) -> Target:
    """Return what the fault is done to."""
    if fault.service in processes:
        ours = {one.name: one for one in (consumer(settings), *servings(settings))}[fault.service]

        def anew() -> None:
            processes[fault.service] = start(ours, settings.var_dir / f"{fault.service}-again.log")

        return Target(processes[fault.service], ours.ports[0], anew, ours.check)
    definitions = {
        "redis": stores.valkey,
        "postgres": stores.postgres,
        "kafka": broker.kafka,
        "mlflow": applications.mlflow,
    }
    theirs = definitions[fault.service](settings)
    again = partial(services.restart, fault.service)
    folder = FOLDERS.get(fault.service)
    disk = settings.var_dir / folder if folder else None
    return Target(services.process(fault.service), theirs.ports[0], again, theirs.check, disk)


def tell_stretch(row: Callable[[str, str, str], None], name: str, report: dict[str, Any]) -> None:
    if "failed" in report:
        row(f"{name}: lists", "0 failures", report["failed"])
        return
    said = f"{failures(report)} failures of {report['answers']}, {report['wrong']} not personalised"
    said += f", {report['cut']} sent again" if report["cut"] else ""
    row(f"{name}: lists", "0 failures", said)
    said = f"{report['p50_ms']:.1f}, {report['p99_ms']:.1f}, {report['max_ms']:.0f} ms"
    row(f"{name}: p50, p99, worst", "p99 ≤ 100 ms", said)


def resident(processes: dict[str, subprocess.Popen]) -> dict[str, float]:
    return {name: sum(one.memory_info().rss for one in members(process)) / 2**20 for name, process in processes.items()}


def notes() -> str:
    return (
        f"{REQUESTS_A_SECOND} lists (open loop) and {EVENTS_A_SECOND} clicks into the log a second.\n"
        "Load and all services share this machine; a fault lasts a third of its stretch. A killed PostgreSQL recovers\n"
        "from its log, a killed Valkey from its append-only file: what that lacks, `rebuild` brings back. The stores'\n"
        "folders are file systems of their own (ext4 in a file) that are filled for `full`; serving is two processes\n"
        f"at one address, of which one is killed. Load average at the end: {os.getloadavg()[1]:.1f}."
    )


if __name__ == "__main__":
    main()
