"""`platform.env`: the addresses and the random passwords of this installation, written once by the first `up`."""

import errno
import secrets
import socket
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil

from infra.local.service import Service, write_private
from infra.local.stores import LOOPBACK
from recsys.errors import RecsysError
from recsys.settings import Settings, load_settings

FILE_NAME = "platform.env"
URL_OF_SERVICE = {
    "postgres": "RECSYS_POSTGRES_URL",
    "valkey": "RECSYS_REDIS_URL",
    "records": "RECSYS_RECORDS_URL",
    "kafka": "RECSYS_KAFKA_BOOTSTRAP",
    "mlflow": "RECSYS_MLFLOW_URL",
    "airflow-api": "RECSYS_AIRFLOW_URL",
    "serving": "RECSYS_SERVING_URL",
    "streaming": "RECSYS_STREAMING_URL",
    "monitoring": "RECSYS_MONITORING_URL",
    "dashboard": "RECSYS_DASHBOARD_URL",
}
RECORDS_URL = f"redis://{LOOPBACK}:16380/0"
NOTE = """# Addresses and passwords of this installation, drawn by the first `make up`. Readable by you only.
# A variable of the same name in the environment is stronger; change ports here, then `make down up`.
"""


def with_password(url: str, password: str) -> str:
    """Return the URL with this password, unless it has one."""
    parts = urlsplit(url)
    if parts.password is not None:
        return url
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{password}@{parts.hostname}:{parts.port}"))


def first_content(settings: Settings, today: date) -> str:
    """Return what a new platform.env says: the settings of now, with passwords where they have none."""
    values = {
        "RECSYS_POSTGRES_URL": with_password(settings.postgres_url, secrets.token_hex(16)),
        "RECSYS_REDIS_URL": with_password(settings.redis_url, secrets.token_hex(16)),
        "RECSYS_RECORDS_URL": with_password(settings.records_url or RECORDS_URL, secrets.token_hex(16)),
        "RECSYS_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "RECSYS_MLFLOW_URL": settings.mlflow_url,
        "RECSYS_AIRFLOW_URL": settings.airflow_url,
        "RECSYS_AIRFLOW_USER": settings.airflow_user,
        "RECSYS_AIRFLOW_PASSWORD": settings.airflow_password or secrets.token_urlsafe(12),
        "RECSYS_SERVING_URL": settings.serving_url,
        "RECSYS_STREAMING_URL": settings.streaming_url,
        "RECSYS_MONITORING_URL": settings.monitoring_url,
        "RECSYS_DASHBOARD_URL": settings.dashboard_url,
        "RECSYS_SCHEDULE_FROM": (settings.schedule_from or today).isoformat(),
    }
    if settings.data_dir:
        values["RECSYS_DATA_DIR"] = str(settings.data_dir.resolve())
    return NOTE + "".join(f"{name}={value}\n" for name, value in values.items())


def ensure(settings: Settings, today: date) -> Settings:
    """Write platform.env if it is missing, and return the settings that include it.

    Raises:
        RecsysError: a variable of the environment hides a password of the file, or names another machine.
    """
    path = settings.var_dir / FILE_NAME
    if not path.exists():
        settings.var_dir.mkdir(parents=True, exist_ok=True)
        write_private(path, first_content(settings, today))
        load_settings.cache_clear()
        settings = load_settings()
    for name, url in (
        ("RECSYS_POSTGRES_URL", settings.postgres_url),
        ("RECSYS_REDIS_URL", settings.redis_url),
        ("RECSYS_RECORDS_URL", settings.record_store),
    ):
        if urlsplit(url).password is None:
            raise RecsysError(name, url, f"It hides the address with its password in {path}; unset it, or set it there")
        if urlsplit(url).hostname != LOOPBACK:
            raise RecsysError(
                name, urlsplit(url).hostname, f"`up` starts services on {LOOPBACK} only; yours needs no `up`"
            )
    return settings


def configure(settings: Settings, data_dir: Path | None) -> Settings:
    """Say in platform.env, which every task reads, where the user's own raw files are; None for the packaged data.

    Raises:
        RecsysError: that folder does not exist, or there is no platform.env yet.
    """
    path = settings.var_dir / FILE_NAME
    if data_dir is not None and not data_dir.is_dir():
        raise RecsysError("DATA_DIR", data_dir, "It is no folder; give a folder with raw files in the official formats")
    if not path.exists():
        raise RecsysError(FILE_NAME, path, "It is not there; run `make up` first")
    kept = [line for line in path.read_text().splitlines() if not line.startswith("RECSYS_DATA_DIR=")]
    added = [f"RECSYS_DATA_DIR={data_dir.resolve()}"] if data_dir else []
    write_private(path, "\n".join([*kept, *added]) + "\n")
    load_settings.cache_clear()
    return load_settings()


def owner_of(port: int) -> str:
    """Return who listens on a port, as far as we may know: ` by valkey-server (pid 77)`, or nothing."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return ""
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""


def refuse_taken_ports(services: list[Service], env_file: Path) -> None:
    """Return if every port of these services, none of which runs, is free.

    Raises:
        RecsysError: some are taken; the sentence names each, its owner and the setting that moves the service.
    """
    taken = []
    for service in services:
        for port in service.ports:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((LOOPBACK, port))
                except OSError as error:
                    if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                        raise
                    setting = URL_OF_SERVICE[service.name]
                    taken.append(f"{port} for {service.name} is taken{owner_of(port)}, moved by {setting}")
    if taken:
        raise RecsysError("port", "; ".join(taken), f"End that process, or set another port in {env_file}")
