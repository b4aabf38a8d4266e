"""The process supervisor: supervisord with a configuration rendered from the services, on a Unix socket of ours."""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from infra.local import leftovers
from infra.local.service import NotHealthyYet, Service, poll, write_private
from recsys.errors import RecsysError, ServiceUnavailable
from recsys.settings import HOME

LONGEST_SOCKET_PATH = 90
"""A Unix socket's path holds about 104 bytes; supervisord adds a dot and its pid while it makes the socket."""
PR_SET_CHILD_SUBREAPER = 36
CACHED_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}
"""Empty is off: without the cache every process and task would compile the libraries anew (MLflow: 12 s)."""
STOP_SECONDS = 20
LISTENER = "leftovers"


def socket_path(var_dir: Path) -> Path:
    """Return where supervisord listens: below var_dir, or in a folder of ours for short names if that is too deep."""
    near = var_dir.resolve() / "supervisor.sock"
    if len(os.fsencode(near)) <= LONGEST_SOCKET_PATH:
        return near
    digest = hashlib.blake2b(os.fsencode(near), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"recsys-{os.getuid()}-{digest}" / "s.sock"


def quoted(value: str) -> str:
    """Return a value of an `environment=` list; supervisord expands `%` and knows quotes but no escapes.

    Raises:
        RecsysError: the value holds both kinds of quotes.
    """
    if '"' in value and "'" in value:
        raise RecsysError("value for supervisord", value, "Choose a path or an address without quotes")
    quote = "'" if '"' in value else '"'
    return f"{quote}{value.replace('%', '%%')}{quote}"


def render(services: Iterable[Service], var_dir: Path) -> str:
    """Return the supervisor's configuration. Nothing starts by itself: `up` starts in the order of dependence.

    A process that ends is started again, and what it left of its process group is ended (infra/local/leftovers.py);
    stopping reaches the whole group.
    """
    var_dir = var_dir.resolve()
    socket = socket_path(var_dir)
    logs = str(var_dir / "logs").replace("%", "%%")
    listener = shlex.join([sys.executable, "-m", leftovers.__name__]).replace("%", "%%")
    parts = [
        f"[unix_http_server]\nfile={str(socket).replace('%', '%%')}\nchmod=0700\n",
        f"[supervisord]\nlogfile={logs}/supervisord.log\npidfile={logs}/supervisord.pid\nchildlogdir={logs}\n"
        f"nodaemon=true\nsilent=true\nminfds=4096\nlogfile_maxbytes=10MB\nlogfile_backups=1\n",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
        f"[supervisorctl]\nserverurl=unix://{str(socket).replace('%', '%%')}\n",
        f"[eventlistener:{LISTENER}]\ncommand={listener}\n"
        f"directory={str(HOME).replace('%', '%%')}\nevents={leftovers.EVENT}\nautorestart=true\n"
        f"stderr_logfile={logs}/{LISTENER}.log\nstderr_logfile_maxbytes=1MB\nstderr_logfile_backups=0\n",
    ]
    for service in services:
        command = shlex.join(service.line).replace("%", "%%")
        variables = {"RECSYS_VAR_DIR": str(var_dir), **CACHED_BYTECODE, **service.environment}
        environment = ",".join(f"{name}={quoted(value)}" for name, value in variables.items())
        user = f"user={service.user}\n" if service.user else ""
        folder = "/" if service.user else str(HOME).replace("%", "%%")
        parts.append(
            f"[program:{service.name}]\ncommand={command}\ndirectory={folder}\nenvironment={environment}\n{user}"
            f"priority={2 if service.after else 1}\nautostart=false\nautorestart=true\nstartsecs=1\nstartretries=10\n"
            f"stopsignal={service.stop_signal}\nstopwaitsecs={STOP_SECONDS}\nstopasgroup=true\nkillasgroup=true\n"
            f"redirect_stderr=true\nstdout_logfile={logs}/{service.name}.log\n"
            f"stdout_logfile_maxbytes=20MB\nstdout_logfile_backups=1\n"
        )
    return "\n".join(parts)


class Supervisor:
    """One supervisord of one var_dir, seen from outside."""

    def __init__(self, var_dir: Path):
        self.var_dir = var_dir.resolve()
        self.configuration = self.var_dir / "supervisor.conf"
        self.logs = self.var_dir / "logs"

    def rpc(self) -> Any:
        """Return a client of its RPC interface; not to be shared between threads."""
        transport = SupervisorTransport(None, None, f"unix://{socket_path(self.var_dir)}")
        return ServerProxy("http://127.0.0.1", transport).supervisor

    def pid(self) -> int | None:
        """Return its process id, None when it does not run."""
        try:
            return int(self.rpc().getPID())
        except OSError:
            return None

    def start(self, services: list[Service]) -> None:
        """Start it, or tell a running one about services that changed (those are stopped, to be started anew).

        Raises:
            ServiceUnavailable: it did not come up; the sentence carries the end of its log.
        """
        self.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        wanted = render(services, self.var_dir)
        is_new = not self.configuration.exists() or self.configuration.read_text() != wanted
        if is_new:
            write_private(self.configuration, wanted)
        if self.pid() is None:
            self._launch()
        elif is_new:
            self._reload()

    def _launch(self) -> None:
        socket_path(self.var_dir).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = self.logs / "supervisord.out"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    which("env") or "env",
                    "-u",
                    "RECSYS_DATA_DIR",  # platform.env's word must count, it may change
                    sys.executable,
                    "-m",
                    "supervisor.supervisord",
                    "-c",
                    str(self.configuration),
                ],
                cwd=HOME,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_adopt_orphans,
            )

        def is_there() -> None:
            if process.poll() is None and self.pid() is None:
                raise NotHealthyYet("supervisord")

        poll(is_there, STOP_SECONDS)
        if process.poll() is not None:
            said = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
            raise ServiceUnavailable("supervisord", f"ended with {process.returncode}: {said}", f"See {self.logs}")

    def _reload(self) -> None:
        rpc = self.rpc()
        ((added, changed, removed),) = rpc.reloadConfig()
        for name in [*changed, *removed]:
            rpc.stopProcessGroup(name)
            rpc.removeProcessGroup(name)
        for name in [*changed, *added]:
            rpc.addProcessGroup(name)

    def start_process(self, name: str) -> None:
        """Ask for a service to be started; one that runs or is about to is left alone."""
        try:
            self.rpc().startProcess(name, False)
        except Fault as fault:
            if fault.faultCode != Faults.ALREADY_STARTED:
                raise ServiceUnavailable(name, fault.faultString, f"See {self.logs / name}.log") from fault

    def processes(self) -> dict[str, dict[str, Any]]:
        """Return name → supervisord's own information (statename, pid, start, now, description); empty when down."""
        try:
            return {info["name"]: info for info in self.rpc().getAllProcessInfo()}
        except OSError:
            return {}

    def log_tail(self, name: str, lines: int = 5) -> str:
        """Return the last lines of a service's log."""
        path = self.logs / f"{name}.log"
        return " | ".join(path.read_text(errors="replace").strip().splitlines()[-lines:]) if path.exists() else ""

    def stop(self) -> int:
        """Stop everything, users before what they use, the supervisor last; return how many processes there were.

        Whatever its services left behind (it adopts orphans) is ended too: first asked, then killed.
        """
        pid = self.pid()
        if pid is None:
            return 0
        itself = psutil.Process(pid)
        everything = [*itself.children(recursive=True), itself]  # a psutil.Process is never a later one of that pid
        priorities = {info["name"]: info["process_prio"] for info in self.rpc().getAllConfigInfo()}
        for priority in sorted(set(priorities.values()), reverse=True):
            self._stop_together([name for name in priorities if priorities[name] == priority])
        self.rpc().shutdown()
        itself_gone, _ = psutil.wait_procs([itself], timeout=3 * STOP_SECONDS)
        if not itself_gone:
            itself.kill()
        left = [process for process in everything if process.is_running()]
        for process in left:
            _signal(process, process.terminate)
        _, left = psutil.wait_procs(left, timeout=STOP_SECONDS)
        for process in left:
            _signal(process, process.kill)
        psutil.wait_procs(left, timeout=STOP_SECONDS)
        if socket_path(self.var_dir).parent != self.var_dir:
            shutil.rmtree(socket_path(self.var_dir).parent, ignore_errors=True)
        return len(everything)

    def _stop_together(self, names: list[str]) -> None:
        """Stop these services at the same time; supervisord kills what does not end in time."""
        for name in names:
            try:
                self.rpc().stopProcess(name, False)
            except Fault as fault:
                if fault.faultCode not in (Faults.NOT_RUNNING, Faults.FAILED):
                    raise

        def check() -> None:
            processes = self.processes()
            stopping = [name for name in names if processes.get(name, {}).get("statename") == "STOPPING"]
            if stopping:
                raise NotHealthyYet(f"{', '.join(stopping)} still end")

        with suppress(NotHealthyYet):  # then the shutdown ends them
            poll(check, 2 * STOP_SECONDS)


def _signal(process: psutil.Process, action: Any) -> None:
    if process.is_running():
        try:
            action()
        except psutil.NoSuchProcess:
            return


def _adopt_orphans() -> None:
    """In supervisord, before it begins: on Linux a process whose parent died becomes its own, and `stop` sees it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
