"""The log of events on Kafka: an interaction waits for its acknowledgement, impressions never make anybody wait."""

import asyncio
import logging
import threading
from queue import Empty, SimpleQueue
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError
from pydantic import BaseModel, ValidationError

from recsys.artifacts import TOPIC_IMPRESSIONS, TOPIC_INTERACTIONS
from recsys.errors import ServiceUnavailable
from recsys.schemas import Interaction
from serving.breaker import CircuitBreaker
from serving.metrics import KAFKA, Metrics
from serving.ports import Shown

log = logging.getLogger(__name__)

IMPRESSIONS_WAITING = 50_000
"""Shown items that may wait for their acknowledgement, about 1 kB each; what comes on top is dropped and counted."""

GATHER_SECONDS = 0.05
"""How often the thread takes what waits: waking it for each answer would make the answers wait for it."""

IMPRESSIONS_LINGER_MS = 50
"""How long impressions are gathered into a batch; an interaction is sent at once."""

ACKNOWLEDGED_SECONDS = 2.0
"""How long a client waits for the log to take its event."""

DELIVERY_SECONDS = 30.0
"""How long a message may wait for a broker that is restarting."""

CONNECT_SECONDS = 2.0
RETRY_SECONDS = 1.0
FLUSH_SECONDS = 4.0


class KafkaEventLog:
    """Two idempotent producers (acks=all), and one thread that connects them and turns answers into impressions.

    Kafka may be dead at the start and die later: events are refused meanwhile, impressions wait while there is room.
    """

    def __init__(self, bootstrap: str, topic_prefix: str, metrics: Metrics, breaker: CircuitBreaker):
        self._bootstrap = bootstrap.split(",")
        self._interactions = topic_prefix + TOPIC_INTERACTIONS
        self._impressions = topic_prefix + TOPIC_IMPRESSIONS
        self._metrics, self._breaker = metrics, breaker
        self._room = _Room(IMPRESSIONS_WAITING)
        self._waiting: SimpleQueue[Shown] = SimpleQueue()
        self._producers: tuple[KafkaProducer, KafkaProducer] | None = None  # for interactions, for impressions
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)

    def start(self) -> None:
        """Start connecting; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Publish what waits, within three times `FLUSH_SECONDS`; the rest is lost, as a dead Kafka makes it."""
        self._closing.set()
        self._thread.join(FLUSH_SECONDS)
        for producer in self._producers or ():
            try:
                producer.close(timeout=FLUSH_SECONDS)
            except KafkaError as error:
                log.warning("not everything was flushed: %s", error)

    async def publish(self, interaction: Interaction) -> None:
        if self._producers is None:
            raise _unavailable("not connected")
        if not self._breaker.allows():
            raise _unavailable("left alone after repeated failures")
        producer, _ = self._producers
        loop = asyncio.get_running_loop()
        acknowledged: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:  # in the loop; the client may have gone meanwhile
            if acknowledged.done():
                return
            if error is None:
                acknowledged.set_result(None)
            else:
                acknowledged.set_exception(error)

        try:
            async with asyncio.timeout(ACKNOWLEDGED_SECONDS):
                sent = await asyncio.to_thread(producer.send, self._interactions, *_message(interaction))
                sent.add_callback(lambda _: loop.call_soon_threadsafe(settle, None))
                sent.add_errback(lambda error: loop.call_soon_threadsafe(settle, error))
                await acknowledged
        except (KafkaError, TimeoutError) as error:
            self._breaker.failed()
            self._metrics.dependency_errors.labels(KAFKA).inc()
            self._metrics.published.labels(TOPIC_INTERACTIONS, "failed").inc()
            raise _unavailable(f"no acknowledgement ({type(error).__name__})") from error
        self._breaker.succeeded()
        self._metrics.published.labels(TOPIC_INTERACTIONS, "acknowledged").inc()

    def show(self, shown: Shown) -> None:
        items = len(shown.answer.items)
        if self._room.take(items):
            self._waiting.put(shown)
        else:
            self._metrics.impressions_dropped.labels("no_room").inc(items)

    def _run(self) -> None:
        while self._producers is None and not self._closing.is_set():
            self._connect()
        while not (self._closing.wait(GATHER_SECONDS) and self._waiting.empty()):
            self._drain()

    def _drain(self) -> None:
        try:
            while True:
                self._send_impressions(self._waiting.get_nowait())
        except Empty:
            return

    def _connect(self) -> None:
        producers: list[KafkaProducer] = []
        try:
            producers.append(self._producer(linger_ms=0))
            producers.append(self._producer(linger_ms=IMPRESSIONS_LINGER_MS))
            for producer, topic in zip(producers, (self._interactions, self._impressions), strict=True):
                producer.partitions_for(topic)  # known from here on, so that sending does not wait for it
        except KafkaError as error:
            log.warning("Kafka does not answer: %s", error)
            self._metrics.dependency_errors.labels(KAFKA).inc()
            for producer in producers:
                producer.close(timeout=0)
            self._closing.wait(RETRY_SECONDS)
        else:
            self._producers = (producers[0], producers[1])

    def _producer(self, linger_ms: int) -> KafkaProducer:
        return KafkaProducer(
            bootstrap_servers=self._bootstrap,
            bootstrap_timeout_ms=CONNECT_SECONDS * 1000,
            enable_idempotence=True,
            acks="all",
            linger_ms=linger_ms,
            max_block_ms=1000,
            request_timeout_ms=5000,
            delivery_timeout_ms=DELIVERY_SECONDS * 1000,
            reconnect_backoff_max_ms=1000,
            metrics_enabled=False,
        )

    def _send_impressions(self, shown: Shown) -> None:
        try:
            impressions = shown.impressions()
        except ValidationError as error:
            log.error("an answer makes no valid impression: %s", error)
            self._lost(len(shown.answer.items), "invalid")
            return
        if self._producers is None:  # closing, and there never was a connection
            self._lost(len(impressions), "undelivered")
            return
        _, producer = self._producers
        for impression in impressions:
            try:
                sent = producer.send(self._impressions, *_message(impression))
            except KafkaError:
                self._undelivered()
            else:
                sent.add_callback(self._delivered)
                sent.add_errback(self._undelivered)

    def _delivered(self, _: Any) -> None:
        self._room.give_back(1)
        self._metrics.published.labels(TOPIC_IMPRESSIONS, "acknowledged").inc()

    def _undelivered(self, _: Any = None) -> None:
        self._metrics.published.labels(TOPIC_IMPRESSIONS, "failed").inc()
        self._lost(1, "undelivered")

    def _lost(self, items: int, reason: str) -> None:
        self._room.give_back(items)
        self._metrics.impressions_dropped.labels(reason).inc(items)


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


def _unavailable(why: str) -> ServiceUnavailable:
    return ServiceUnavailable("event log", why, "Send the event again with the same event_id; it counts once")


def _message(event: BaseModel) -> tuple[bytes, bytes]:
    """Return value and key, in the order of `KafkaProducer.send`."""
    return event.model_dump_json().encode(), event.user_id.encode()
