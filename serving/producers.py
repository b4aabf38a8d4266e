"""Producers of Kafka as this station uses them: idempotent, acknowledged by all, and connected when returned."""

import logging

from kafka import KafkaProducer
from kafka.errors import KafkaError
from pydantic import BaseModel

log = logging.getLogger(__name__)

DELIVERY_SECONDS = 30.0
"""How long a message may wait for a broker that is restarting."""

CONNECT_SECONDS = 2.0
RETRY_SECONDS = 1.0
FLUSH_SECONDS = 4.0


def producer(bootstrap: str, topic: str, linger_ms: int) -> KafkaProducer:
    """Return a producer that knows the topic's partitions, so that sending does not wait for them.

    Raises:
        KafkaError: no broker answers.
    """
    made = KafkaProducer(
        bootstrap_servers=bootstrap.split(","),
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
    try:
        made.partitions_for(topic)
    except KafkaError:
        made.close(timeout=0)
        raise
    return made


def close_producer(made: KafkaProducer) -> None:
    """Flush and close, within `FLUSH_SECONDS`; the rest is lost, as a dead Kafka makes it."""
    try:
        made.close(timeout=FLUSH_SECONDS)
    except KafkaError as error:
        log.warning("not everything was flushed: %s", error)


def message(event: BaseModel) -> tuple[bytes, bytes]:
    """Return value and key, in the order of `KafkaProducer.send`."""
    return event.model_dump_json().encode(), event.user_id.encode()
