"""The loop while events pour in: from a posted click to another list, and how fast the consumer works off a backlog.

    python -m bench.live_loop [seconds]

Writes docs/results/live_loop.md. Everything is the platform's own, as processes: Kafka, Valkey, PostgreSQL with its
`fsync`, the consumer with all its effects, serving. Clicks of made-up users go straight to the log at a steady rate;
meanwhile some real requests: a list, a click on it, and the list asked for again until it is another one.
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
    table = []

    def row(measure: str, target: str, measured: str) -> None:
        table.append({"measure": measure, "target": target, "measured": measured, "command": COMMAND})
        print(measure, measured, file=sys.stderr, flush=True)

    with platform() as (settings, _):
        write_model(settings.served_model, ML_1M_ITEMS)
        write_past(settings, USERS, ML_1M_ITEMS)
        with redis.Redis.from_url(settings.redis_url) as client:
            rebuilt = perf_counter()
            rebuild_all(settings, client)
            row("rebuild of all users' state", "none", f"{USERS / (perf_counter() - rebuilt):,.0f} users a second")
        with running(settings, consumer(settings), applications.serving(settings)) as processes:
            hearing = psutil.Process(processes["streaming"].pid)
            eventually(lambda: httpx.get(f"{settings.serving_url}/readyz").status_code == 200)
            for rate, wanted in ((20, "none"), (RATE, "p95 ≤ 1 s, beyond 300 ms")):
                taken = click_to_list(settings, seconds if rate == RATE else seconds / 4, rate)
                p50, p95, p99 = np.percentile(taken, (50, 95, 99))
                said = f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms of {len(taken)} clicks"
                row(f"click posted to another list, at {rate} events a second", wanted, said)
            done = work_off(settings, hearing, BACKLOG)
            row("backlog, all effects: events a second", "≥ 3 000, beyond 8 000", f"{done['a_second']:,.0f}")
            row("backlog, all effects: the consumer's processor time an event", "none", f"{done['cpu_us']:.0f} µs")
            row("the consumer's resident memory", "none", f"{hearing.memory_info().rss / 2**20:.0f} MiB")
    publish("live_loop", "The live loop", table, notes())


def notes() -> str:
    return (
        f"{USERS} users with {PAST} past events each, {ML_1M_ITEMS} items; events are spread over all users\n"
        "evenly, the dearest way: each costs a user's features. Kafka, PostgreSQL (durable), Valkey, the consumer,\n"
        f"serving and the load share this machine. Load average at the end: {os.getloadavg()[1]:.1f}."
    )


if __name__ == "__main__":
    main()
