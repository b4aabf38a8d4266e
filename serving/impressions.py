"""Impressions to Kafka, in the carrier: they wait for the log, and nobody waits for them."""

import json
import logging
import threading
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError

from recsys.artifacts import TOPIC_IMPRESSIONS
from recsys.schemas import MAX_SHOWN
from serving.metrics import KAFKA, Metrics
from serving.producers import FLUSH_SECONDS, RETRY_SECONDS, close_producer, producer

log = logging.getLogger(__name__)

IMPRESSIONS_WAITING = 50_000
"""Shown items that may wait for their acknowledgement, about 1 kB each; what comes on top is dropped and counted."""

USER_HEAD, ITEM_HEAD = b'"user_id":"', b'"item_id":'
"""How the user and each item of a `ShownList` begin, as serving writes it (serving/ports.py)."""
GATHER_SECONDS = 0.02
LINGER_MS = 50
"""How long impressions are gathered into a batch."""


class Line(NamedTuple):
    """What one answer has shown, as text, and for whom it is counted."""

    text: bytes
    user: bytes
    items: int

    @classmethod
    def read(cls, text: bytes) -> "Line":
        """Read what is needed of a `ShownList` without taking it apart: inside of a JSON text no quote stands bare."""
        _, _, behind = text.partition(USER_HEAD)
        user, _, _ = behind.partition(b'"')
        if b"\\" in user:  # an id with a quote or a character that JSON writes otherwise
            user = json.loads(text)["user_id"].encode()
        return cls(text, user, text.count(ITEM_HEAD))


class ImpressionWriter:
    """A producer, and one thread that connects it and sends what answers have shown, one message an answer.

    Kafka may be dead at the start and die later: impressions wait while there is room.
    """

    def __init__(self, bootstrap: str, topic_prefix: str, metrics: Metrics):
        self._bootstrap, self._topic, self._metrics = bootstrap, topic_prefix + TOPIC_IMPRESSIONS, metrics
        self._room = _Room(IMPRESSIONS_WAITING)
        self._waiting: SimpleQueue[Line] = SimpleQueue()
        self._producer: KafkaProducer | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="impressions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Publish what waits, within twice `FLUSH_SECONDS`; the rest is lost, as a dead Kafka makes it."""
        self._closing.set()
        if self._producer is None and self._waiting.empty():  # still connecting, and nothing to lose
            return
        self._thread.join(FLUSH_SECONDS)
        if self._producer is not None:
            close_producer(self._producer)

    def put(self, line: bytes) -> None:
        """Take an answer that was shown; what finds no room is counted and dropped."""
        shown = Line.read(line)
        if self._room.take(shown.items):
            self._waiting.put(shown)
        else:
            self._metrics.impressions_dropped.labels("no_room").inc(shown.items)

    def _run(self) -> None:
        while self._producer is None and not self._closing.is_set():
            self._connect()
        while not (self._closing.wait(GATHER_SECONDS) and self._waiting.empty()):
            self._drain()

    def _drain(self) -> None:
        try:
            while True:
                self._send(self._waiting.get_nowait())
        except Empty:
            return

    def _connect(self) -> None:
        try:
            self._producer = producer(self._bootstrap, self._topic, LINGER_MS)
        except KafkaError as error:
            log.warning("Kafka does not answer: %s", error)
            self._metrics.dependency_errors.labels(KAFKA).inc()
            self._closing.wait(RETRY_SECONDS)

    def _send(self, line: Line) -> None:
        if self._producer is None:  # closing, and there never was a connection
            self._lost(line.items, "undelivered")
            return
        for text, items in _messages(line):
            try:
                sent = self._producer.send(self._topic, text, line.user)
            except KafkaError:
                self._undelivered(items)
            else:
                sent.add_callback(partial(self._delivered, items))
                sent.add_errback(partial(self._undelivered, items))

    def _delivered(self, items: int, _: Any) -> None:
        self._room.give_back(items)
        self._metrics.published.labels(TOPIC_IMPRESSIONS, "acknowledged").inc(items)

    def _undelivered(self, items: int, _: Any = None) -> None:
        self._metrics.published.labels(TOPIC_IMPRESSIONS, "failed").inc(items)
        self._lost(items, "undelivered")

    def _lost(self, items: int, reason: str) -> None:
        self._room.give_back(items)
        self._metrics.impressions_dropped.labels(reason).inc(items)


def _messages(line: Line) -> list[tuple[bytes, int]]:
    """Return a line in pieces that a message may hold, each with its number of items."""
    if line.items <= MAX_SHOWN:
        return [(line.text, line.items)]
    said: dict[str, Any] = json.loads(line.text)
    pieces = [said["items"][start : start + MAX_SHOWN] for start in range(0, line.items, MAX_SHOWN)]
    return [(json.dumps(said | {"items": some}).encode(), len(some)) for some in pieces]


class _Room:
    """A count of free places that several threads take and give back; taking never waits."""

    def __init__(self, places: int):
        self._free, self._lock = places, threading.Lock()

    def take(self, places: int) -> bool:
        with self._lock:
            if places > self._free:
                return False
            self._free -= places
            return True

    def give_back(self, places: int) -> None:
        with self._lock:
            self._free += places
