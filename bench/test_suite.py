"""How long `make test` takes in a fresh clone of the committed state, set-up included.

    python -m bench.test_suite

The package caches are the user's own; `bench.cold_demo` measures without any.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter

from bench.results import publish
from recsys.settings import HOME

SUMMARY = re.compile(r"=+ (?P<counts>.*(?:passed|failed|error).*) in (?P<seconds>[\d.]+)s")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="recsys-test-") as scratch:
        folder = Path(scratch, "clone")
        subprocess.run(["git", "clone", "--quiet", str(HOME), str(folder)], check=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}
        if HOME.parent.joinpath("shared").is_dir():
            Path(scratch, "shared").symlink_to(HOME.parent / "shared")
        started = perf_counter()
        done = subprocess.run(
            ["make", "test"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        seconds = perf_counter() - started
    (HOME / "var").mkdir(exist_ok=True)
    (HOME / "var" / "test-suite.log").write_text(done.stdout)
    summaries = list(SUMMARY.finditer(done.stdout))
    if done.returncode or not summaries:
        raise SystemExit(f"make test ended with {done.returncode}; its output is in var/test-suite.log")
    command = "python -m bench.test_suite"
    publish(
        "test_suite",
        "`make test` in a fresh clone",
        [
            {"measure": "set-up, style, layers and all tests", "target": "≤ 15 min",
             "measured": f"{seconds / 60:.1f} min", "command": command},
            {"measure": "the tests alone", "target": "reported",
             "measured": f"{float(summaries[-1]['seconds']) / 60:.1f} min: {summaries[-1]['counts']}",
             "command": command},
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
