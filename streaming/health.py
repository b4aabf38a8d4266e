"""How the consumer is: its counters for Prometheus, and one word for the supervisor."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from recsys.errors import RecsysError

EVENTS = Counter("recsys_stream_events_total", "Messages handled, by what became of them", ["topic", "outcome"])
REFUSED = Counter("recsys_stream_refused_total", "Messages sent to the dead-letter topic", ["topic", "reason"])
RETRIES = Counter("recsys_stream_retries_total", "Attempts repeated because a service did not answer", ["error"])
PUSHED = Counter("recsys_stream_pushed_rows_total", "Feature rows pushed to Feast's online store")
LAG = Gauge("recsys_stream_lag_messages", "Messages in the log that this consumer has not handled yet")
BATCH_SECONDS = Histogram("recsys_stream_batch_seconds", "From polled to committed", ["step"])
EVENT_TO_STATE_SECONDS = Histogram(
    "recsys_stream_event_to_state_seconds",
    "From an interaction's entry into the log until the user's state in Redis holds it",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)

SILENCE_SECONDS = 30.0
"""A consumer that has not asked the log for this long is not well; one batch takes far less."""


class Health:
    """What the consumer last said of itself. Written by its thread, read by the HTTP server's."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic):
        self._monotonic = monotonic
        self._polled_at: float | None = None
        self._partitions = 0
        self._trouble = ""

    def polled(self, partitions: int, lag: int) -> None:
        """The log was asked; `lag` messages wait in the `partitions` that are ours."""
        self._polled_at, self._partitions, self._trouble = self._monotonic(), partitions, ""
        LAG.set(lag)

    def troubled(self, error: BaseException) -> None:
        """A service did not answer; the batch will be tried again."""
        self._trouble = f"{type(error).__name__}: {str(error).strip()}"
        RETRIES.labels(type(error).__name__).inc()

    def report(self) -> tuple[bool, str]:
        """Return whether the consumer is well, and a sentence."""
        if self._trouble:
            return False, f"retrying: {self._trouble}"
        if self._polled_at is None:
            return False, "starting"
        silence = self._monotonic() - self._polled_at
        if silence > SILENCE_SECONDS:
            return False, f"silent for {silence:.0f} s"
        return True, f"consuming {self._partitions} partitions"


def serve(health: Health, url: str) -> ThreadingWSGIServer:
    """Answer GET /healthz (200 or 503) and GET /metrics at this address, from a thread of its own.

    Raises:
        RecsysError: the port is taken.
    """
    metrics = make_wsgi_app()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            return metrics(environ, start_response)
        if environ["PATH_INFO"] == "/healthz":
            is_well, sentence = health.report()
            if is_well:
                return _json(start_response, "200 OK", {"status": sentence})
            return _json(
                start_response, "503 Service Unavailable", {"error": {"code": "unavailable", "message": sentence}}
            )
        message = "There are /healthz and /metrics"
        return _json(start_response, "404 Not Found", {"error": {"code": "not_found", "message": message}})

    address = urlsplit(url)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    try:
        server = make_server(host, port, answer, ThreadingWSGIServer, _QuietHandler)
    except OSError as error:
        raise RecsysError("RECSYS_STREAMING_URL", url, f"{error.strerror}; choose another port") from error
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Health checks are no news."""


def _json(start_response: Callable[..., Any], status: str, body: dict[str, Any]) -> list[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]
