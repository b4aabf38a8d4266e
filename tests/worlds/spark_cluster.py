"""A Spark standalone cluster of two workers with a core each, from the classes that come with pyspark."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyspark
import tenacity

from tests.ports import free_port

LOOPBACK = "127.0.0.1"
WORKERS = 2


@dataclass(frozen=True)
class Cluster:
    master: str
    folder: Path

    def environment(self) -> dict[str, str]:
        """What a job of this cluster needs on top of its own variables."""
        return {"RECSYS_SPARK_MASTER": self.master, "SPARK_LOCAL_IP": LOOPBACK}

    def workers_that_ran(self) -> set[str]:
        """Return the workers that had an executor."""
        return {path.parent.parent.name for path in self.folder.glob("worker-*/app-*/[0-9]*")}


def _start(name: str, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    spark_class = Path(pyspark.__file__).with_name("bin") / "spark-class"
    said = {"SPARK_LOCAL_IP": LOOPBACK, "SPARK_DAEMON_MEMORY": "256m"}
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [str(spark_class), *arguments], env={**os.environ, **said}, cwd=folder, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
        return
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Yield a cluster whose workers have all registered; end it with the block."""
    port = free_port()
    found = Cluster(f"spark://{LOOPBACK}:{port}", folder)
    place = ("--host", LOOPBACK, "--webui-port", "0")
    started = [_start("master", folder, "org.apache.spark.deploy.master.Master", *place, "--port", str(port))]
    try:
        for number in range(WORKERS):
            own = ("--cores", "1", "--memory", "1g", "--work-dir", str(folder / f"worker-{number}"))
            started.append(
                _start(f"worker-{number}", folder, "org.apache.spark.deploy.worker.Worker", *place, *own, found.master)
            )
        _wait_for_workers(folder, started)
        yield found
    finally:
        for process in reversed(started):
            _stop(process)


@tenacity.retry(
    stop=tenacity.stop_after_delay(180),
    wait=tenacity.wait_fixed(0.2),
    retry=tenacity.retry_if_exception_type(LookupError),
    reraise=True,
)
def _wait_for_workers(folder: Path, started: list[subprocess.Popen[bytes]]) -> None:
    log = (folder / "master.log").read_text()
    assert all(process.poll() is None for process in started), log[-4000:]
    if len(re.findall("Registering worker", log)) < WORKERS:
        raise LookupError(log[-4000:])
