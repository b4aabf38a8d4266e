"""What can be done to a service while it works, for bench/chaos.py.

kill      SIGKILL to the process and its group, down for the whole time, then started again
freeze    SIGSTOP, then SIGCONT: connections are taken and never answered
slow      stopped and continued in turns of 50 ms: everything is answered, late
drop      no packet to its port arrives (iptables): connections open or new hang, as in a black hole
full      its disk has no byte left: it lies on a file system of its own, which is filled; started again if it ended
"""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psutil

from infra.local.service import NotHealthyYet

TURN_SECONDS = 0.05
FOLDERS = {"redis": "valkey", "kafka": "kafka", "postgres": "postgres"}
"""Service → its folder below var_dir."""
DISK = "8G"
BALLAST = "ballast"
LARGEST_PIECE = 1 << 30
WELL_SECONDS = 120.0
"""How long a service may take until it is well after its disk has room again."""


@dataclass(frozen=True)
class Fault:
    """What is done to which service."""

    service: str
    kind: str


KINDS = ("kill", "freeze", "slow", "drop", "full")
FAULTS = [Fault(name, kind) for name in FOLDERS for kind in KINDS]
FAULTS += [Fault("records", kind) for kind in KINDS[:-1]]  # it writes to no disk
FAULTS += [Fault("mlflow", "kill"), Fault("streaming", "kill"), Fault("serving", "kill")]


@dataclass
class Target:
    """A service that something is done to."""

    process: subprocess.Popen
    port: int
    again: Callable[[], None]
    """Starts it again and returns when it is well."""
    check: Callable[[], None]
    """Returns when it is well."""
    disk: Path | None = None


@contextmanager
def disks(var_dir: Path) -> Iterator[None]:
    """Give each store a file system of its own (ext4 in a sparse file), and take it away at the end. Needs root."""
    mounted: list[Path] = []
    try:
        for name in FOLDERS.values():
            image, folder = var_dir / f"{name}.img", var_dir / name
            folder.mkdir(mode=0o755)
            subprocess.run(["truncate", "--size", DISK, str(image)], check=True)
            subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
            subprocess.run(["mount", "-o", "loop,discard", str(image), str(folder)], check=True)
            mounted.append(folder)
        yield
    finally:
        for folder in mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def members(process: subprocess.Popen) -> list[psutil.Process]:
    """Return a service's process and its children; none when it has ended."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def tell(process: subprocess.Popen, number: int) -> None:
    for member in members(process):
        with suppress(psutil.NoSuchProcess):
            member.send_signal(number)


def do(fault: Fault, target: Target, seconds: float) -> None:
    """Do a fault for so long; the service is well again when this returns."""
    over = threading.Event()
    if fault.kind == "kill":
        tell(target.process, signal.SIGKILL)
        target.process.wait()
        if fault.service != "serving":  # a supervisor starts it again at once
            over.wait(seconds)
        target.again()
    elif fault.kind == "drop":
        with dropped(target.port):
            over.wait(seconds)
    elif fault.kind == "full":
        _full(target, over, seconds)
    else:
        end = perf_counter() + seconds
        turn = TURN_SECONDS if fault.kind == "slow" else seconds
        while perf_counter() < end:
            tell(target.process, signal.SIGSTOP)
            over.wait(turn)
            tell(target.process, signal.SIGCONT)
            over.wait(TURN_SECONDS)


def _full(target: Target, over: threading.Event, seconds: float) -> None:
    """Fill the disk, and go on taking what the service gives back; then make room and see it well."""
    ballast = target.disk / BALLAST
    end = perf_counter() + seconds
    try:
        with ballast.open("wb") as file:
            taken, piece = 0, LARGEST_PIECE
            while perf_counter() < end:
                try:
                    os.posix_fallocate(file.fileno(), taken, piece)
                    taken += piece
                except OSError:  # no room for so much
                    if piece > 4096:
                        piece //= 2
                    else:
                        piece = 1 << 20
                        over.wait(TURN_SECONDS)
    finally:
        ballast.unlink()
    end = perf_counter() + WELL_SECONDS
    while perf_counter() < end:  # some end only now: at their next write, or when they cannot recover
        if target.process.poll() is not None:
            target.again()
            return
        with suppress(NotHealthyYet):
            target.check()
            over.wait(1.0)
            if target.process.poll() is None:
                return
        over.wait(TURN_SECONDS)
    raise SystemExit(f"not well {WELL_SECONDS:g} s after its disk was full: {target.process.args}")


@contextmanager
def dropped(port: int) -> Iterator[None]:
    """Let no packet to this port of this machine arrive."""
    rule = ["INPUT", "-i", "lo", "-p", "tcp", "--dport", str(port), "-j", "DROP"]
    subprocess.run(["iptables", "-I", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["iptables", "-D", *rule], check=True)
