"""Real services for the tests: started on free ports when a test first asks, stopped at the end of the session.

`world` gives a module a `Settings` whose database, Redis database, topic prefix and var_dir are its own:

    def test_loads(world):
        settings = world("postgres", "redis")

The services are the embedded platform's own definitions (infra/local); nothing is imitated.
"""

import importlib
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import prometheus_client  # noqa: F401 - before Feast, whose import makes it share its counters between processes
import psycopg
import pytest
from xdist.scheduler import LoadScopeScheduling

from infra.local import applications, broker, stores
from infra.local.service import NotHealthyYet, Service, poll, stand_back
from recsys.errors import ServiceUnavailable
from recsys.settings import HOME, Settings, load_settings
from recsys.warehouse import apply_schema
from tests.ports import free_port

World = Callable[..., Settings]
SHARED_COUNTERS = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")
POSTGRES_TEST_OPTIONS = {"fsync": "off", "synchronous_commit": "off", "shared_buffers": "128MB"}


LONGEST_FIRST = ("etl", "training", "streaming", "serving", "infra")


class FolderScheduling(LoadScopeScheduling):
    """A folder's tests go to one worker, whose services they share."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("::", 1)[0].rsplit("/", 1)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FolderScheduling:
    """Divide the tests among the workers of `pytest -n 2`, which is what `make test` runs."""
    return FolderScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders that last longest, so that no worker is left alone with one."""
    rank = {folder: place for place, folder in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.parent.name, len(rank)))


def pytest_collection_finish() -> None:
    """Take back what Feast's import has written into the environment, which the services would inherit."""
    for variable in SHARED_COUNTERS:
        os.environ.pop(variable, None)


def start(service: Service, log: Path) -> subprocess.Popen[bytes]:
    """Start a service as a process of ours and return it when it is healthy.

    Raises:
        ServiceUnavailable: it ended or did not become healthy; it does not run any more.
    """
    service.prepare()
    with log.open("wb") as output:
        process = subprocess.Popen(
            service.line,
            env={**os.environ, **service.environment},
            cwd=HOME if service.user is None else "/",
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **service.account(),
        )
    stand_back(process.pid, service.niceness)

    def check() -> None:
        if process.poll() is not None:
            raise ServiceUnavailable(service.name, f"ended with {process.returncode}", log.read_text()[-4000:])
        service.check()

    try:
        poll(check, service.patience_seconds)
    except (NotHealthyYet, ServiceUnavailable) as error:
        stop(process)
        raise ServiceUnavailable(service.name, error, log.read_text(errors="replace")[-4000:]) from error
    except BaseException:  # told to end while it starts: nobody knows of it yet
        stop(process)
        raise
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group: first asked, then killed."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
            return


class Services:
    """The session's services; each is started once, by the first test that needs it."""

    def __init__(self, var_dir: Path, postgres_options: dict[str, str] = POSTGRES_TEST_OPTIONS):
        self.settings = Settings(
            _env_file=None,
            var_dir=var_dir,
            postgres_url=f"postgresql://recsys:{secrets.token_hex(8)}@{stores.LOOPBACK}:{free_port()}/recsys",
            redis_url=f"redis://:{secrets.token_hex(8)}@{stores.LOOPBACK}:{free_port()}/0",
            kafka_bootstrap=f"{stores.LOOPBACK}:{free_port(2)}",
            mlflow_url=f"http://{stores.LOOPBACK}:{free_port()}",
        )
        self.redis_databases = itertools.count(1)
        self._definitions: dict[str, Callable[[], Service]] = {
            "postgres": lambda: stores.postgres(self.settings, postgres_options),
            "redis": lambda: stores.valkey(self.settings),
            "records": lambda: stores.records(self.settings),  # for whoever sets `records_url`
            "kafka": lambda: broker.kafka(self.settings),
            "mlflow": lambda: applications.mlflow(self.settings),
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._failures: dict[str, str] = {}

    def start(self, name: str) -> None:
        """Start a service unless it runs, and return when it is healthy."""
        if name in self._failures:
            pytest.fail(self._failures[name])
        if name in self._processes:
            return
        service = self._definitions[name]()
        for earlier in service.after:
            self.start(earlier)
        try:
            self._processes[name] = start(service, self.settings.var_dir / f"{name}.log")
        except ServiceUnavailable as error:
            self._failures[name] = str(error)
            pytest.fail(self._failures[name])

    def process(self, name: str) -> subprocess.Popen[bytes]:
        return self._processes[name]

    def restart(self, name: str) -> None:
        """Start a service again that has ended, and return when it is healthy."""
        self._processes[name] = start(self._definitions[name](), self.settings.var_dir / f"{name}.log")

    def stop(self) -> None:
        """Stop what was started, the latest first."""
        for process in reversed(self._processes.values()):
            stop(process)


def empty_mlflow(settings: Settings) -> None:
    """Take everything out of MLflow's database except the default experiment, which its server made at its start."""
    with psycopg.connect(stores.with_database(settings.postgres_url, applications.MLFLOW_DATABASE)) as connection:
        connection.execute("create temporary table kept as select * from experiments where experiment_id = 0")
        connection.execute("truncate experiments, registered_models cascade")
        connection.execute("insert into experiments select * from kept")


@pytest.fixture(scope="session")
def great_expectations() -> None:
    """Import it while the main module has a file: it imports Spark Connect, which takes a process whose main module has
    none, as a worker of pytest-xdist is, for a run of Spark's own doctests and ends it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
        importlib.import_module("great_expectations")


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """The services of this session and how to reach them (`services.settings`)."""
    var_dir = Path(tempfile.mkdtemp(prefix="recsys-tests-"))
    var_dir.chmod(0o711)  # passable: as root, PostgreSQL runs as an account of its own
    started = Services(var_dir)
    yield started
    started.stop()
    shutil.rmtree(var_dir)


@pytest.fixture(scope="module")
def world(services: Services, request: pytest.FixtureRequest) -> Iterator[World]:
    """A function (service names) → `Settings` of a world that this module has for itself.

    The named services run; database (with schema), Redis database, topic prefix and var_dir are new. An address that
    was not asked for is there too, and may be dead. The `RECSYS_*` environment says the same, so that `load_settings()`
    and child processes see it; it is restored at the end of the module. Calling it again adds services to the world.
    """
    name = f"world_{secrets.token_hex(4)}"
    var_dir = services.settings.var_dir / name
    redis = urlsplit(services.settings.redis_url)
    settings = services.settings.model_copy(
        update={
            "var_dir": var_dir,
            "postgres_url": stores.with_database(services.settings.postgres_url, name),
            "redis_url": urlunsplit(redis._replace(path=f"/{next(services.redis_databases)}")),
            "topic_prefix": f"{name}.",
            "serving_url": f"http://{stores.LOOPBACK}:{free_port()}",
            "streaming_url": f"http://{stores.LOOPBACK}:{free_port()}",
        }
    )
    environment = {
        "RECSYS_VAR_DIR": str(var_dir),
        "RECSYS_POSTGRES_URL": settings.postgres_url,
        "RECSYS_REDIS_URL": settings.redis_url,
        "RECSYS_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "RECSYS_TOPIC_PREFIX": settings.topic_prefix,
        "RECSYS_MLFLOW_URL": settings.mlflow_url,
        "RECSYS_SERVING_URL": settings.serving_url,
        "RECSYS_STREAMING_URL": settings.streaming_url,
    }
    entered: set[str] = set()

    def furnish_postgres() -> None:
        stores.create_database(settings.postgres_url, name)
        apply_schema(settings)

    furnish: dict[str, Callable[[], object]] = {
        "postgres": furnish_postgres,
        "redis": lambda: None,
        "kafka": lambda: broker.create_topics(settings),
        "mlflow": lambda: empty_mlflow(settings),
    }

    def enter(*names: str) -> Settings:
        for service in names:
            services.start(service)
            if service not in entered:
                furnish[service]()
            entered.add(service)
        return settings

    with pytest.MonkeyPatch.context() as patch:
        for variable in [variable for variable in os.environ if variable.startswith("RECSYS_")]:
            patch.delenv(variable)
        for variable, value in environment.items():
            patch.setenv(variable, value)
        var_dir.mkdir()
        load_settings.cache_clear()
        yield enter
    load_settings.cache_clear()
    shutil.rmtree(var_dir)


@pytest.fixture(scope="module")
def run_service(world: World) -> Iterator[Callable[[Service], None]]:
    """A function that runs one more service of the platform, e.g. serving, until the end of the module."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(service: Service) -> None:
        log = Path(os.environ["RECSYS_VAR_DIR"]) / f"{service.name}.log"
        processes.append(start(service, log))

    yield run
    for process in reversed(processes):
        stop(process)
