"""What the measurements of the loop stand on: the platform's own services with durable settings, users with a past in
the warehouse and in the online store, Feast's registry, and the consumer and serving as the processes that they are."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from bench.serving_world import names
from infra.local import applications, broker, stores
from infra.local.service import Service
from recsys.artifacts import FEAT_ITEM_POPULARITY, FEAT_ITEM_WINDOWS, FEAT_USER_ACTIVITY, FEAT_USER_WINDOWS
from recsys.settings import Settings
from recsys.task import command_environment, run_command
from recsys.warehouse import apply_schema
from tests.conftest import Services, start, stop
from tests.ports import free_port

PAST = 165
"""Events of a user before the measurement: as many as in MovieLens 1M, on average."""

FIRST_DAY = datetime(2026, 9, 1, tzinfo=UTC)
LOOPBACK = "http://127.0.0.1"


def user_ids(users: int) -> list[str]:
    return [f"live:{number}" for number in range(users)]


@contextmanager
def platform(
    *more: str, on: Callable[[Path], AbstractContextManager[Any]] = nullcontext
) -> Iterator[tuple[Settings, Services]]:
    """Yield real Postgres (with `fsync`), two Valkeys as the product has, Kafka, topics, tables and Feast's registry.

    `on` prepares their folder before they start, and clears up after them.
    """
    with tempfile.TemporaryDirectory(prefix="recsys-live-") as folder, on(Path(folder)):
        Path(folder).chmod(0o711)
        services = Services(Path(folder), {})
        services.settings = services.settings.model_copy(
            update={
                "serving_url": f"{LOOPBACK}:{free_port()}",
                "streaming_url": f"{LOOPBACK}:{free_port()}",
                "records_url": f"redis://{stores.LOOPBACK}:{free_port()}/0",
            }
        )
        try:
            for name in ("postgres", "redis", "records", "kafka", *more):
                services.start(name)
            broker.create_topics(services.settings)
            stores.create_database(services.settings.postgres_url, "recsys")
            apply_schema(services.settings)
            offer(services.settings)
            yield services.settings, services
        finally:
            services.stop()


def offer(settings: Settings) -> None:
    """Make the feature tables, empty, and tell Feast of them."""
    with psycopg.connect(settings.postgres_url) as connection:
        connection.execute(
            f"""
            create table {FEAT_USER_ACTIVITY} (
                user_id text collate "C", event_timestamp timestamptz, user_interactions_total bigint,
                user_interactions_30d bigint, user_distinct_items bigint, user_mean_rating double precision);
            create table {FEAT_ITEM_POPULARITY} (
                item_id text collate "C", event_timestamp timestamptz, item_interactions_total bigint,
                item_interactions_90d bigint, item_mean_rating double precision);
            create table {FEAT_USER_WINDOWS} (
                user_id text collate "C", event_timestamp timestamptz, user_events_1d bigint, user_events_7d bigint,
                user_events_30d bigint, user_events_90d bigint, user_implicit_90d bigint, user_days_since_event bigint,
                user_sessions_30d bigint, user_recent_mean_rating double precision);
            create table {FEAT_ITEM_WINDOWS} (
                item_id text collate "C", event_timestamp timestamptz, item_events_1d bigint, item_events_7d bigint,
                item_events_30d bigint, item_events_90d bigint, item_implicit_90d bigint, item_days_since_event bigint,
                item_events_decayed double precision, item_recent_mean_rating double precision)
            """
        )
    apply = ("env", "PYTHONOPTIMIZE=1", "feast", "-c", "feature_repo", "apply", "--skip-source-validation")
    run_command((*apply, "--no-progress"), command_environment(settings))


def write_past(settings: Settings, users: int, items: int) -> None:
    """Write each user's past into the warehouse as files would have brought it, in the order of time."""
    chance, catalogue = np.random.default_rng(5), names(items)
    whose = chance.permutation(np.repeat(np.arange(users), PAST))
    read = chance.integers(items, size=len(whose))
    rated = chance.integers(1, 6, size=len(whose))
    columns = "event_id, user_id, item_id, rating, occurred_at, domain, event_type, context, source, landed_partition"
    with psycopg.connect(settings.postgres_url) as connection:
        with connection.cursor().copy(f"copy raw.interactions ({columns}) from stdin") as copy:
            for number, (user, item, rating) in enumerate(zip(whose, read, rated, strict=True)):
                at = FIRST_DAY + timedelta(seconds=number * 60 * 86_400 // len(whose))
                copy.write_row(
                    (f"past-{number:032}", f"live:{user}", catalogue[item], float(rating), at, "movies", "rate", "{}",
                     "ml-1m", at.date().isoformat())
                )  # fmt: skip
        connection.execute("analyze raw.interactions")


@contextmanager
def running(settings: Settings, *wanted: Service) -> Iterator[dict[str, subprocess.Popen]]:
    """Run services of the platform as processes of their own, each until the end of the block."""
    processes: dict[str, subprocess.Popen] = {}
    before = dict(os.environ)
    os.environ.update({name: value for name, value in settings.own_environment().items() if name.startswith("RECSYS_")})
    try:
        for service in wanted:
            processes[service.name] = start(service, settings.var_dir / f"{service.name}.log")
        yield processes
    finally:
        for process in reversed(processes.values()):
            stop(process)
        os.environ.clear()
        os.environ.update(before)


def consumer(settings: Settings) -> Service:
    return applications.streaming(settings)


def event(number: int, user: str, item: str, at: datetime, run: str = "live") -> bytes:
    """Return the message of one click."""
    return json.dumps({
        "event_id": f"{run}-{number}", "user_id": user, "item_id": item, "rating": None,
        "occurred_at": at.isoformat(), "domain": "movies", "event_type": "click", "context": {},
    }).encode()  # fmt: skip
