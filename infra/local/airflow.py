"""Airflow of the embedded platform: API server, scheduler and DAG processor with the LocalExecutor, on PostgreSQL.

All its settings stand in one `airflow.cfg` of mode 0600 below var_dir, so that by hand, too, AIRFLOW_HOME is enough:
`AIRFLOW_HOME=var/airflow .venv/orchestrator/bin/airflow dags list`.
"""

import base64
import configparser
import json
import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from infra.local import alerting
from infra.local.applications import ENVIRONMENTS, answers
from infra.local.service import BEHIND_EVENTS, NotHealthyYet, Service, run, write_private
from infra.local.stores import LOOPBACK, create_database, with_database
from recsys.settings import HOME, Settings

DATABASE = "airflow"
AIRFLOW = ENVIRONMENTS / "orchestrator" / "bin" / "airflow"
PARALLELISM = 8
CONNECTIONS_FILE = "connections.json"
SECRETS = (("core", "fernet_key"), ("api", "secret_key"), ("api_auth", "jwt_secret"))


def configuration(settings: Settings, folder: Path, known_secrets: dict[tuple[str, str], str]) -> str:
    """Return the text of airflow.cfg: what differs from Airflow's defaults, and why.

    Args:
        settings: the installation's.
        folder: AIRFLOW_HOME.
        known_secrets: (section, option) → value, for all of `SECRETS`; the components must share them.
    """
    database = with_database(settings.postgres_url, DATABASE).removeprefix("postgresql://")
    sections: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": HOME / "dags",
            "load_examples": False,
            "executor": "LocalExecutor",
            "parallelism": PARALLELISM,
            "execution_api_server_url": f"{settings.airflow_url}/execution/",
            "simple_auth_manager_users": f"{settings.airflow_user}:admin",
            "simple_auth_manager_passwords_file": folder / "passwords.json",
        },
        "database": {
            "sql_alchemy_conn": f"postgresql+psycopg2://{database}",
            "sql_alchemy_conn_async": f"postgresql+asyncpg://{database}",
        },
        "logging": {"base_log_folder": folder / "logs", "colored_console_log": False},
        "api": {
            "host": LOOPBACK,
            "port": urlsplit(settings.airflow_url).port,
            "base_url": settings.airflow_url,
            "workers": 1,
            "expose_config": False,
        },
        "api_auth": {"jwt_expiration_time": 24 * 3600},
        # At its defaults a finished task keeps its slot for some five seconds (docs/decisions/0002-environments.md).
        "workers": {"min_heartbeat_interval": 1},
        "scheduler": {
            "scheduler_idle_sleep_time": 0.5,
            "enable_health_check": False,  # its server would be one more port; the API tells the same
            "task_instance_heartbeat_timeout": 90,  # a task whose worker was killed is retried after this
            "orphaned_tasks_check_interval": 60,  # and those of a scheduler that was killed after this, not 300 s
        },
        "dag_processor": {"refresh_interval": 30, "min_file_process_interval": 30, "parsing_processes": 1},
    }
    looks = ("promotion_look_seconds", "retraining_look_seconds")
    # read by the DAG files
    sections["recsys"] = alerting.options(settings) | {name: getattr(settings, name) for name in looks}
    if settings.schedule_from:
        sections["recsys"]["schedule_from"] = settings.schedule_from
    if alerting.connections(settings):
        sections["secrets"] = {
            "backend": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
            "backend_kwargs": json.dumps({"connections_file_path": str(folder / CONNECTIONS_FILE)}),
        }
    for (section, option), value in known_secrets.items():
        sections[section][option] = value
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict({name: {k: str(v).replace("%", "%%") for k, v in s.items()} for name, s in sections.items()})
    lines = [f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in parser[name].items()) for name in parser.sections()]
    return "\n".join(lines)


def kept_or_new_secrets(path: Path) -> dict[tuple[str, str], str]:
    """Return the secrets that an earlier airflow.cfg holds; those it lacks are drawn."""
    earlier = configparser.ConfigParser(interpolation=None)
    earlier.read(path)
    return {
        (section, option): earlier.get(section, option, fallback="")
        or base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        for section, option in SECRETS
    }


def once(action: Callable[[], None]) -> Callable[[], None]:
    """Return a function that performs the action when first called, and then never again; callers wait for it."""
    lock, done = threading.Lock(), threading.Event()

    def perform() -> None:
        with lock:
            if not done.is_set():
                action()
                done.set()

    return perform


def airflow(settings: Settings) -> list[Service]:
    """Return the three components; any of them prepares the files and the metadata database for all."""
    folder = settings.var_dir.resolve() / "airflow"
    environment = {
        "AIRFLOW_HOME": str(folder),
        "PYTHONPATH": str(HOME),  # DAG files take names from recsys.artifacts
        "RECSYS_VAR_DIR": str(settings.var_dir.resolve()),
    }

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / "airflow.cfg"
        write_private(path, configuration(settings, folder, kept_or_new_secrets(path)))
        write_private(folder / CONNECTIONS_FILE, json.dumps(alerting.connections(settings)))
        write_private(folder / "passwords.json", json.dumps({settings.airflow_user: settings.airflow_password}))
        create_database(settings.postgres_url, DATABASE)
        migrate(settings, folder, environment)

    def component_is_healthy(component: str) -> Callable[[], None]:
        def check() -> None:
            url = f"{settings.airflow_url}/api/v2/monitor/health"
            try:
                with urllib.request.urlopen(url, timeout=5) as response:
                    status = json.load(response)[component]["status"]
            except (urllib.error.URLError, OSError, KeyError, ValueError) as error:
                raise NotHealthyYet(f"{url}: {error!r}") from error
            if status != "healthy":
                raise NotHealthyYet(f"{url}: {component} is {status}")

        return check

    def component(name: str, check: Callable[[], None], *arguments: str, ports: tuple[int, ...] = ()) -> Service:
        return Service(
            name=f"airflow-{name}",
            command=(str(AIRFLOW), *arguments),
            environment=environment,
            address=settings.airflow_url,
            ports=ports,
            check=check,
            prepare=prepare_once,
            after=("postgres",),
            patience_seconds=600,
            niceness=BEHIND_EVENTS,  # its tasks inherit it: a training gives way to answers
        )

    prepare_once = once(prepare)
    port = urlsplit(settings.airflow_url).port or 8080
    return [
        component("api", answers(f"{settings.airflow_url}/api/v2/version"), "api-server", ports=(port,)),
        # Logs are read from the shared folder; the scheduler's own log server would listen on every interface.
        component("scheduler", component_is_healthy("scheduler"), "scheduler", "--skip-serve-logs"),
        component("dag-processor", component_is_healthy("dag_processor"), "dag-processor"),
    ]


def migrate(settings: Settings, folder: Path, environment: dict[str, str]) -> None:
    """Bring the metadata database to this Airflow's revision; costs nothing when a note says that it is there."""
    note = folder / "migrated.json"
    release = sorted(ENVIRONMENTS.glob("orchestrator/lib/python*/site-packages/apache_airflow_core-*.dist-info"))
    state = {"release": [path.name for path in release], "revision": revision(settings)}
    if state["revision"] and note.exists() and json.loads(note.read_text()) == state:
        return
    run([str(AIRFLOW), "db", "migrate"], environment=environment)
    note.write_text(json.dumps(state | {"revision": revision(settings)}))


def revision(settings: Settings) -> str | None:
    """Return the metadata database's revision, None when it is empty."""
    with psycopg.connect(with_database(settings.postgres_url, DATABASE), connect_timeout=10) as connection:
        if connection.execute("select to_regclass('public.alembic_version')").fetchone() == (None,):
            return None
        row = connection.execute("select version_num from alembic_version").fetchone()
        return row[0] if row else None
