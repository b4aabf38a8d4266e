"""A load generator that leaves nothing out: latency runs from the instant at which a request was meant to be sent.

    python -m bench.load_generator < plan.json > report.json

A process of its own, one thread, no event loop: `select` waits to the microsecond where event loops round to
milliseconds. Two modes:

    open     requests are due at the instants of a Poisson process, whatever the service does. A request that finds no
             free connection waits, and its wait counts (no coordinated omission, see Gil Tene's talks on latency)
    closed   each connection sends its next request when its last one is answered: throughput
"""

import json
import select
import socket
import sys
from collections import Counter, deque
from time import perf_counter
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

BUCKETS_A_DOUBLING = 16
"""Resolution of the histogram: a bucket is 4 % wide, as in an HDR histogram of that precision."""

PATIENCE_SECONDS = 10.0
"""How long after the last request answers are waited for; what is missing then is counted as lost."""

RECONNECT_SECONDS = 0.01
"""How soon a connection is tried again when nobody listens."""

HEADER_END = b"\r\n\r\n"
LAST = b"\r\nconnection: close"


class Plan(BaseModel):
    """What to send, and how."""

    model_config = ConfigDict(extra="forbid")

    host: str
    port: int
    requests: list[tuple[str, str, str]] = Field(min_length=1, description="method, path, body; sent in turns")
    expected: str = Field("", description="text that every right answer holds")
    connections: int = Field(ge=1, le=512)
    seconds: float = Field(gt=0)
    rate: float | None = Field(None, gt=0, description="requests a second, open loop; none: closed loop")
    objective_ms: float = Field(100.0, gt=0, description="answers that take longer are counted as `late`")
    retries: bool = Field(False, description="a request whose connection was lost is sent again on another one")
    seed: int = 1


class Connection:
    """One kept-alive HTTP/1.1 connection with at most one request on its way."""

    def __init__(self, host: str, port: int):
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.request = b""
        self._received = bytearray()
        self._wanted = -1
        self.ends = False
        """Whether the service has said that it closes the connection behind this answer."""

    def send(self, request: bytes, due: float) -> None:
        self.due, self.request = due, request
        self._received.clear()
        self._wanted = -1
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Take what has arrived; return whether the answer is complete.

        Raises:
            ConnectionError: the service has hung up.
        """
        arrived = self.socket.recv(262_144)
        if not arrived:
            raise ConnectionError("the service has closed the connection")
        self._received += arrived
        if self._wanted < 0 and (end := self._received.find(HEADER_END)) >= 0:
            head = bytes(self._received[:end])
            self._wanted = end + len(HEADER_END) + _content_length(head)
            self.ends = LAST in head.lower()
        return 0 <= self._wanted <= len(self._received)

    @property
    def status(self) -> int:
        return int(self._received[9:12])

    def holds(self, expected: bytes) -> bool:
        return expected in self._received


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError(f"an answer without its length: {head!r}")


class Load:
    """The plan under way."""

    def __init__(self, plan: Plan):
        """Connect; the clock starts."""
        self._plan = plan
        self._messages = [_message(plan, *request) for request in plan.requests]
        self._expected = plan.expected.encode()
        self._idle = deque(Connection(plan.host, plan.port) for _ in range(plan.connections))
        self._busy: dict[socket.socket, Connection] = {}
        self._again: deque[tuple[bytes, float]] = deque()  # requests whose connection was lost, and when they were due
        self._away = 0  # connections to be made anew
        self._started = perf_counter()
        self._end = self._started + plan.seconds
        self._due = self._started + _arrivals(plan)  # empty in a closed loop
        self._sent = 0
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.wrong = self.cut = 0

    def run(self) -> dict[str, Any]:
        """Send and receive until all is answered, or patience ends; return the report."""
        while (now := perf_counter()) <= self._end + PATIENCE_SECONDS:
            self._connect()
            self._send(now)
            if not self._busy and not self._again and not self._more(now):
                break
            for ready in select.select(list(self._busy), [], [], self._wait(now))[0]:
                self._receive(self._busy[ready])
        seconds, lost = perf_counter() - self._started, self._sent - len(self.latencies)
        late = int(np.count_nonzero(1000 * np.array(self.latencies) > self._plan.objective_ms))
        report = _report(np.array(self.latencies), seconds, self.statuses, self.wrong, lost)
        return report | {"cut": self.cut, "late": late}

    def _more(self, now: float) -> bool:
        """Whether requests of the plan are still to be sent."""
        return self._sent < len(self._due) if self._plan.rate else now < self._end

    def _wait(self, now: float) -> float:
        is_next = self._plan.rate and self._sent < len(self._due) and self._idle
        wait = max(0.0, self._due[self._sent] - now) if is_next else PATIENCE_SECONDS
        return min(wait, RECONNECT_SECONDS) if self._away else wait

    def _connect(self) -> None:
        while self._away and (made := _connected(self._plan)) is not None:
            self._idle.append(made)
            self._away -= 1

    def _send(self, now: float) -> None:
        """Send what is due, first what has to be sent again, while connections are free."""
        while self._idle and (request := self._next(now)) is not None:
            connection = self._idle.popleft()
            try:
                connection.send(*request)
            except ConnectionError:  # an idle connection that the service has left
                self._lose(connection)
            else:
                self._busy[connection.socket] = connection

    def _next(self, now: float) -> tuple[bytes, float] | None:
        if self._again:
            return self._again.popleft()
        if not self._more(now) or (self._plan.rate and self._due[self._sent] > now):
            return None
        due = self._due[self._sent] if self._plan.rate else perf_counter()
        self._sent += 1
        return self._messages[(self._sent - 1) % len(self._messages)], due

    def _receive(self, connection: Connection) -> None:
        try:
            if not connection.receive():
                return
        except ConnectionError:
            del self._busy[connection.socket]
            self._lose(connection)
            return
        del self._busy[connection.socket]
        self.latencies.append(perf_counter() - connection.due)
        self.statuses[connection.status] += 1
        self.wrong += not connection.holds(self._expected)
        if connection.ends:
            connection.socket.close()
            self._away += 1
        else:
            self._idle.append(connection)

    def _lose(self, connection: Connection) -> None:
        """Send the request of a lost connection again, if the plan says so.

        Raises:
            ConnectionError: it does not.
        """
        if not self._plan.retries:
            raise ConnectionError("the service has closed the connection")
        connection.socket.close()
        self._again.append((connection.request, connection.due))
        self.cut, self._away = self.cut + 1, self._away + 1


def run(plan: Plan) -> dict[str, Any]:
    """Send the plan's requests; return the report."""
    return Load(plan).run()


def _connected(plan: Plan) -> Connection | None:
    """Return a new connection, or None while nobody listens."""
    try:
        return Connection(plan.host, plan.port)
    except ConnectionError:
        return None


def _arrivals(plan: Plan) -> np.ndarray:
    """Return when requests are due, in seconds from the start: a Poisson process of the plan's rate. (n,)"""
    if plan.rate is None:
        return np.empty(0)
    gaps = np.random.default_rng(plan.seed).exponential(1 / plan.rate, size=int(plan.rate * plan.seconds * 1.5) + 50)
    due = np.cumsum(gaps)
    return due[due < plan.seconds]


def _message(plan: Plan, method: str, path: str, body: str) -> bytes:
    content = body.encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {plan.host}\r\nContent-Length: {len(content)}\r\n"
    return (head + ("Content-Type: application/json\r\n" if content else "")).encode() + b"\r\n" + content


def _report(latencies: np.ndarray, seconds: float, statuses: Counter[int], wrong: int, lost: int) -> dict[str, Any]:
    """Return the percentiles and the histogram (upper bound of each bucket in ms → answers)."""
    millis = latencies * 1000
    bucket = np.ceil(np.log2(np.maximum(millis, 1e-3)) * BUCKETS_A_DOUBLING).astype(int)
    bounds, counts = np.unique(bucket, return_counts=True)
    found = np.percentile(millis, (50, 95, 99, 99.9)).round(3).tolist()
    return {
        "answers": len(millis),
        "statuses": dict(statuses),
        "wrong": wrong,
        "lost": lost,
        "per_second": round(len(millis) / seconds, 1),
        **dict(zip(("p50_ms", "p95_ms", "p99_ms", "p999_ms"), found, strict=True)),
        "max_ms": round(float(millis.max()), 3),
        "histogram_ms": {
            f"{2 ** (bound / BUCKETS_A_DOUBLING):.3g}": int(count) for bound, count in zip(bounds, counts, strict=True)
        },
    }


def main() -> None:
    print(json.dumps(run(Plan.model_validate_json(sys.stdin.read()))))


if __name__ == "__main__":
    main()
