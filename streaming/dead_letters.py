"""The dead-letter topics: refused messages with their reason, and the way back after a fix."""

from collections.abc import Iterable, Iterator

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from recsys.artifacts import CONSUMER_GROUP, DEAD_LETTER_SUFFIX
from recsys.errors import RecsysError, ServiceUnavailable
from recsys.settings import Settings
from streaming.events import SCHEMAS, TOO_LARGE, Refused

PATIENCE_SECONDS = 10


def headers(refused: Refused) -> list[tuple[str, bytes]]:
    """Return what a dead letter says of itself; its key and value are the refused message's own, untouched."""
    message = refused.message
    told = {
        "reason": refused.reason,
        "detail": refused.detail,
        "origin": f"{message.topic}/{message.partition}/{message.offset}",
        "sent_at": message.sent_at.isoformat(),
    }
    return [(name, text.encode()) for name, text in told.items()]


class DeadLetters:
    """Writes refused messages to `<topic>.dlq`. At least once: `origin` tells repeated ones apart."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._producer: KafkaProducer | None = None

    def write(self, refused: Iterable[Refused]) -> None:
        """Write and wait until the log has them.

        Raises:
            kafka.errors.KafkaError: the log did not take them.
        """
        sent = [
            self._open().send(
                self._settings.topic_prefix + one.message.topic + DEAD_LETTER_SUFFIX,
                key=one.message.key,
                value=one.message.value,
                headers=headers(one),
            )
            for one in refused
        ]
        for future in sent:
            future.get(timeout=PATIENCE_SECONDS)

    def close(self) -> None:
        if self._producer:
            self._producer.close(timeout=PATIENCE_SECONDS)

    def _open(self) -> KafkaProducer:
        if self._producer is None:
            self._producer = KafkaProducer(bootstrap_servers=self._settings.kafka_bootstrap.split(","), acks="all")
        return self._producer


def replay(settings: Settings, topic: str) -> dict[str, int | bool]:
    """Send the dead letters of a topic back to it, once each: those that were there when the replay began.

    What is still wrong is refused again and becomes a new dead letter. Those that were cut for their length are
    skipped. Killed half-way, the next replay sends some again, which the consumer counts once.

    Raises:
        RecsysError: no such topic.
        ServiceUnavailable: the log stopped answering.
    """
    if topic not in SCHEMAS:
        raise RecsysError("--topic", topic, f"Choose among {', '.join(SCHEMAS)}")
    replayed = skipped = 0
    servers = settings.kafka_bootstrap.split(",")
    consumer = KafkaConsumer(
        bootstrap_servers=servers,
        group_id=f"{settings.topic_prefix}{CONSUMER_GROUP}-replay",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer = KafkaProducer(bootstrap_servers=servers, acks="all")
    try:
        for batch in _until_the_end(consumer, settings.topic_prefix + topic + DEAD_LETTER_SUFFIX):
            kept = [record for record in batch if dict(record.headers).get("reason") != TOO_LARGE.encode()]
            sent = [producer.send(settings.topic_prefix + topic, key=one.key, value=one.value) for one in kept]
            for future in sent:
                future.get(timeout=PATIENCE_SECONDS)
            last = batch[-1]
            consumer.commit({TopicPartition(last.topic, last.partition): OffsetAndMetadata(last.offset + 1, "", -1)})
            replayed, skipped = replayed + len(kept), skipped + len(batch) - len(kept)
    finally:
        producer.close(timeout=PATIENCE_SECONDS)
        consumer.close(autocommit=False)
    return {"replayed": replayed, "skipped": skipped, "unchanged": replayed == 0}


def _until_the_end(consumer: KafkaConsumer, topic: str) -> Iterator[list]:
    """Yield batches of one partition each, from the committed offset to where the topic ended at the beginning."""
    partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions) if partitions else {}
    while open_partitions := [one for one in partitions if consumer.position(one) < ends[one]]:
        consumer.pause(*set(partitions).difference(open_partitions, consumer.paused()))
        polled = consumer.poll(timeout_ms=PATIENCE_SECONDS * 1000)
        if not polled:
            raise ServiceUnavailable("Kafka", topic, "No message came although there are some; look at its log")
        for partition, records in polled.items():
            if batch := [record for record in records if record.offset < ends[partition]]:
                yield batch
