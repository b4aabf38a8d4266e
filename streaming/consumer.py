"""The consumer: a batch from the log, its effects, then the commit. At least once, with effects that may repeat.

Order of the effects, and why a crash between any two of them loses and doubles nothing:

    raw tables      one transaction; an event_id that is there already stays
    Redis           the user's history and features follow from the raw tables, so writing them again changes nothing
    Feast           as Redis; a row that is not newer is left out by Feast
    dead letters    may repeat; each names its origin
    commit          until here, the log hands the same batch out again

Messages are keyed by user_id, so one user's events go through one consumer at a time.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
import redis
import tenacity
from kafka import KafkaConsumer
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    RebalanceInProgressError,
    RetriableError,
    UnknownMemberIdError,
)

from recsys.errors import ServiceUnavailable
from recsys.settings import Settings
from streaming import state
from streaming.activity import UserFeatures
from streaming.dead_letters import DeadLetters
from streaming.events import SCHEMAS, Effects, Message, Refused, plan
from streaming.feature_push import FeaturePush
from streaming.health import BATCH_SECONDS, EVENT_TO_STATE_SECONDS, EVENTS, PUSHED, REFUSED, Health
from streaming.land import QUERY_OPTIONS, Landed, land, user_state_lock
from streaming.membership import subscribe

log = logging.getLogger(__name__)

POLL_MS = 200
MAX_BATCH = 2000
"""Messages of a batch when a backlog waits: a user who stands in it twice costs little more than once."""
COMMIT_PATIENCE_MS = 5000
TRANSIENT = (psycopg.OperationalError, redis.ConnectionError, redis.TimeoutError, redis.exceptions.ReadOnlyError,
             redis.exceptions.OutOfMemoryError, RetriableError, ServiceUnavailable)  # fmt: skip
NO_WRITES = "MISCONF"
"""How Redis refuses writes while its disk is full; the client library has no type for it."""
REBALANCED = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)

Push = Callable[[dict[str, UserFeatures]], int]


def will_pass(error: BaseException) -> bool:
    """Whether what failed is to be tried again: a service is away, or has no room at the moment."""
    return isinstance(error, TRANSIENT) or (isinstance(error, redis.ResponseError) and str(error).startswith(NO_WRITES))


def patiently(stopping: threading.Event, health: Health) -> tenacity.Retrying:
    """Return the loop that repeats what a missing service prevented, until it is back or the process has to end."""

    def tell(attempt: tenacity.RetryCallState) -> None:
        error = attempt.outcome.exception()
        health.troubled(error)
        log.warning("attempt %s: %s: %s", attempt.attempt_number, type(error).__name__, str(error).strip())

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(will_pass),
        wait=tenacity.wait_exponential_jitter(initial=0.1, max=5),
        stop=tenacity.stop_when_event_set(stopping),
        sleep=tenacity.sleep_using_event(stopping),
        before_sleep=tell,
        reraise=True,
    )


class Batches:
    """Carries out the effects of batches of messages. Holds the connections, reopens what broke."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime], push: Push | None = None):
        """Prepare; nothing is connected yet. `push` stands in place of the write into Feast's online store."""
        self._settings, self._clock = settings, clock
        self._redis = redis.Redis.from_url(settings.redis_url, socket_timeout=5, socket_connect_timeout=5)
        self._push = push or FeaturePush(self._redis)
        self._dead_letters = DeadLetters(settings)
        self._postgres: psycopg.Connection | None = None

    def handle(self, messages: list[Message]) -> None:
        """Carry out all effects of these messages; when this returns, they need not come again.

        Raises:
            one of `TRANSIENT`: a service did not answer; some effects may be done, and all may be repeated.
        """
        effects = plan(messages, self._clock())
        try:
            landed = self._land(effects)
        except psycopg.DataError as error:
            if len(messages) > 1:  # find the one that PostgreSQL refuses; the others land
                half = len(messages) // 2
                self.handle(messages[:half])
                self.handle(messages[half:])
                return
            landed = Landed(0, 0, {}, {})
            effects = Effects(refused=[Refused(messages[0], "refused_by_postgres", str(error).strip())])
        self._measure_latency(messages, landed)
        with BATCH_SECONDS.labels("feast").time():
            PUSHED.inc(self._push(landed.features))
        self._dead_letters.write(effects.refused)
        _count(effects, landed)

    def close(self) -> None:
        self._dead_letters.close()
        self._redis.close()
        if self._postgres:
            self._postgres.close()

    def _land(self, effects: Effects) -> Landed:
        connection = self._connection()
        with user_state_lock(connection):
            with BATCH_SECONDS.labels("postgres").time():
                landed = land(connection, effects)
            with BATCH_SECONDS.labels("redis").time():
                state.write_landed(self._redis, landed)
        return landed

    def _connection(self) -> psycopg.Connection:
        if self._postgres is None or self._postgres.closed:
            self._postgres = psycopg.connect(
                self._settings.postgres_url,
                autocommit=True,
                connect_timeout=5,
                tcp_user_timeout=10_000,
                options=f"-c statement_timeout=30s {QUERY_OPTIONS}",
            )
        return self._postgres

    def _measure_latency(self, messages: list[Message], landed: Landed) -> None:
        now = self._clock()
        if landed.items:
            for message in messages:
                EVENT_TO_STATE_SECONDS.observe(max((now - message.sent_at).total_seconds(), 0))


def consume(settings: Settings, batches: Batches, health: Health, stopping: threading.Event) -> None:
    """Consume until `stopping` is set: then the batch in hand is finished and committed, and the group left."""
    retrying = patiently(stopping, health)
    try:
        while not stopping.is_set():
            consumer, rebalances = retrying(subscribe, settings)
            try:
                while not stopping.is_set() and not rebalances.stalled:
                    polled = retrying(consumer.poll, timeout_ms=POLL_MS, max_records=MAX_BATCH)
                    health.polled(*retrying(_backlog, consumer))
                    messages = [message(settings, record) for records in polled.values() for record in records]
                    if messages:
                        retrying(batches.handle, messages)
                        retrying(_commit, consumer)
            finally:
                consumer.close(autocommit=False, timeout_ms=COMMIT_PATIENCE_MS)
            if not stopping.is_set():
                log.warning("the group's rebalance did not end: subscribing anew")
    except (*TRANSIENT, redis.ResponseError) as error:  # only when told to end in the middle of an outage
        if not will_pass(error):
            raise
        log.warning("ended without a commit, the last batch will come again: %s", error)


def message(settings: Settings, record: Any) -> Message:
    """Return a record of kafka-python as ours."""
    return Message(
        record.topic.removeprefix(settings.topic_prefix), record.partition, record.offset, record.key, record.value,
        datetime.fromtimestamp(record.timestamp / 1000, UTC),
    )  # fmt: skip


def _commit(consumer: KafkaConsumer) -> None:
    try:
        consumer.commit(timeout_ms=COMMIT_PATIENCE_MS)
    except REBALANCED as error:
        log.warning("the group has moved on, the batch will come again: %s", error)


def _backlog(consumer: KafkaConsumer) -> tuple[int, int]:
    """Return the number of our partitions, and of the messages in them beyond our position as far as we know."""
    partitions = consumer.assignment()
    waiting = 0
    for partition in partitions:
        with suppress(IllegalStateError):  # the group has just taken it from us
            end = consumer.highwater(partition)
            position = None if end is None else consumer.position(partition, timeout_ms=0)
            waiting += 0 if position is None else end - position
    return len(partitions), waiting


def _count(effects: Effects, landed: Landed) -> None:
    for topic, events, new in zip(
        SCHEMAS,
        (effects.interactions, effects.impressions),
        (landed.new_interactions, landed.new_impressions),
        strict=True,
    ):
        EVENTS.labels(topic, "landed").inc(new)
        EVENTS.labels(topic, "repeated").inc(len(events) - new)
    for one in effects.refused:
        EVENTS.labels(one.message.topic, "refused").inc()
        REFUSED.labels(one.message.topic, one.reason).inc()
