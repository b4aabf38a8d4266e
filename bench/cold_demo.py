"""How long `make demo` takes on a machine that has nothing yet, and again when nothing is new.

    python -m bench.cold_demo

Clones the committed state into a temporary folder and runs it with empty package caches, as a newcomer would. The
platform must be down: the clone uses the default ports.
"""

import os
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter

import psutil

from bench.memory import MemorySampler
from bench.results import publish
from recsys.settings import HOME


def timed(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> float:
    """Run a command to its end and return its seconds; its output goes to the end of `log`."""
    started = perf_counter()
    with log.open("ab") as file:
        subprocess.run(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT, check=True)
    return perf_counter() - started


def platform_processes(folder: Path) -> list[int]:
    """The processes whose program or working folder lies in the clone: the platform and its tasks."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if str(folder) in (process.info["cwd"] or "") or str(folder) in " ".join(process.info["cmdline"] or []):
            found.append(process.pid)
    return found


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="recsys-cold-") as scratch:
        folder, log = Path(scratch, "clone"), Path(scratch, "demo.log")
        subprocess.run(["git", "clone", "--quiet", str(HOME), str(folder)], check=True)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("RECSYS_", "VIRTUAL_ENV"))
        } | {"UV_CACHE_DIR": str(Path(scratch, "uv")), "PIP_NO_CACHE_DIR": "1", "HOME": scratch}
        environment["PATH"] = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if str(HOME) not in p)
        try:
            with MemorySampler(lambda: platform_processes(folder)) as memory:
                cold = timed(["make", "demo"], folder, environment, log)
            second = timed(["make", "demo"], folder, environment, log)
        finally:
            subprocess.run(["make", "down"], cwd=folder, env=environment, check=True)
            (HOME / "var").mkdir(exist_ok=True)
            (HOME / "var" / "cold-demo.log").write_bytes(log.read_bytes())
    command = "python -m bench.cold_demo"
    publish(
        "cold_demo",
        "The demo, cold and again",
        [
            {"measure": "cold `make demo`, empty caches, to the last line", "target": "≤ 12 min",
             "measured": f"{cold / 60:.1f} min", "command": command},
            {"measure": "second `make demo`, nothing new, platform up", "target": "≤ 45 s",
             "measured": f"{second:.1f} s", "command": command},
            {"measure": "peak memory of the platform and its tasks, PSS (RSS)", "target": "≤ 8 GiB",
             "measured": f"{memory.peak_pss / 2**30:.2f} GiB ({memory.peak_rss / 2**30:.2f} GiB)", "command": command},
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
