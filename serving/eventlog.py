"""The log of events on Kafka: an interaction waits for its acknowledgement; impressions go by the outbox."""

import asyncio
import logging
import threading

from kafka import KafkaProducer
from kafka.errors import KafkaError

from recsys.artifacts import TOPIC_INTERACTIONS
from recsys.errors import ServiceUnavailable
from recsys.schemas import Interaction
from serving.breaker import CircuitBreaker
from serving.metrics import KAFKA, Metrics
from serving.producers import RETRY_SECONDS, close_producer, message, producer

log = logging.getLogger(__name__)

ACKNOWLEDGED_SECONDS = 2.0
"""How long a client waits for the log to take its event."""


class KafkaEventLog:
    """An idempotent producer (acks=all) and the thread that connects it.

    Kafka may be dead at the start and die later: events are refused meanwhile.
    """

    def __init__(self, bootstrap: str, topic_prefix: str, metrics: Metrics, breaker: CircuitBreaker):
        self._bootstrap, self._topic = bootstrap, topic_prefix + TOPIC_INTERACTIONS
        self._metrics, self._breaker = metrics, breaker
        self._producer: KafkaProducer | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._connect, name="event-log", daemon=True)

    def start(self) -> None:
        """Start connecting; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Flush what was published. A connection that is only being made is not waited for: nothing went through it."""
        self._closing.set()
        if self._producer is not None:
            close_producer(self._producer)

    async def publish(self, interaction: Interaction) -> None:
        if self._producer is None:
            raise _unavailable("not connected")
        if not self._breaker.allows():
            raise _unavailable("left alone after repeated failures")
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
                sent = await asyncio.to_thread(self._producer.send, self._topic, *message(interaction))
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

    def _connect(self) -> None:
        while self._producer is None and not self._closing.is_set():
            try:
                self._producer = producer(self._bootstrap, self._topic, linger_ms=0)
            except KafkaError as error:
                log.warning("Kafka does not answer: %s", error)
                self._metrics.dependency_errors.labels(KAFKA).inc()
                self._closing.wait(RETRY_SECONDS)


def _unavailable(why: str) -> ServiceUnavailable:
    return ServiceUnavailable("event log", why, "Send the event again with the same event_id; it counts once")
