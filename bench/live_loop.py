"""The loop while events pour in: from a posted click to another list, and how fast the consumer works off a backlog.

    python -m bench.live_loop [seconds [runs]]

Writes docs/results/live_loop.md: of several runs the median of each figure, and the least and the most. Everything is
the platform's own, as processes: Kafka, Valkey, PostgreSQL with its `fsync`, the consumer with all its effects,
serving. Clicks of made-up users go straight to the log at a steady rate; meanwhile some real requests: a list, a click
on it, and the list asked for again until it is another one.
"""

import os
import sys
import threading
from datetime import UTC, datetime
from time import perf_counter, sleep
from typing import Any

import httpx
import numpy as np
import psutil
import redis
from kafka import KafkaProducer

from bench.live_world import PAST, consumer, event, names, platform, running, write_past
from bench.results import publish
from bench.serving_world import ML_1M_ITEMS, write_model
from infra.local import applications
from recsys.artifacts import TOPIC_INTERACTIONS
from recsys.settings import Settings
from streaming.rebuild import rebuild_all
from tests.streaming.log import eventually, landed

USERS, RATE, BACKLOG, PROBES_A_SECOND = 6000, 500, 40_000, 4
COMMAND = "python -m bench.live_loop"


def pour(settings: Settings, rate: float, stopping: threading.Event, run: str) -> None:
    """Send clicks at this rate, each when it is due, until told to stop."""
    chance, items = np.random.default_rng(11), names(ML_1M_ITEMS)
    log = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all", linger_ms=5)
    started, sent = perf_counter(), 0
    while not stopping.is_set():
        due = int((perf_counter() - started) * rate)
        for number in range(sent, due):
            user = f"live:{chance.integers(USERS)}"
            body = event(number, user, items[chance.integers(ML_1M_ITEMS)], datetime.now(UTC), run)
            log.send(settings.topic_prefix + TOPIC_INTERACTIONS, key=user.encode(), value=body)
        sent = due
        stopping.wait(0.01)
    log.close()


def probe(http: httpx.Client, user: str) -> float:
    """Click on the first item of a user's list; return the milliseconds until the list is another one."""
    path = f"/v1/users/{user}/recommendations?k=10"

    def shown() -> list[str]:
        answer = http.get(path).raise_for_status().json()
        return [item["item_id"] for item in answer["items"]]

    before = shown()
    click = {"user_id": user, "item_id": before[0], "event_type": "click", "domain": "movies",
             "occurred_at": datetime.now(UTC).isoformat()}  # fmt: skip
    started = perf_counter()
    http.post("/v1/events", json=click).raise_for_status()
    while before[0] in shown():
        if perf_counter() - started > 30:
            raise SystemExit(f"the list of {user} has not changed in 30 s")
        sleep(0.005)
    return 1000 * (perf_counter() - started)


def click_to_list(settings: Settings, seconds: float, rate: float) -> list[float]:
    stopping = threading.Event()
    pouring = threading.Thread(target=pour, args=(settings, rate, stopping, f"poured-{rate}"))
    pouring.start()
    taken = []
    try:
        with httpx.Client(base_url=settings.serving_url, timeout=30) as http:
            for number in range(int(seconds * PROBES_A_SECOND)):
                taken.append(probe(http, f"live:{number * 7 % USERS}"))
                stopping.wait(1 / PROBES_A_SECOND)
    finally:
        stopping.set()
        pouring.join()
    return taken


def work_off(settings: Settings, process: psutil.Process, events: int) -> dict[str, Any]:
    """Put a backlog into the log and return how fast it lands; the consumer is stopped while it is put there."""
    chance, items = np.random.default_rng(12), names(ML_1M_ITEMS)
    before = landed(settings)
    process.suspend()
    log = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all", linger_ms=20, batch_size=1 << 18)
    for number in range(events):
        user = f"live:{chance.integers(USERS)}"
        body = event(number, user, items[chance.integers(ML_1M_ITEMS)], datetime.now(UTC), "backlog")
        log.send(settings.topic_prefix + TOPIC_INTERACTIONS, key=user.encode(), value=body)
    log.flush()
    log.close()
    used, started = sum(process.cpu_times()[:2]), perf_counter()
    process.resume()
    while landed(settings) < before + events:  # counting costs the database some milliseconds: four times a second
        if perf_counter() - started > 300:
            raise SystemExit(f"{landed(settings) - before} of {events} events have landed in 300 s")
        sleep(0.25)
    seconds = perf_counter() - started
    return {"a_second": events / seconds, "cpu_us": 1e6 * (sum(process.cpu_times()[:2]) - used) / events}


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    found = [measured_once(seconds) for _ in range(runs)]
    table = [
        {"measure": what, "target": target, "measured": _said(figures, [run[what] for run in found]),
         "command": COMMAND}
        for what, (target, figures) in ROWS.items()
    ]  # fmt: skip
    publish("live_loop", "The live loop", table, notes(runs))


LATENCIES = "p50 {} ms, p95 {} ms, p99 {} ms"
SLOW, FAST = (f"click posted to another list, at {rate} events a second" for rate in (20, RATE))
REBUILT, WORKED_OFF = "rebuild of all users' state: users a second", "backlog, all effects: events a second"
PROCESSOR, MEMORY = "backlog, all effects: the consumer's processor time an event", "the consumer's resident memory"
ROWS = {
    REBUILT: ("none", "{}"),
    SLOW: ("none", LATENCIES),
    FAST: ("p95 ≤ 1 s, beyond 300 ms", LATENCIES),
    WORKED_OFF: ("≥ 3 000, beyond 8 000", "{}"),
    PROCESSOR: ("none", "{} µs"),
    MEMORY: ("none", "{} MiB"),
}
"""Measure → its target, and how its figures are said."""


def _said(figures: str, runs: list[list[float]]) -> str:
    """Return the medians over the runs in words, with the least and the most where there are several."""
    middle = figures.format(*(f"{np.median(values):,.0f}" for values in zip(*runs, strict=True)))
    if len(runs) == 1:
        return middle
    spread = ", ".join(f"{min(values):,.0f} to {max(values):,.0f}" for values in zip(*runs, strict=True))
    return f"{middle} (median of {len(runs)} runs: {spread})"


def measured_once(seconds: float) -> dict[str, list[float]]:
    """Return the figures of each measure, of a platform that is started for it."""
    found: dict[str, list[float]] = {}

    def tell(measure: str, *figures: float) -> None:
        found[measure] = list(figures)
        print(measure, found[measure], file=sys.stderr, flush=True)

    with platform() as (settings, _):
        write_model(settings.served_model, ML_1M_ITEMS)
        write_past(settings, USERS, ML_1M_ITEMS)
        with redis.Redis.from_url(settings.redis_url) as client:
            started = perf_counter()
            rebuild_all(settings, client)
            tell(REBUILT, USERS / (perf_counter() - started))
        with running(settings, consumer(settings), applications.serving(settings)) as processes:
            hearing = psutil.Process(processes["streaming"].pid)
            eventually(lambda: httpx.get(f"{settings.serving_url}/readyz").status_code == 200)
            for rate, measure in ((20, SLOW), (RATE, FAST)):
                taken = click_to_list(settings, seconds if rate == RATE else seconds / 4, rate)
                tell(measure, *np.percentile(taken, (50, 95, 99)).tolist())
            done = work_off(settings, hearing, BACKLOG)
            tell(WORKED_OFF, done["a_second"])
            tell(PROCESSOR, done["cpu_us"])
            tell(MEMORY, hearing.memory_info().rss / 2**20)
    return found


def notes(runs: int) -> str:
    return (
        f"{runs} runs, each with a platform of its own. "
        f"{USERS} users with {PAST} past events each, {ML_1M_ITEMS} items; events are spread over all users\n"
        "evenly, the dearest way: each costs a user's features. Kafka, PostgreSQL (durable), Valkey, the consumer,\n"
        f"serving and the load share this machine. Load average at the end: {os.getloadavg()[1]:.1f}."
    )


if __name__ == "__main__":
    main()
