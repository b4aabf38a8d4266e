"""What the clouds' emulators share: a WSGI server on loopback, serving processes behind it, and faults on demand."""

import json
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

from werkzeug.serving import WSGIRequestHandler, make_server

CHANGES = "any call that changes something"
MAX_BODY_BYTES = 1_500_000
"""Of a request to Vertex AI; SageMaker takes 6 MB and Azure ML 1.5 MB, the strictest counts."""


class Call(NamedTuple):
    """One request: its name in the cloud's words, and whether it changes something."""

    operation: str
    changes: bool


class Refused(Exception):
    """The cloud says no: HTTP status and the cloud's own document."""

    def __init__(self, status: int, document: Mapping[str, Any]):
        super().__init__(status, document)
        self.status, self.document = status, document


@dataclass
class Fault:
    """Answers so many calls with a refusal, after letting so many pass.

    `lost`: the call has its effect first and only its answer is lost.
    """

    at: str
    refusal: Refused
    times: int = 1
    after: int = 0
    lost: bool = False


class Kept(WSGIRequestHandler):
    """Keeps connections, as the clouds do: a TLS handshake a client and not a request. Says nothing of each request.

    Werkzeug's own handler closes after each answer, and waits 10 ms before it does.
    """

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write an answer
    disable_nagle_algorithm = True

    def run_wsgi(self) -> None:
        self.wfile.flush()  # a "100 Continue" that was said while the request was read
        environ = self.make_environ()
        asked, length = environ["wsgi.input"], int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = BytesIO(asked.read() if environ.get("wsgi.input_terminated") else asked.read(length))
        said: list[tuple[str, list[tuple[str, str]]]] = []
        body = b"".join(self.server.app(environ, lambda status, headers, *_: said.append((status, headers))))
        status, headers = said[-1]
        self.send_response(int(status[:3]), status[4:])
        given = {name.lower(): value for name, value in headers}
        for name, value in headers:
            if name.lower() not in ("content-length", "connection"):
                self.send_header(name, value)
        is_head = self.command == "HEAD"
        self.send_header("Content-Length", given.get("content-length", "0") if is_head else str(len(body)))
        self.end_headers()
        if not is_head:
            self.wfile.write(body)

    def log_request(self, *_: Any) -> None:
        return


class Emulator(ABC):
    """The WSGI application, served on a free loopback port from a thread.

    Args:
        serving_urls: release version → address of the serving process that has it.
        ssl_context: (certificate, key) for HTTPS.
    """

    def __init__(self, serving_urls: Mapping[str, str], ssl_context: tuple[str, str] | None = None):
        self.serving_urls, self.calls, self.invoked = serving_urls, Counter[str](), 0
        self.faults: list[Fault] = []
        self.answered: list[float] = []
        """When the endpoint was asked, in seconds since the epoch."""
        self.outcome = "ready"
        """What becomes of the next deployments: ready, unhealthy, no image, no quota or stuck."""
        self._lock = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self, threaded=True, ssl_context=ssl_context, request_handler=Kept)
        self.url = f"http{'s' if ssl_context else ''}://127.0.0.1:{self._server.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @abstractmethod
    def billable(self) -> dict[str, int]:
        """Return what the account pays for by the hour now: name → number of machines."""

    @abstractmethod
    def call_of(self, environ: dict) -> Call:
        """Return what is asked."""

    @abstractmethod
    def refusal(self, kind: str) -> Refused:
        """Return the cloud's words for throttled, broken, unavailable, expired, forbidden, quota."""

    @abstractmethod
    def answer(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        """Answer a request that is not to fail.

        Raises:
            Refused: it cannot be done.
        """

    def close(self) -> None:
        self._server.shutdown()

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        call = self.call_of(environ)
        with self._lock:
            self.calls[call.operation] += 1
            fault = self._fault_at(call)
        try:
            if fault and not fault.lost:
                raise fault.refusal
            answered = self.answer(environ, start_response if fault is None else _nobody)
            if fault:
                b"".join(answered)
                raise fault.refusal
            return answered
        except Refused as refused:
            return json_answer(start_response, refused.status, refused.document)

    def _fault_at(self, call: Call) -> Fault | None:
        for fault in self.faults:
            if fault.at != call.operation and not (fault.at == CHANGES and call.changes):
                continue
            if fault.after:
                fault.after -= 1
                continue
            fault.times -= 1
            if not fault.times:
                self.faults.remove(fault)
            return fault
        return None

    def drawn(self, weights: Mapping[str, float]) -> str:
        """Return one of the names by weight, in turn: of a hundred as many as its percent."""
        self.invoked += 1
        self.answered.append(time.time())
        place = self.invoked * 37 % 100 * sum(weights.values()) / 100
        for name, weight in weights.items():
            place -= weight
            if place < 0:
                return name
        raise AssertionError(f"nobody has traffic: {weights}")

    def let_pass(self, seconds: float) -> None:
        """Let so much time pass: all that was asked was asked that much earlier."""
        self.answered = [moment - seconds for moment in self.answered]

    def asked_between(self, since: float, until: float) -> int:
        """Return what this cloud's metrics count."""
        return sum(since <= moment < until for moment in self.answered)

    def ask(self, version: str, route: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the serving process of a release."""
        asked = urllib.request.Request(self.serving_urls[version] + route, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=10) as answered:
                return answered.status, answered.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def body_of(environ: dict) -> bytes:
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def json_answer(
    start_response: Callable, status: int, document: Any, headers: Mapping[str, str] | None = None
) -> list[bytes]:
    given = {"Content-Type": "application/json", **(headers or {})}
    start_response(f"{status} Emulated", list(given.items()))
    return [b"" if status == 204 else json.dumps(document).encode()]


def _nobody(status: str, headers: list, *rest: Any) -> None:
    """Where the answer of a fault with effect goes."""
