"""`up`, `down`, `status`, `clean`: the whole embedded platform at once."""

import fcntl
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from infra.local.airflow import airflow
from infra.local.applications import ENVIRONMENTS, dashboard, mlflow, monitoring, serving, streaming
from infra.local.broker import kafka
from infra.local.environment import FILE_NAME, configure, ensure, refuse_taken_ports
from infra.local.service import NotHealthyYet, Service, poll
from infra.local.stores import postgres, records, valkey
from infra.local.supervise import Supervisor
from recsys.errors import RecsysError, ServiceUnavailable
from recsys.settings import HOME, Settings

__all__ = ["clean", "configure", "definitions", "down", "platform_pids", "status", "up"]
RUNNING = ("RUNNING", "STARTING")
QUICK_DEATHS = 3
"""A service that ended this often right after its start will not come up by itself."""


def definitions(settings: Settings) -> list[Service]:
    """Return every service of the platform, those that others need first."""
    return [
        postgres(settings),
        valkey(settings),
        *([records(settings)] if settings.records_url else []),  # an installation from before has one store for both
        kafka(settings),
        mlflow(settings),
        *airflow(settings),
        serving(settings),
        streaming(settings),
        monitoring(settings),
        dashboard(settings),
    ]


@contextmanager
def alone(var_dir: Path) -> Iterator[None]:
    """Hold the installation's lock, so that two calls of `up` or `down` do not interleave; waits for it."""
    var_dir.mkdir(parents=True, exist_ok=True)
    with (var_dir / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Start:
    """One `up`: every service is started when the ones that it needs are healthy."""

    def __init__(self, supervisor: Supervisor, services: list[Service]):
        self.supervisor = supervisor
        self.services = services
        self.began = perf_counter()
        self.seconds: dict[str, float] = {}
        self._running = {n for n, info in supervisor.processes().items() if info["statename"] in RUNNING}
        self._futures: dict[str, Future[bool]] = {}

    @property
    def missing(self) -> list[Service]:
        """The services that do not run yet."""
        return [service for service in self.services if service.name not in self._running]

    def run(self) -> bool:
        """Start what is missing, wait for all, and return whether anything was.

        Raises:
            ServiceUnavailable: one did not become healthy; the others are left as they are.
        """
        with ThreadPoolExecutor(len(self.services)) as pool:
            for service in self.services:
                self._futures[service.name] = pool.submit(self._one, service)
        return any([future.result() for future in self._futures.values()])

    def _one(self, service: Service) -> bool:
        for name in service.after:
            self._futures[name].result()
        began, is_missing = perf_counter(), service.name not in self._running
        if is_missing:
            service.prepare()
            self.supervisor.start_process(service.name)
        self._wait_until_healthy(service)
        service.furnish()
        self.seconds[service.name] = perf_counter() - began
        if is_missing:
            after = perf_counter() - self.began
            print(f"[{after:6.1f} s] {service.name} is healthy ({self.seconds[service.name]:.1f} s)", file=sys.stderr)
        return is_missing

    def _wait_until_healthy(self, service: Service) -> None:
        starts: set[int] = set()

        def check() -> None:
            info = self.supervisor.processes().get(service.name, {"statename": "GONE", "start": 0})
            starts.add(info["start"])
            if info["statename"] == "FATAL" or (info["statename"] != "RUNNING" and len(starts) > QUICK_DEATHS):
                said = self.supervisor.log_tail(service.name)
                raise ServiceUnavailable(service.name, f"it ends at its start: {said}", f"Its log: {log}")
            service.check()
            if info["statename"] != "RUNNING":
                raise NotHealthyYet(f"{service.name} is {info['statename']}")

        log = self.supervisor.logs / f"{service.name}.log"
        try:
            poll(check, service.patience_seconds)
        except NotHealthyYet as error:
            said = f"not healthy after {service.patience_seconds} s ({error})"
            raise ServiceUnavailable(service.name, said, f"Its log: {log}") from error


def up(settings: Settings, today: date, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """Start the platform and return when every service is healthy; what runs already stays as it is.

    Args:
        settings: the installation's; the first call adds ports and passwords in platform.env.
        today: first day of the daily schedule of a new installation.
        extra: optional services to start as well, e.g. `dashboard`.

    Raises:
        RecsysError: a port is taken.
        ServiceUnavailable: a service did not become healthy.
    """
    with alone(settings.var_dir):
        settings = ensure(settings, today)
        services = definitions(settings)
        supervisor = Supervisor(settings.var_dir)
        supervisor.start(services)
        start = Start(supervisor, [s for s in services if not s.is_optional or s.name in extra])
        refuse_taken_ports(start.missing, settings.var_dir / FILE_NAME)
        has_started = start.run()
    rows = report(settings)
    show(rows, start.seconds)
    return {
        "unchanged": not has_started,
        "seconds": round(perf_counter() - start.began, 1),
        "services": {name: round(seconds, 1) for name, seconds in start.seconds.items()},
    }


def platform_pids(settings: Settings) -> list[int]:
    """Return the supervisor's process id: the root of every process of the platform; empty when it is down."""
    pid = Supervisor(settings.var_dir).pid()
    return [pid] if pid else []


def down(settings: Settings) -> dict[str, Any]:
    """Stop every process of the platform."""
    if not settings.var_dir.exists():
        return {"unchanged": True, "stopped_processes": 0}
    with alone(settings.var_dir):
        stopped = Supervisor(settings.var_dir).stop()
    return {"unchanged": stopped == 0, "stopped_processes": stopped}


def report(settings: Settings) -> list[dict[str, Any]]:
    """Return each service's state, pid, memory (with its children), health and address; asks all at once."""
    services = definitions(settings)
    processes = Supervisor(settings.var_dir).processes()

    def row(service: Service) -> dict[str, Any]:
        info = processes.get(service.name, {})
        pid = info.get("pid") or None
        health = "-"
        if pid:
            try:
                service.check()
                health = "healthy"
            except NotHealthyYet as error:
                health = f"not healthy: {error}"
        return {
            "service": service.name,
            "state": info.get("statename", "STOPPED"),
            "pid": pid,
            "memory_mib": memory(pid) if pid else 0,
            "health": health,
            "address": service.address,
        }

    with ThreadPoolExecutor(len(services)) as pool:
        return list(pool.map(row, services))


def memory(pid: int) -> int:
    """Return the memory of a process and all below it, in MiB.

    Linux: the proportional set, in which a page shared by n processes counts 1/n for each. Elsewhere: the resident set,
    in which it counts fully for each. A process that ends meanwhile counts nothing.
    """
    total = 0
    with suppress(psutil.NoSuchProcess):
        itself = psutil.Process(pid)
        for process in [itself, *itself.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                is_linux = sys.platform == "linux"
                total += process.memory_full_info().pss if is_linux else process.memory_info().rss
    return round(total / 2**20)


def show(rows: list[dict[str, Any]], seconds: dict[str, float] | None = None) -> None:
    """Print the services as a table on standard error."""
    table = Table("service", "state", "pid", "MiB", "health", "address", *(["seconds"] if seconds else []))
    table.columns[0].no_wrap = table.columns[5].no_wrap = True
    for row in rows:
        cells = [str(row[name] or "") for name in ("service", "state", "pid", "memory_mib", "health", "address")]
        if seconds:
            cells.append(f"{seconds[row['service']]:.1f}" if row["service"] in seconds else "")
        table.add_row(*cells)
    is_terminal = sys.stderr.isatty()
    Console(stderr=True, width=None if is_terminal else 140).print(table)


def status(settings: Settings) -> dict[str, Any]:
    """Show every service."""
    rows = report(settings)
    show(rows)
    return {
        "unchanged": True,
        "healthy": [row["service"] for row in rows if row["health"] == "healthy"],
        "memory_mib": sum(row["memory_mib"] for row in rows),
    }


def clean(settings: Settings, with_environments: bool) -> dict[str, Any]:
    """Remove what `up` and the pipeline wrote, and with `with_environments` also what `make setup` installed.

    Raises:
        RecsysError: the platform still runs, or var_dir is not one of ours.
    """
    var_dir = settings.var_dir.resolve()
    if Supervisor(var_dir).pid() is not None:
        raise RecsysError("the platform", "it still runs", "Stop it with `make down` first")
    removed = []
    if var_dir.exists():
        if var_dir in (HOME, *HOME.parents) or not (var_dir / FILE_NAME).exists():
            raise RecsysError("RECSYS_VAR_DIR", var_dir, f"It holds no {FILE_NAME}, so it is not removed; look at it")
        shutil.rmtree(var_dir)
        removed.append(str(var_dir))
    if with_environments and ENVIRONMENTS.exists():
        shutil.rmtree(ENVIRONMENTS)
        removed.append(str(ENVIRONMENTS))
    return {"unchanged": not removed, "removed": removed}
