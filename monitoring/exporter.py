"""The pipelines' health for Prometheus: asked from Airflow when somebody scrapes, at most once in `KEPT_SECONDS`."""

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from monitoring.pipelines import WINDOW, Dag, Health, health
from recsys.errors import RecsysError, ServiceUnavailable

log = logging.getLogger(__name__)

KEPT_SECONDS = 15.0
"""Two servers that scrape, or one that scrapes often, cost Airflow no more than one."""


class Pipelines(Collector):
    """The gauges of every DAG. While Airflow does not answer only `recsys_pipeline_airflow_up` is told, as 0.

    Args:
        read: returns the DAGs with their runs; raises ServiceUnavailable.
        now: the clock.
    """

    def __init__(self, read: Callable[[], list[Dag]], now: Callable[[], datetime]):
        self._read, self._now = read, now
        self._lock = threading.Lock()
        self._found: tuple[datetime, list[Health] | None] | None = None

    def collect(self) -> Iterator[Metric]:
        found = self._ask()
        yield _gauge("airflow_up", "Whether Airflow answered", {(): float(found is not None)}, [])
        for name, meaning, labels, values in _families(found or []):
            yield _gauge(name, meaning, values, labels)

    def _ask(self) -> list[Health] | None:
        with self._lock:
            now = self._now()
            if self._found is None or (now - self._found[0]).total_seconds() > KEPT_SECONDS:
                try:
                    self._found = now, [health(dag, now) for dag in self._read()]
                except ServiceUnavailable as error:
                    log.warning("%s", error)
                    self._found = now, None
            return self._found[1]


def _families(found: list[Health]) -> Iterator[tuple[str, str, list[str], dict[tuple[str, ...], float]]]:
    days = WINDOW.days
    runs = {(one.dag_id, state): float(count) for one in found for state, count in _counts(one)}
    yield "runs", f"Finished runs of {days} days", ["dag_id", "state"], runs
    success = {(one.dag_id,): one.success for one in found if one.success is not None}
    yield "success_ratio", f"Share of green runs among the finished ones of {days} days", ["dag_id"], success
    last = {(one.dag_id,): one.durations[-1] for one in found if one.durations}
    yield "last_duration_seconds", "Duration of the last green run", ["dag_id"], last
    longest = {(one.dag_id,): max(one.durations) for one in found if one.durations}
    yield "longest_duration_seconds", f"Longest green run of {days} days", ["dag_id"], longest
    until = {(one.dag_id,): one.data_until.timestamp() for one in found if one.data_until}
    yield "data_until_timestamp_seconds", "End of the data that the newest green run covered", ["dag_id"], until
    period = {(one.dag_id,): one.period.total_seconds() for one in found if one.period}
    yield "period_seconds", "Time between two scheduled runs", ["dag_id"], period
    yield "paused", "Whether the DAG is paused", ["dag_id"], {(one.dag_id,): float(one.is_paused) for one in found}


def _counts(one: Health) -> list[tuple[str, int]]:
    return [("success", one.green), ("failed", one.red)]


def _gauge(name: str, meaning: str, values: dict[tuple[str, ...], float], labels: list[str]) -> Metric:
    family = GaugeMetricFamily(f"recsys_pipeline_{name}", meaning, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family


def serve(pipelines: Pipelines, url: str) -> ThreadingWSGIServer:
    """Return a server that listens at this address and answers GET /metrics; the caller runs it.

    Raises:
        RecsysError: the port is taken.
    """
    registry = CollectorRegistry()
    registry.register(pipelines)
    address = urlsplit(url)
    try:
        return make_server(
            address.hostname or "127.0.0.1", address.port or 8083, make_wsgi_app(registry), ThreadingWSGIServer, _Silent
        )
    except OSError as error:
        raise RecsysError("RECSYS_MONITORING_URL", url, f"It cannot listen there: {error}") from error


class _Silent(WSGIRequestHandler):
    """A scrape every few seconds is no news."""

    def log_message(self, *_: object) -> None:
        return
