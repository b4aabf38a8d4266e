"""The serving process: the real ports, wired and kept alive for as long as the application runs."""

import asyncio
import gc
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

from recsys.promotion import beside_folder
from recsys.settings import Settings
from serving.access import KeyRing, RateLimits
from serving.adapters import FolderModels, RedisUserStates
from serving.answering import Answering
from serving.app import create_app
from serving.breaker import CircuitBreaker
from serving.eventlog import KafkaEventLog
from serving.graph import graph_file
from serving.held import HeldAnswers
from serving.keys import read_keys
from serving.metrics import Metrics
from serving.one_write import OneWrite
from serving.online_store import OnlineStore
from serving.outbox import Outbox
from serving.request_records import RedisRequestRecords
from serving.rollout import LiveRollout
from serving.shelf import Shelf
from serving.splits import LiveSplits
from serving.storefront import Storefront

DRAIN_SECONDS = 8
"""How long requests in flight may take to finish after SIGTERM; the log's flush comes after."""

SWITCH_SECONDS = 0.001
"""How long the log's thread may keep an answer from the interpreter; its default is 5 ms."""

YOUNG_OBJECTS = 20_000
"""Objects that live before the collector looks for circles among them, which answers make none of; by default 700, a
few answers' worth."""


def build(settings: Settings, clock: Callable[[], datetime]) -> FastAPI:
    """Return the application over the services that the settings name; none of them needs to be up.

    Raises:
        UnusableInput: API keys are asked for, and their file cannot be used; or the experiments or the serving graph
            cannot be.
    """
    metrics = Metrics()
    models = FolderModels(settings.served_model, metrics, settings.threads, graph_file(settings))
    store = OnlineStore(settings.redis_url, metrics, CircuitBreaker())
    users = RedisUserStates(store)
    splits, rollout = LiveSplits(settings), LiveRollout(settings, metrics)
    outbox = Outbox(settings.own_environment(), metrics)
    # A breaker of its own: whoever asks why while the records are away costs no list the user's state.
    record_store = OnlineStore(settings.record_store, metrics, CircuitBreaker())
    records = RedisRequestRecords(record_store, outbox)
    event_log = KafkaEventLog(settings.kafka_bootstrap, settings.topic_prefix, metrics, CircuitBreaker())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(models.refresh)
        await asyncio.to_thread(rollout.refresh)
        event_log.start()
        outbox.start()
        watching = [
            asyncio.create_task(models.watch()),
            asyncio.create_task(splits.watch()),
            asyncio.create_task(rollout.watch()),
        ]
        yield
        for watch in watching:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        await outbox.close()
        await asyncio.to_thread(event_log.close)
        await store.close()
        await record_store.close()

    answering = Answering(
        models, users, records, splits, metrics, outbox, settings.answer_cache_seconds, rollout, outbox,
        HeldAnswers(users, outbox, metrics),
    )  # fmt: skip
    shelf = Shelf(answering, beside_folder(settings), settings.threads)
    return create_app(
        answering,
        event_log,
        metrics,
        clock,
        settings.vertex_health_route,
        settings.vertex_predict_route,
        lifespan,
        _ring(settings, store),
        Storefront(answering, users, users, splits, clock, shelf),
    )


def _ring(settings: Settings, store: OnlineStore) -> KeyRing | None:
    return KeyRing(read_keys(Path(settings.api_keys)), RateLimits(store)) if settings.api_keys else None


def serve(
    settings: Settings, clock: Callable[[], datetime], host: str | None, port: int | None, share_port: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT; then finish the requests in flight and flush the log.

    With `share_port` several of these processes may listen at one address: the kernel divides new connections among
    them, and the loss of one costs the requests that it had in hand. Each has its own memory, metrics and connections.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(YOUNG_OBJECTS)
    url = urlsplit(settings.serving_url)
    on_vertex = settings.vertex_http_port is not None
    host = host or ("0.0.0.0" if on_vertex else url.hostname) or "127.0.0.1"
    port = port or settings.vertex_http_port or url.port or 8080
    app = build(settings, clock)
    options: dict[str, Any] = {
        "loop": "uvloop",
        "http": OneWrite,
        "ws": "none",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": DRAIN_SECONDS,
    }
    if not share_port:
        uvicorn.run(app, host=host, port=port, **options)
        return
    with suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[_shared(host, port)])


def _shared(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    shared = socket.socket(family, socket.SOCK_STREAM)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    shared.bind((host, port))
    return shared
