"""The Spark session of one landing."""

import math
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pyspark
from pyspark import SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from recsys.errors import ServiceUnavailable
from recsys.settings import Settings, environment

SHORT_JOB_BYTES = 8 << 20
SHUFFLE_PARTITION_BYTES = 64 << 20
SPLIT_BYTES = 128 << 20
"""At most so much of a file is one task's."""

# A short job ends before the second compiler has paid for itself: at 1 M rows it saves a quarter of the whole. To
# interpret expressions, not compile them, is no gain: a day of few events took 17.6 s of processor and not 15.6.
# The metaspace: else Java collects all its garbage on the way to the size that every session reaches.
SHORT_JOB_FLAGS = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -XX:MetaspaceSize=256m"
LONG_JOB_FLAGS = "-XX:+UseParallelGC -XX:MetaspaceSize=256m"
GOOGLE_STORAGE = "org.apache.hadoop.fs.gs.GoogleHadoopFileSystem"
"""Hadoop's connector of gs://, the only one that does not announce itself."""
EXIT_SECONDS = 120
UNUSED = (
    "spark-mllib", "spark-graphx", "spark-hive", "spark-connect", "spark-pipelines", "spark-repl", "spark-kubernetes",
    "spark-yarn", "hive-", "datanucleus-", "derby", "kubernetes-", "volcano-", "vertx-", "breeze", "spire", "arpack",
    "netty-tcnative",
)  # fmt: skip
"""Beginnings of the names of Spark's jars that no landing on this machine needs. Java looks for a name in all jars, and
a session begins with all that its jars announce: only to announce MLlib's functions costs half a second."""
NEEDED = ("hive-storage-api",)
"""Beginnings of names among those that ORC's reader wants, which Spark loads with every other format."""
LOOPBACK = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
"""Not on a cluster, whose executors call the driver: SPARK_LOCAL_IP and spark-defaults.conf are for that."""


@contextmanager
def session(settings: Settings, input_bytes: int, keep_classes: bool = True) -> Iterator[SparkSession]:
    """Yield a session without web page, with UTC as its time zone; stop it at the end. A local one is on loopback only.

    `input_bytes`, the size of all raw files, chooses the JVM's flags and the number of shuffle partitions. With
    `keep_classes`, the first job of an installation leaves an archive of the classes it loaded (some 170 MB,
    below `var_dir`), with which the next ones start in half the time. Java ignores an archive that another Java or
    another Spark has made. On a cluster, or where the user names a Spark of his own (`SPARK_HOME`), all its jars
    are there.

    Raises:
        ServiceUnavailable: no Java runtime starts.
    """
    flags = SHORT_JOB_FLAGS if input_bytes <= SHORT_JOB_BYTES else LONG_JOB_FLAGS
    home = lean_home(settings.var_dir / "spark") if settings.spark_master.startswith("local") else None
    kind = "" if home is None else "-lean"
    archive = settings.var_dir / "spark" / f"classes-{pyspark.__version__}{kind}.jsa"
    draft = archive.with_suffix(".draft")
    makes_archive = keep_classes and not archive.exists()
    if makes_archive:
        archive.parent.mkdir(parents=True, exist_ok=True)
        flags += f" -XX:ArchiveClassesAtExit={draft} -Xlog:cds=off -Xlog:cds+dynamic=off"
    elif archive.exists():
        flags += f" -XX:SharedArchiveFile={archive} -Xlog:cds=off"
    with _session(settings, input_bytes, flags, home) as spark:
        yield spark
    if makes_archive:
        _end_java()
        if draft.exists():
            draft.rename(archive)


def _end_java() -> None:
    """Let the JVM end, which is when it writes the archive, and wait for it."""
    gateway = SparkContext._gateway
    SparkContext._gateway = SparkContext._jvm = None
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(EXIT_SECONDS)


def lean_home(scratch: Path) -> Path:
    """Return a folder that is Spark's home on this machine, with links to the jars that a landing may need.

    Java's archive of classes is good for jars at this very place only: no link leads to the folder itself.
    """
    origin = Path(pyspark.__file__).resolve().parent
    home = scratch.resolve() / f"home-{pyspark.__version__}"
    if (home / "jars").is_dir() and all(path.exists() for path in (home / "jars").iterdir()):
        return home
    draft = home.with_name(f".{uuid.uuid4().hex}")
    (draft / "jars").mkdir(parents=True)
    for path in (origin / "jars").iterdir():
        if path.name.startswith(NEEDED) or not path.name.startswith(UNUSED):
            (draft / "jars" / path.name).symlink_to(path)
    for folder in filter(Path.is_dir, (origin / "bin", origin / "conf", origin / "python")):
        (draft / folder.name).symlink_to(folder)
    shutil.rmtree(home, ignore_errors=True)
    draft.rename(home)
    return home


@contextmanager
def _session(settings: Settings, input_bytes: int, flags: str, home: Path | None) -> Iterator[SparkSession]:
    partitions = max(os.cpu_count() or 1, math.ceil(input_bytes / SHUFFLE_PARTITION_BYTES))
    cores = os.cpu_count() or 1
    rounds = max(1, math.ceil(input_bytes / (cores * SPLIT_BYTES)))
    scratch = settings.var_dir / "spark"
    builder = SparkSession.builder.master(settings.spark_master).appName("etl land")
    options = {
        "spark.driver.memory": settings.spark_memory,
        "spark.driver.extraJavaOptions": flags,
        "spark.pyspark.python": sys.executable,
        "spark.local.dir": scratch,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.warehouse.dir": scratch / "warehouse",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.shuffle.partitions": partitions,
        # Pieces of one size in whole rounds over the cores: no core waits for a last, small one.
        "spark.sql.files.maxPartitionBytes": max(SPLIT_BYTES >> 3, math.ceil(input_bytes / (cores * rounds))),
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.parquet.compression.codec": "snappy",
        "spark.hadoop.fs.gs.impl": GOOGLE_STORAGE,
        "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
    }
    if settings.spark_packages:
        options["spark.jars.packages"] = settings.spark_packages
    if settings.spark_master.startswith("local"):
        options |= LOOPBACK
    options |= settings.spark_options
    for name, value in options.items():
        builder = builder.config(name, str(value))
    try:
        with nullcontext() if home is None else environment(SPARK_HOME=str(home)):
            spark = builder.getOrCreate()
    except PySparkRuntimeError as error:
        raise ServiceUnavailable("Spark", error, "Install a JDK 17 and let JAVA_HOME or PATH name it") from error
    try:
        yield spark
    finally:
        spark.stop()
