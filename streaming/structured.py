"""The consumer as Spark Structured Streaming, for topics that outgrow one process: the same effects, on many executors.

Spark reads the topics; each partition of a micro-batch goes through `Batches.handle`, the very code of the consumer,
on the executor that holds it. A user's messages lie in one partition of a topic, so they keep their order.

Order of what happens, and why a crash between any two of them loses and doubles nothing:

    effects         of all partitions, as in streaming/consumer.py: each may be repeated
    commit          the consumer group's offsets: a query begins where the group stands, and so does a consumer after it

Spark's own checkpoint says the same once more and therefore lives as long as one query. Executors need the platform
environment and this repository, at the same paths, and reach what the settings name.
"""

import json
import logging
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata
from pyspark.errors import PySparkRuntimeError, StreamingQueryException
from pyspark.sql import DataFrame, SparkSession

from recsys.artifacts import CONSUMER_GROUP
from recsys.errors import MissingArtifact, ServiceUnavailable
from recsys.settings import HOME, Settings, default_environment
from streaming.consumer import MAX_BATCH, REBALANCED, Batches, patiently
from streaming.events import SCHEMAS, Message
from streaming.health import Health

log = logging.getLogger(__name__)

JARS = HOME / ".venv" / "kafka"
CONNECTOR = ("spark-sql-kafka-*.jar", "spark-token-provider-kafka-*.jar", "commons-pool2-*.jar", "kafka-clients-*.jar")
"""Fetched and verified by `make setup` (requirements/jars.txt). Of the connector 4.2.0 is the newest that is published;
it runs in Spark 4.3.0, which the test of this module shows."""
MESSAGES_A_TRIGGER = 40_000
LOOK_SECONDS = 0.5
PATIENCE_SECONDS = 60.0
"""How long a partition tries again while a service is down; then the query fails and whoever watches over it starts it
anew, where it was."""
DONE = "topic string, partition int, end long, messages long"

Clock = Callable[[], datetime]


@dataclass
class Progress:
    """What the query has done since it began."""

    batches: int = 0
    messages: int = 0
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    """Topic and partition → the first offset that was not handled yet."""

    def add(self, rows: Iterable[Any]) -> None:
        self.batches += 1
        for topic, partition, end, messages in rows:
            self.messages += messages
            self.ends[topic, partition] = max(end, self.ends.get((topic, partition), 0))


def messages_of(batch: pa.RecordBatch, prefix: str) -> Iterator[Message]:
    """Yield the messages of an Arrow batch of Spark's Kafka source, in its order; the installation's prefix is cut."""
    names = ("topic", "partition", "offset", "key", "value", "timestamp")
    for topic, partition, offset, key, value, at in zip(*(batch[name].to_pylist() for name in names), strict=True):
        sent_at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        yield Message(topic.removeprefix(prefix), partition, offset, key, value, sent_at)


def chunks(messages: Iterable[Message], size: int = MAX_BATCH) -> Iterator[list[Message]]:
    """Yield the messages in lists of at most this size."""
    chunk: list[Message] = []
    for message in messages:
        chunk.append(message)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def carry(settings: Settings, clock: Clock, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Carry out the effects of a partition of a micro-batch; runs on an executor. Yields how far it has come.

    Raises:
        one of the consumer's `TRANSIENT`: a service was away for `PATIENCE_SECONDS`.
    """
    handler = Batches(settings, clock)
    giving_up = threading.Event()
    timer = threading.Timer(PATIENCE_SECONDS, giving_up.set)
    timer.daemon = True
    timer.start()
    retrying = patiently(giving_up, Health())
    progress = Progress()
    try:
        for batch in batches:
            for chunk in chunks(messages_of(batch, settings.topic_prefix)):
                retrying(handler.handle, chunk)
                progress.add((one.topic, one.partition, one.offset + 1, 1) for one in chunk)
    finally:
        timer.cancel()
        handler.close()
    rows = [
        {"topic": topic, "partition": partition, "end": end, "messages": progress.messages if number == 0 else 0}
        for number, ((topic, partition), end) in enumerate(progress.ends.items())
    ]
    if rows:
        types = (pa.string(), pa.int32(), pa.int64(), pa.int64())
        schema = pa.schema(list(zip(("topic", "partition", "end", "messages"), types, strict=True)))
        yield pa.RecordBatch.from_pylist(rows, schema=schema)


def starting_offsets(committed: dict[tuple[str, int], int | None], prefix: str) -> str:
    """Return where a query begins, in Spark's words: where the group stands, else at the earliest message.

    Args:
        committed: topic without prefix and partition → what the group has committed, None where it has nothing.
    """
    told: dict[str, dict[str, int]] = {}
    for (topic, partition), offset in sorted(committed.items()):
        told.setdefault(prefix + topic, {})[str(partition)] = -2 if offset is None else offset
    return json.dumps(told)


class Group:
    """The consumer group's offsets, written without being a member of it."""

    def __init__(self, settings: Settings):
        """Connect.

        Raises:
            ServiceUnavailable: no broker answers.
        """
        self._prefix = settings.topic_prefix
        try:
            self._client = KafkaConsumer(
                bootstrap_servers=settings.kafka_bootstrap.split(","), group_id=self._prefix + CONSUMER_GROUP,
                enable_auto_commit=False, bootstrap_timeout_ms=10_000,
            )  # fmt: skip
        except KafkaError as error:
            raise ServiceUnavailable("Kafka", error, "Start the platform with `make up`") from error
        topics = [(name, self._client.partitions_for_topic(self._prefix + name) or ()) for name in SCHEMAS]
        self.partitions = [(name, number) for name, numbers in topics for number in sorted(numbers)]
        self._client.assign([self._place(*one) for one in self.partitions])

    def _place(self, topic: str, partition: int) -> TopicPartition:
        return TopicPartition(self._prefix + topic, partition)

    def committed(self) -> dict[tuple[str, int], int | None]:
        return {one: self._client.committed(self._place(*one)) for one in self.partitions}

    def commit(self, ends: dict[tuple[str, int], int]) -> None:
        """Say how far we are. A group that has members of its own refuses that; the effects are done all the same."""
        try:
            self._client.commit({self._place(*one): OffsetAndMetadata(end, "", -1) for one, end in ends.items()})
        except REBALANCED as error:
            log.warning("a consumer of the group runs beside this query, both do the same work: %s", error)

    def close(self) -> None:
        self._client.close(autocommit=False)


def run(settings: Settings, clock: Clock, health: Health, stopping: threading.Event, once: bool) -> dict[str, Any]:
    """Run the query until `stopping` is set, or with `once` until what was there at its start is done; return counts.

    Raises:
        MissingArtifact: the connector is not there, or the topics are not.
        ServiceUnavailable: no Java, no broker, or a service was away for too long.
    """
    jars = connector()
    group, progress = Group(settings), Progress()
    if not group.partitions:
        raise MissingArtifact("topics", settings.topic_prefix + ", ".join(SCHEMAS), "Start the platform: `make up`")
    spark = session(settings, jars)
    checkpoint = tempfile.TemporaryDirectory(prefix="checkpoint-", dir=settings.var_dir / "spark")
    try:
        source = spark.readStream.format("kafka").options(**{
            "kafka.bootstrap.servers": settings.kafka_bootstrap,
            "subscribe": ",".join(settings.topic_prefix + name for name in SCHEMAS),
            "startingOffsets": starting_offsets(group.committed(), settings.topic_prefix),
            "maxOffsetsPerTrigger": str(MESSAGES_A_TRIGGER),
            "failOnDataLoss": "false",  # of what retention took, the raw tables cannot know; the others go on
        }).load()  # fmt: skip

        def on_executor(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return carry(settings, clock, batches)

        def effects(batch: DataFrame, number: int) -> None:
            progress.add(batch.mapInArrow(on_executor, DONE).collect())
            group.commit(progress.ends)
            log.info("batch %s: %s messages so far", number, progress.messages)

        writer = source.writeStream.foreachBatch(effects).option("checkpointLocation", checkpoint.name)
        query = (writer.trigger(availableNow=True) if once else writer).start()
        while not stopping.is_set() and not query.awaitTermination(LOOK_SECONDS):
            health.polled(len(group.partitions), lag(query.lastProgress))
        query.stop()
    except StreamingQueryException as error:
        why = str(error).partition("\n")[0]
        raise ServiceUnavailable("the query", why, "Mend what it names and start it again: it goes on") from error
    finally:
        spark.stop()
        checkpoint.cleanup()
        group.close()
    return {"batches": progress.batches, "messages": progress.messages, "unchanged": progress.messages == 0}


def lag(progress: Any) -> int:
    """Return how many messages wait, by Spark's report of its latest micro-batch; 0 before the first."""
    if not progress or not progress["sources"]:
        return 0
    source = progress["sources"][0]
    ends, latest = (json.loads(source[name] or "{}") if isinstance(source[name], str) else source[name] or {}
                    for name in ("endOffset", "latestOffset"))  # fmt: skip
    return sum(
        offset - ends.get(topic, {}).get(partition, offset)
        for topic, partitions in latest.items()
        for partition, offset in partitions.items()
    )


def connector() -> list[Path]:
    """Return the jars that let Spark read Kafka.

    Raises:
        MissingArtifact: they are not there.
    """
    found = [path for pattern in CONNECTOR for path in sorted(JARS.glob(pattern))]
    if len(found) < len(CONNECTOR):
        raise MissingArtifact("Spark's Kafka connector", JARS, "Run `make setup`")
    return found


def session(settings: Settings, jars: list[Path]) -> SparkSession:
    """Return a session without web page, in UTC; a local one listens on loopback only.

    Raises:
        ServiceUnavailable: no Java runtime starts.
    """
    options = {
        "spark.jars": ",".join(map(str, jars)),
        "spark.driver.memory": settings.spark_memory,
        "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto",
        "spark.executorEnv.PYTHONPATH": HOME,
        "spark.local.dir": settings.var_dir / "spark",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.execution.arrow.maxRecordsPerBatch": MAX_BATCH,
        "spark.sql.streaming.stopTimeout": "30s",
    }
    if settings.spark_master.startswith("local"):
        options |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    (settings.var_dir / "spark").mkdir(parents=True, exist_ok=True)
    default_environment(PYSPARK_PYTHON=sys.executable)
    builder = SparkSession.builder.master(settings.spark_master).appName("recsys streaming")
    for name, value in options.items():
        builder = builder.config(name, str(value))
    try:
        return builder.getOrCreate()
    except PySparkRuntimeError as error:
        raise ServiceUnavailable("Spark", error, "Install a JDK 17 and let JAVA_HOME or PATH name it") from error
