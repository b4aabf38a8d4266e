"""What the tests of the consumer do with the real log."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import tenacity
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from recsys.artifacts import CONSUMER_GROUP, DEAD_LETTER_SUFFIX, TOPIC_INTERACTIONS
from recsys.settings import Settings


@contextmanager
def producer(settings: Settings) -> Iterator[Callable[..., None]]:
    """Yield a function that sends bodies, keyed by their user, and returns when the log has them."""
    with closing(KafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all", linger_ms=5)) as client:

        def send(*bodies: Any, topic: str = TOPIC_INTERACTIONS) -> None:
            for body in bodies:
                value = body if isinstance(body, bytes) else json.dumps(body).encode()
                key = body["user_id"].encode() if isinstance(body, dict) else b"?"
                client.send(settings.topic_prefix + topic, key=key, value=value)
            client.flush(timeout=30)

        yield send


def dead_letters(settings: Settings, topic: str = TOPIC_INTERACTIONS) -> list[Any]:
    """Return all records of a dead-letter topic, oldest first."""
    with closing(KafkaConsumer(bootstrap_servers=settings.kafka_bootstrap, auto_offset_reset="earliest")) as client:
        name = settings.topic_prefix + topic + DEAD_LETTER_SUFFIX
        partitions = [TopicPartition(name, number) for number in client.partitions_for_topic(name)]
        client.assign(partitions)
        ends = client.end_offsets(partitions)
        found: list[Any] = []
        while any(client.position(one) < end for one, end in ends.items()):
            found += [record for records in client.poll(timeout_ms=1000).values() for record in records]
    return sorted(found, key=lambda record: record.timestamp)


def uncommitted(settings: Settings, topic: str = TOPIC_INTERACTIONS) -> int:
    """Return how many messages of a topic the consumers' group has not committed."""
    group = settings.topic_prefix + CONSUMER_GROUP
    with closing(KafkaConsumer(bootstrap_servers=settings.kafka_bootstrap, group_id=group)) as client:
        name = settings.topic_prefix + topic
        partitions = [TopicPartition(name, number) for number in client.partitions_for_topic(name)]
        ends = client.end_offsets(partitions)
        return sum(end - (client.committed(one) or 0) for one, end in ends.items())


def landed(settings: Settings) -> int:
    with psycopg.connect(settings.postgres_url) as connection:
        return connection.execute("select count(*) from raw.interactions_stream").fetchone()[0]


def eventually(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Return the condition's first true value; fails after so many seconds."""
    ask = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda result: not result),
        wait=tenacity.wait_fixed(0.02),
        stop=tenacity.stop_after_delay(seconds),
    )
    return ask(condition)
