"""Apache Kafka of the embedded platform: one KRaft node that is broker and controller."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from infra.local.java import find_java
from infra.local.service import BEHIND_ANSWERS, NotHealthyYet, Service, run
from infra.local.stores import LOOPBACK
from recsys.artifacts import DEAD_LETTER_SUFFIX, TOPIC_IMPRESSIONS, TOPIC_INTERACTIONS
from recsys.settings import HOME, Settings

JARS = HOME / ".venv" / "kafka"
JVM = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
PARTITIONS = 4
CLUSTER_ID = "recsys-local-cluster-A"
"""22 characters, as Kafka wants its base64 ids; fixed, so that formatting twice is the same."""

LOGGING = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


def port_of(bootstrap: str) -> int:
    """Return the port of the first bootstrap server."""
    return int(bootstrap.split(",")[0].rpartition(":")[2])


@contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """Yield an admin client; closed at the end."""
    client = KafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap.split(","), bootstrap_timeout_ms=10_000, request_timeout_ms=10_000
    )
    with closing(client):
        yield client


def topics_of(settings: Settings) -> list[str]:
    """Return the names of all topics of this installation: each with its dead letters."""
    names = [name + suffix for name in (TOPIC_INTERACTIONS, TOPIC_IMPRESSIONS) for suffix in ("", DEAD_LETTER_SUFFIX)]
    return [settings.topic_prefix + name for name in names]


def create_topics(settings: Settings) -> None:
    """Create the topics that are missing and wait until they can be used."""
    with admin(settings) as client:
        missing = sorted(set(topics_of(settings)) - set(client.list_topics()))
        if missing:
            client.create_topics({name: {"num_partitions": PARTITIONS} for name in missing}, wait_for_metadata=True)


def server_properties(port: int, folder: Path) -> str:
    """Return the node's configuration: one replica of everything, topics made on purpose only."""
    properties = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{port + 1}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{port + 1}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": f"{LOOPBACK}:{port + 1}",
        "log.dirs": folder / "log",
        "auto.create.topics.enable": "false",
        "num.partitions": PARTITIONS,
        "default.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "log.retention.hours": 168,
        "log.segment.bytes": 64 * 1024 * 1024,
        "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
    }
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def kafka(settings: Settings) -> Service:
    """Apache Kafka on the port of `kafka_bootstrap`; its controller listens on the next port."""
    port = port_of(settings.kafka_bootstrap)
    folder = settings.var_dir.resolve() / "kafka"
    configuration, logging = folder / "server.properties", folder / "log4j2.properties"
    java = (find_java(), *JVM, f"-Dlog4j2.configurationFile={logging}", "-cp", f"{JARS}/*")

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        logging.write_text(LOGGING)
        configuration.write_text(server_properties(port, folder))
        if (folder / "log" / "meta.properties").exists():
            return
        shutil.rmtree(folder / "log", ignore_errors=True)  # formatting that was cut short
        run([*java, "kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c", str(configuration)])

    def check() -> None:
        try:
            socket.create_connection((LOOPBACK, port), timeout=2).close()  # the client would keep on trying by itself
            with admin(settings) as client:
                client.describe_cluster()
        except (KafkaError, OSError) as error:
            raise NotHealthyYet(f"{settings.kafka_bootstrap}: {error}") from error

    return Service(
        name="kafka",
        command=(*java, "kafka.Kafka", str(configuration)),
        address=settings.kafka_bootstrap,
        ports=(port, port + 1),
        check=check,
        prepare=prepare,
        furnish=lambda: create_topics(settings),
        niceness=BEHIND_ANSWERS,
    )
