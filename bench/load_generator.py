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

HEADER_END = b"\r\n\r\n"


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
    seed: int = 1


class Connection:
    """One kept-alive HTTP/1.1 connection with at most one request on its way."""

    def __init__(self, host: str, port: int):
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._received = bytearray()
        self._wanted = -1

    def send(self, request: bytes, due: float) -> None:
        self.due = due
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
            self._wanted = end + len(HEADER_END) + _content_length(bytes(self._received[:end]))
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


def run(plan: Plan) -> dict[str, Any]:
    """Send the plan's requests; return the report."""
    messages = [_message(plan, *request) for request in plan.requests]
    idle = deque(Connection(plan.host, plan.port) for _ in range(plan.connections))
    expected = plan.expected.encode()
    busy: dict[socket.socket, Connection] = {}
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    wrong = sent = 0
    started = perf_counter()
    end = started + plan.seconds
    due = started + _arrivals(plan)  # empty in a closed loop
    while True:
        now = perf_counter()
        if now > end + PATIENCE_SECONDS:
            break
        while idle and (sent < len(due) and due[sent] <= now if plan.rate else now < end):
            connection = idle.popleft()
            connection.send(messages[sent % len(messages)], due[sent] if plan.rate else perf_counter())
            busy[connection.socket] = connection
            sent += 1
        if not busy and (sent >= len(due) if plan.rate else now >= end):
            break
        wait = max(0.0, due[sent] - now) if plan.rate and sent < len(due) and idle else PATIENCE_SECONDS
        for ready in select.select(list(busy), [], [], wait)[0]:
            connection = busy[ready]
            if connection.receive():
                latencies.append(perf_counter() - connection.due)
                statuses[connection.status] += 1
                wrong += not connection.holds(expected)
                idle.append(connection)
                del busy[ready]
    seconds = perf_counter() - started
    return _report(np.array(latencies), seconds, statuses, wrong, lost=sent - len(latencies))


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
