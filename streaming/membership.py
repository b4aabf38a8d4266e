"""Membership of the consumer group: a rebalance that does not end is noticed.

kafka-python 3.0.12 loses the outcome of a join that it began because a topic's partitions changed, when the poll that
began it returns before the group has answered: the member then holds no partitions, sends no heartbeats, and waits for
ever. A loaded broker is enough. Nothing of the consumer's public state tells this from a member that is idle; the calls
of its rebalance listener do.
"""

import time
from collections.abc import Callable

from kafka import ConsumerRebalanceListener, KafkaConsumer

from recsys.artifacts import CONSUMER_GROUP
from recsys.settings import Settings
from streaming.events import SCHEMAS

SESSION_MS = 10_000
"""How long a killed consumer's partitions wait for the next one."""
METADATA_MS = 10_000
"""How soon a topic that did not exist is found."""
GATHER_MS, GATHER_BYTES = 25, 65_536
"""How long the broker gathers messages for us, unless so many bytes wait already. A batch costs much whatever is in it
(a transaction, commits, round trips). At 200 events and 300 lists a second there are 15 a second, 40 before, and
consumer, PostgreSQL and Kafka take .39 of a processor in place of .55 (.28 with 50 ms, which a click has to wait)."""
STALLED_SECONDS = 2 * SESSION_MS / 1000
"""A rebalance waits at most one session for a member that died; after twice that it will not end."""


class Rebalances(ConsumerRebalanceListener):
    """Listens when a rebalance begins and ends. Called by kafka-python's thread, asked by the consumer's."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic):
        self._monotonic = monotonic
        self._begun_at: float | None = monotonic()

    def on_partitions_revoked(self, revoked: object) -> None:
        self._begun_at = self._monotonic()

    def on_partitions_lost(self, lost: object) -> None:
        self._begun_at = self._monotonic()

    def on_partitions_assigned(self, assigned: object) -> None:
        self._begun_at = None

    @property
    def stalled(self) -> bool:
        """Whether a rebalance has begun that should have ended long ago; the consumer then has to subscribe anew."""
        begun_at = self._begun_at
        return begun_at is not None and self._monotonic() - begun_at > STALLED_SECONDS


def subscribe(settings: Settings) -> tuple[KafkaConsumer, Rebalances]:
    """Return a new member of the consumers' group.

    Raises:
        kafka.errors.RetriableError: no broker answers.
    """
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap.split(","),
        group_id=settings.topic_prefix + CONSUMER_GROUP,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=SESSION_MS,
        metadata_max_age_ms=METADATA_MS,
        fetch_max_wait_ms=GATHER_MS,
        fetch_min_bytes=GATHER_BYTES,
        reconnect_backoff_max_ms=1_000,
        bootstrap_timeout_ms=5_000,  # then it is our turn to try again, or to end
    )
    rebalances = Rebalances()
    consumer.subscribe([settings.topic_prefix + topic for topic in SCHEMAS], listener=rebalances)
    consumer.topics()  # known before the group is joined, so that their discovery is no reason to join again
    return consumer, rebalances
