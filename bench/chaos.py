"""Faults under load: what users see while a service is killed, frozen, slow, unreachable or without a byte of disk, and
whether an event is lost.

    python -m bench.chaos [--seconds 20] [--rounds 1] [--minutes M] [--only SERVICE] [--note TEXT]

Writes docs/results/chaos.md. The platform's own services run as processes (bench/live_world.py); lists are asked for at
an open loop's instants (bench/load_generator.py), clicks go into the log, and each fault (bench/faults.py) is done to a
service in the middle of a stretch of load, `--rounds` times. `--minutes` chooses the length of a stretch such that all
together last so long: `--minutes 30 --rounds 2` is the soak, judged sentence by sentence (bench/soak.py). A run that
is told to end (SIGTERM, SIGINT) or that breaks off writes what it has measured, and says so. A stretch whose load
generator failed is done once more. Do not change the code below a run: its processes are started anew from it.

Two serving processes share a port. A list that is not personalised is an answer, and a request whose connection was
lost is sent again, as a client would, its time counted on; a 5xx or a missing answer is a failure. Needs root.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import psutil
import psycopg
import redis
import tenacity
from kafka import KafkaProducer
from kafka.errors import KafkaError

from bench.faults import FAULTS, FOLDERS, Fault, Target, disks, do, members
from bench.live_world import consumer, event, names, platform, running, write_past
from bench.load_generator import Plan
from bench.results import publish
from bench.serving_load import stolen
from bench.serving_world import ML_1M_ITEMS, write_model
from bench.soak import OBJECTIVE_MS, Stretch, judged, told
from infra.local import applications, broker, stores
from infra.local.service import Service
from recsys import user_state
from recsys.artifacts import TOPIC_INTERACTIONS, USER_FEATURES
from recsys.round_trip import send
from recsys.settings import HOME, Settings
from streaming.rebuild import rebuild_all
from tests.conftest import Services, start
from tests.streaming.log import eventually, uncommitted

USERS, REQUESTS_A_SECOND, EVENTS_A_SECOND, CONNECTIONS = 2000, 300, 200, 64
STRETCH_SECONDS, LEAST_SECONDS = 20.0, 3.0
PATIENCE_SECONDS, CUT_PATIENCE_SECONDS = 300.0, 30.0
"""How long the last acknowledgements, and then the consumer, are waited for; the second when the run was broken off."""
COMMANDS_AT_ONCE = 5000
AWAY = (psycopg.Error, redis.RedisError, KafkaError)
TOLD_ONLY = ("acknowledged", "refused by the log")
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
                try:
                    future = log.send(self._settings.topic_prefix + TOPIC_INTERACTIONS, key=user.encode(), value=body)
                except KafkaError as error:  # no room left while the log is away: nobody was told that it counts
                    self.refused.append(repr(error))
                    continue
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
        seconds=seconds, rate=REQUESTS_A_SECOND, objective_ms=OBJECTIVE_MS, retries=True,
    )  # fmt: skip
    generator = subprocess.Popen(
        [sys.executable, "-m", "bench.load_generator"], cwd=HOME, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,  # a share of the processors of its own
    )  # fmt: skip
    generator.stdin.write(plan.model_dump_json())
    generator.stdin.close()
    generator.stdin = None
    return generator


def loaded(settings: Settings, seconds: float, during: Callable[[], None] | None) -> dict[str, Any]:
    """Return the generator's report of a stretch of load, in whose second quarter a fault begins; empty: it failed."""
    generator = load(settings, seconds)
    try:
        if during is not None:
            threading.Event().wait(seconds / 4)
            during()
        said, _ = generator.communicate()
    finally:
        if generator.poll() is None:  # the run is over
            generator.kill()
    return {} if generator.returncode else json.loads(said)


def survey(settings: Settings, clicks: Clicks, patience: float) -> dict[str, int]:
    """Wait until the consumer has caught up; return what became of the acknowledged events."""
    eventually(lambda: uncommitted(settings) == 0, seconds=patience)
    with psycopg.connect(settings.postgres_url) as connection:
        rows = connection.execute(
            "select event_id, user_id, item_id from raw.interactions_stream where event_id like 'chaos-%'"
        ).fetchall()
        counted = connection.execute("select user_id, count(*) from raw.interactions group by user_id").fetchall()
    landed = {int(event_id.rpartition("-")[2]) for event_id, _, _ in rows}
    with redis.Redis.from_url(settings.redis_url) as client:
        scores = asked(client, [("ZSCORE", user_state.history_key(user), item) for _, user, item in rows])
        shown = asked(client, [("HGET", user_state.features_key(user), USER_FEATURES[0]) for user, _ in counted])
    missing = sum(score is None for score in scores)
    wrong = sum(float(said or 0) != count for said, (_, count) in zip(shown, counted, strict=True))
    return {
        "acknowledged": len(clicks.acknowledged),
        "lost": len(clicks.acknowledged - landed),
        "twice": len(rows) - len(landed),
        "not in the user's history": missing,
        "of users whose count is wrong": wrong,
        "refused by the log": len(clicks.refused),
    }


def asked(client: redis.Redis, commands: Sequence[tuple[str, ...]]) -> list[Any]:
    """Return the replies to hundreds of thousands of commands, some thousand at a time."""
    parts = [commands[start : start + COMMANDS_AT_ONCE] for start in range(0, len(commands), COMMANDS_AT_ONCE)]
    return [reply for part in parts for reply in send(client, part)]


class Run:
    """One run: the load, the faults, and what is known so far."""

    def __init__(self, settings: Settings, services: Services, processes: dict[str, subprocess.Popen]):
        self._settings, self._services, self._processes = settings, services, processes
        self.stretches: list[Stretch] = []

    def whole(self, faults: Sequence[Fault], rounds: int, length: Callable[[int], float]) -> None:
        """Do each fault in each round, with a stretch without one before each round and behind the last.

        Args:
            length: seconds of the next stretch, from how many are left.
        """
        plan: list[tuple[int, Fault | None]] = []
        for number in range(1, rounds + 1):
            plan += [(number, fault) for fault in (None, *faults)]
        plan.append((0, None))
        for place, (number, fault) in enumerate(plan):
            seconds, before = length(len(plan) - place), psutil.cpu_times()
            report = self._done(seconds, fault) or self._done(seconds, fault)
            share = stolen(before, psutil.cpu_times())
            self.stretches.append(Stretch(number, fault, report, resident(self._processes), share))
            self._start_again()
            for measure, _, measured in told(self.stretches[-1]):
                print(measure, measured, file=sys.stderr, flush=True)

    def _start_again(self) -> None:
        """Start what has ended by itself, as the supervisor would; it has counted as ended."""
        for name, process in list(self._processes.items()):
            if process.poll() is not None:
                target_of(self._settings, self._services, self._processes, Fault(name, "kill")).again()

    def _done(self, seconds: float, fault: Fault | None) -> dict[str, Any]:
        if fault is None:
            return loaded(self._settings, seconds, None)
        target = target_of(self._settings, self._services, self._processes, fault)
        return loaded(self._settings, seconds, partial(do, fault, target, seconds / 3))


def main() -> None:
    given = arguments()
    faults = [one for one in FAULTS if given.only in (None, one.service)]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with platform("mlflow", on=disks) as (settings, services):
        write_model(settings.served_model, ML_1M_ITEMS)
        write_past(settings, USERS, ML_1M_ITEMS)
        with redis.Redis.from_url(settings.redis_url) as client:
            rebuild_all(settings, client)
        with running(settings, consumer(settings), *servings(settings)) as processes:
            for name, process in processes.items():
                if name.startswith("serving"):  # at their one address the first answers for the second, still starting
                    eventually(partial(listens, process))
            measured(given, faults, settings, Run(settings, services, processes))


def measured(given: argparse.Namespace, faults: Sequence[Fault], settings: Settings, run: Run) -> None:
    """Do what was asked for and write what was seen, also of a run that breaks off."""
    clicks = Clicks(settings)
    clicks.start()
    began, before, events, broken = perf_counter(), psutil.cpu_times(), {}, ""

    def length(left: int) -> float:
        if not given.minutes:
            return given.seconds
        return max(LEAST_SECONDS, (began + 60 * given.minutes - perf_counter()) / left)

    try:
        run.whole(faults, given.rounds, length)
    except BaseException as error:
        broken = f"Broken off after {len(run.stretches)} stretches: {type(error).__name__} {error}".strip()
        raise
    finally:
        lasted = (perf_counter() - began) / 60
        clicks.stopping.set()
        with suppress(KeyboardInterrupt, tenacity.RetryError, *AWAY):  # told to end, or some service did not come back
            patience = CUT_PATIENCE_SECONDS if broken else PATIENCE_SECONDS
            clicks.join(patience)
            events = survey(settings, clicks, patience)
        rows = rows_of(run.stretches, events, lasted)
        length_said = f"--minutes {given.minutes:g}" if given.minutes else f"--seconds {given.seconds:g}"
        command = f"{COMMAND} {length_said} --rounds {given.rounds}"
        table = [{"measure": a, "target": b, "measured": c, "command": command} for a, b, c in rows]
        for one in rows:
            print(*one, sep=" | ", file=sys.stderr, flush=True)
        if given.only is None and run.stretches:
            said = [broken, given.note, notes(stolen(before, psutil.cpu_times()))]
            publish("chaos", "Faults under load", table, "\n\n".join(filter(None, said)))


def rows_of(stretches: Sequence[Stretch], events: dict[str, int], minutes: float) -> list[tuple[str, str, str]]:
    """Return what the page says: the verdicts, then each stretch, the events, and the memory."""
    rows = judged(stretches, events, minutes)
    for stretch in stretches:
        rows += told(stretch)
    for what, count in events.items():
        rows.append((f"events {what}", "none" if what in TOLD_ONLY else "0", f"{count:,}"))
    for name in stretches[0].memory if stretches else ():
        course = ", ".join(f"{one.memory.get(name, 0):.0f}" for one in stretches)
        rows.append((f"resident memory of {name} after each stretch, MiB", "flat", course))
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=STRETCH_SECONDS, help="length of a stretch")
    parser.add_argument("--rounds", type=int, default=1, help="how often each fault is done")
    parser.add_argument("--minutes", type=float, default=None, help="length of all stretches together")
    parser.add_argument("--note", default="", help="what else the page shall say of this run")
    parser.add_argument(
        "--only", choices=sorted({one.service for one in FAULTS}), help="faults of one service; no page"
    )
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
            eventually(partial(listens, processes[fault.service]))

        return Target(processes[fault.service], ours.ports[0], anew, ours.check)
    definitions = {
        "redis": stores.valkey,
        "records": stores.records,
        "postgres": stores.postgres,
        "kafka": broker.kafka,
        "mlflow": applications.mlflow,
    }
    theirs = definitions[fault.service](settings)
    again = partial(services.restart, fault.service)
    folder = FOLDERS.get(fault.service)
    disk = settings.var_dir / folder if folder else None
    return Target(services.process(fault.service), theirs.ports[0], again, theirs.check, disk)


def listens(process: subprocess.Popen) -> bool:
    """Whether a process takes connections itself."""
    return any(one.status == psutil.CONN_LISTEN for one in psutil.Process(process.pid).net_connections("tcp"))


def resident(processes: dict[str, subprocess.Popen]) -> dict[str, float]:
    return {name: sum(one.memory_info().rss for one in members(process)) / 2**20 for name, process in processes.items()}


def notes(stolen_share: float) -> str:
    return (
        f"{REQUESTS_A_SECOND} lists (open loop) and {EVENTS_A_SECOND} clicks into the log a second; between two\n"
        "stretches the generator of lists starts anew, about a second. A user's count is wrong where the number of\n"
        "interactions in the online store is not that of the warehouse's rows: an event counted twice, or not at all.\n"
        "Load and all services share this machine; a fault lasts a third of its stretch. A killed PostgreSQL recovers\n"
        "from its log, a killed Valkey from its append-only file: what that lacks, `rebuild` brings back. The stores'\n"
        "folders are file systems of their own (ext4 in a file) that are filled for `full`; serving is two processes\n"
        f"at one address, of which one is killed. Load average at the end: {os.getloadavg()[1]:.1f}. The machine is a\n"
        f"virtual one: its host took {stolen_share:.1%} of its processor time for others meanwhile."
    )


if __name__ == "__main__":
    main()
