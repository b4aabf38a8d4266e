"""Latency of a personalised answer in this process: real Redis and Kafka, an iALS model of MovieLens-1M's size.

    python -m bench.serving_latency [requests]

Prints one JSON object: milliseconds, one request at a time, from the ASGI call to the last byte. Not a test: it shows
what a change costs, before and after.
"""

import asyncio
import json
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import numpy as np
import redis

from infra.local import broker
from recsys import user_state
from recsys.bundle import Catalogue, Manifest, write_bundle
from recsys.settings import Settings
from serving.process import SWITCH_SECONDS, build
from tests.conftest import Services

INSTANT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
ITEMS, EMBEDDING_SIZE, HISTORY, USERS, K = 3706, 64, 100, 50, 10


def furnish(settings: Settings) -> None:
    """Write a model, and users with a history."""
    chance = np.random.default_rng(1)
    vectors = chance.normal(size=(ITEMS, EMBEDDING_SIZE)).astype(np.float32)
    names = [f"movielens:{n:05}" for n in range(ITEMS)]
    manifest = Manifest(
        model="ials", framework="numpy", kind="ials", cut_id="latency", as_of="2020-01-01T00:00:00Z",
        unobserved_weight=0.1, reg=0.01,
    )  # fmt: skip
    catalogue = Catalogue(
        item_id=names, domain=["movies"] * ITEMS, title=names, categories=[["Drama"]] * ITEMS,
        published_year=[None] * ITEMS,
    )  # fmt: skip
    arrays = {"popularity": np.arange(1, ITEMS + 1), "item_vectors": vectors, "gram": vectors.T @ vectors}
    write_bundle(settings.served_model, manifest, catalogue, arrays)
    with redis.Redis.from_url(settings.redis_url) as store:
        for user in range(USERS):
            read = chance.choice(ITEMS, HISTORY, replace=False)
            user_state.add_events(
                store, f"u{user}", [(names[i], INSTANT + timedelta(minutes=n)) for n, i in enumerate(read)]
            )


async def ask(app, user: str) -> float:
    """Return the seconds of one answer."""
    body = bytearray()

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict) -> None:
        body.extend(message.get("body", b""))

    path = f"/v1/users/{user}/recommendations"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": f"k={K}".encode(), "root_path": "", "headers": [],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1),
    }  # fmt: skip
    started = perf_counter()
    await app(scope, receive, send)
    seconds = perf_counter() - started
    answer = json.loads(body)
    if answer.get("rung") != "personalised" or len(answer["items"]) != K:
        raise SystemExit(f"not what was to be measured: {answer}")
    return seconds


async def measure(settings: Settings, requests: int, pause: float) -> dict[str, float]:
    app = build(settings, lambda: INSTANT)
    async with app.router.lifespan_context(app):
        for number in range(500):
            await ask(app, f"u{number % USERS}")
        seconds = []
        for number in range(requests):
            seconds.append(await ask(app, f"u{number % USERS}"))
            await asyncio.sleep(pause)
    p50, p95, p99 = np.percentile(np.array(seconds) * 1000, (50, 95, 99)).round(3).tolist()
    return {"requests": requests, "pause_ms": pause * 1000, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


def main() -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        services = Services(Path(folder))
        try:
            for name in ("redis", "kafka"):
                services.start(name)
            settings = services.settings.model_copy(update={"variant_weights": {"champion": 1.0}})
            broker.create_topics(settings)
            furnish(settings)
            for pause in (0.0, 0.005):
                print(json.dumps(asyncio.run(measure(settings, requests, pause))), flush=True)
        finally:
            services.stop()


if __name__ == "__main__":
    main()
