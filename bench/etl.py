"""Landing and building at full size: the rate of the landing beside a DuckDB pipeline written by hand, its memory, and
what one more day costs.

    python -m bench.etl REAL_RATINGS.csv.gz MOVIES.csv.gz --rows 20000000 [--sizes 5000000] [--landing-only 40000000]
        [--peers 2]

With `--rows 0` only what `--landing-only` names is measured; its smallest size then has the peers beside it.

Needs a few tens of GB of disk below the temporary folder and a PostgreSQL that it starts itself with the platform's
options. An installation's first landing, which keeps an archive of Spark's classes, comes before and is not counted.
Each step is a process of its own; its seconds are of the wall and, in parentheses, of the processor: its own with all
that it started, Java too, and PostgreSQL's meanwhile. Peak memory is that of the step's processes together (RSS),
PostgreSQL's apart.
"""

import argparse
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from time import perf_counter

import psutil

from bench import etl_world
from bench.memory import MemorySampler
from bench.results import publish
from infra.local import stores
from recsys.settings import HOME, Settings
from recsys.warehouse import apply_schema, connect

PYTHON = sys.executable
ADOPTS = 36
"""Linux's `PR_SET_CHILD_SUBREAPER`: a Java that outlives its Python becomes this process's child; its time counts."""
TITLE = "The landing and the warehouse at {millions:.0f} M events"
SHORT_TITLE = "Landing and loading at full size, beside a pipeline by hand"
WORDS = ("land", "load", "build")
ASKED_OF = 20_000_000
"""The size of which one more day's share is asked: most of what a day costs does not grow with the history."""
DBT = ("dbt.build", "--domains=movies", "--code=dbt", "--after=etl.load",
       "--reads=raw.interactions_stream:occurred_at,raw.impressions:shown_at")  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What one command took."""

    seconds: float
    cpu_seconds: float
    server_seconds: float
    peak_bytes: int
    said: dict

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.cpu_seconds:.1f} + {self.server_seconds:.1f} s of processor)"


def measured(settings: Settings, arguments: Sequence[str]) -> Step:
    """Run `python <arguments>` and return its costs."""
    before, server, started = resource.getrusage(resource.RUSAGE_CHILDREN), server_cpu(settings), perf_counter()
    others = {process.pid for process in psutil.Process().children()}
    child = subprocess.Popen(
        [PYTHON, *arguments], cwd=HOME, env=settings.own_environment(), stdout=subprocess.PIPE, text=True
    )

    def tree() -> list[int]:
        try:
            root = psutil.Process(child.pid)
            return [root.pid, *(process.pid for process in root.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    with MemorySampler(tree) as memory:
        said, _ = child.communicate()
    seconds = perf_counter() - started
    for left in psutil.Process().children():
        if left.pid not in others:
            os.waitpid(left.pid, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if child.returncode:
        raise SystemExit(f"{arguments} ended with {child.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    step = Step(seconds, cpu, server_cpu(settings) - server, memory.peak_rss, json.loads(said.strip().splitlines()[-1]))
    print(" ".join(arguments)[:60], step, f"{step.peak_bytes / 2**30:.2f} GiB", flush=True)
    return step


def server_cpu(settings: Settings) -> float:
    """Return the processor seconds of PostgreSQL so far: of what runs, and of what has ended and was waited for."""
    pid = int((settings.var_dir / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    server = psutil.Process(pid)
    spent = sum(server.cpu_times()[:4])
    for process in server.children():
        try:
            spent += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:  # it ended meanwhile
            continue
    return spent


@contextmanager
def warehouse(folder: Path) -> Iterator[Settings]:
    """Yield settings whose PostgreSQL runs, with the platform's own options, for as long as the block does."""
    from tests.conftest import start, stop
    from tests.ports import free_port

    folder.mkdir()
    folder.chmod(0o711)
    url = f"postgresql://recsys:bench@{stores.LOOPBACK}:{free_port()}/recsys"
    settings = Settings(_env_file=None, var_dir=folder, postgres_url=url)
    server = start(stores.postgres(settings), folder / "postgres.log")
    try:
        stores.create_database(url, "recsys")
        apply_schema(settings)
        yield settings
    finally:
        stop(server)


def land(
    settings: Settings, data: Path, as_of: date, since: date | None = None, builds: bool = True
) -> tuple[Step, ...]:
    """Land, load and, with `builds`, build; return their costs."""
    given = settings.model_copy(update={"data_dir": data})
    interval = [f"--as-of={as_of}", "--domains=movies", *([f"--since={since}"] if since else [])]
    landed = measured(given, ["-m", "etl", "land", *interval])
    loaded = measured(given, ["-m", "etl", "load", *interval])
    if not builds:
        return landed, loaded
    dbt = ["dbt", "--quiet", "build", "--project-dir", "dbt", "--profiles-dir", "dbt", "--exclude", "tag:insight",
           "--exclude-resource-type", "unit_test"]  # fmt: skip
    built = measured(given, ["-m", "recsys.task", *DBT, f"--as-of={as_of}", "--", *dbt])
    with connect(settings) as connection:
        print(connection.execute("select as_of, is_full, watermark from intermediate.builds").fetchall(), flush=True)
    print("  slowest:", ", ".join(slowest_nodes(settings)), flush=True)
    return landed, loaded, built


def slowest_nodes(settings: Settings, at_least: float = 0.4) -> list[str]:
    """Return the models and tests of the last build that took so many seconds, the slowest first."""
    results = json.loads((settings.var_dir / "dbt" / "target" / "run_results.json").read_text())["results"]
    took = sorted(((node["execution_time"], node["unique_id"].split(".")[2]) for node in results), reverse=True)
    return [f"{name} {seconds:.1f}" for seconds, name in took if seconds >= at_least]


def raw_rows(settings: Settings) -> int:
    with connect(settings) as connection:
        return connection.execute("select count(*) from raw.interactions").fetchone()[0]


def total(steps: Sequence[Step]) -> float:
    return sum(step.seconds for step in steps)


def cpu(steps: Sequence[Step]) -> float:
    return sum(step.cpu_seconds + step.server_seconds for step in steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("movies", type=Path)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[])
    parser.add_argument("--landing-only", type=int, nargs="*", default=[], help="sizes to land and load only")
    parser.add_argument("--peers", type=int, choices=(0, 1, 2), default=1, help="2: also one that indexes last")
    parser.add_argument("--name", default="etl")
    arguments = parser.parse_args()
    real = etl_world.read(arguments.ratings)
    ctypes.CDLL(None).prctl(ADOPTS, 1, 0, 0, 0)
    table = []
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as name:
        home = Path(name)
        home.chmod(0o711)
        for rows in filter(None, (*arguments.sizes, arguments.rows, *arguments.landing_only)):
            is_short = rows in arguments.landing_only
            has_peers = not is_short or (not arguments.rows and rows == min(arguments.landing_only))
            table += of_size(home, real, arguments, rows, is_short, arguments.peers if has_peers else 0)
            title = TITLE.format(millions=arguments.rows / 1e6) if arguments.rows else SHORT_TITLE
            publish(arguments.name, title, table)


def of_size(
    home: Path, real: etl_world.Ratings, arguments: argparse.Namespace, rows: int, is_short: bool, peers: int
) -> list[dict]:
    """Measure one size and return its rows of the published table; nothing of it stays on the disk."""
    as_of, day_after = real.last_day, real.last_day + timedelta(days=1)
    history, day = home / f"{rows}" / "ml-25m", home / f"{rows}-day" / "ml-25m"
    _, of_day = etl_world.write(real, arguments.movies, rows, history, day, as_of)
    size, found = f"{rows / 1e6:g} M", []
    with warehouse(home / f"var-{rows}") as settings:
        keep_classes(home, real, arguments.movies, as_of, settings)
        full = land(settings, history.parent, as_of, builds=not is_short)
        what = "landing and loading" if is_short else "landing, loading and building"
        found.append((f"peak memory of {what}", "≤ 6 GiB", peaks(full)))
        found.append(("the whole history", "reported", said(full)))
        if not is_short:
            one = land(settings, day.parent, day_after, since=as_of)
            assert raw_rows(settings) == rows + of_day
            share = f"{total(one) / total(full):.1%}: {said(one)}"
            target = "≤ 5 % of the whole" if rows >= ASKED_OF else "reported"
            found.append((f"one more day of {of_day:,} events", target, share))
        for words in ((), ("index-last",))[:peers]:
            peer = measured(settings, ["-m", "bench.etl_peer", str(history), str(home / f"peer-{rows}{len(words)}"),
                                       settings.postgres_url, *words])  # fmt: skip
            assert peer.said["rows"] == rows
            last = ", its index made last too" if words else ""
            found.insert(len(words), (f"landing and loading, rows a second, beside DuckDB and COPY by hand{last}",
                                      "reported" if words else "≥ 0.7 ×", beside(rows, full[:2], peer)))  # fmt: skip
    for folder in (f"{rows}", f"{rows}-day", f"var-{rows}", *(f"peer-{rows}{number}" for number in (0, 1))):
        shutil.rmtree(home / folder, ignore_errors=True)
    command = f"python -m bench.etl RATINGS MOVIES {'--rows 0 --landing-only' if is_short else '--rows'} {rows}"
    return [
        {"measure": f"{size}: {measure}", "target": target, "measured": value, "command": command}
        for measure, target, value in found
    ]


def keep_classes(
    home: Path, real: etl_world.Ratings, movies: Path, as_of: date, settings: Settings, rows: int = 1000
) -> None:
    """Let the landing find the archive of Spark's classes, which is at one place for all sizes; at the first time it is
    made by landing a few rows."""
    place = home / "spark"
    (settings.var_dir / "spark").symlink_to(place)
    if not place.is_dir():
        place.mkdir()
        first = home / "first" / "ml-25m"
        etl_world.write(real, movies, rows, first, home / "first-day", as_of)
        given = settings.model_copy(update={"data_dir": first.parent})
        measured(given, ["-m", "etl", "land", f"--as-of={as_of}", "--domains=movies"])


def beside(rows: int, own: Sequence[Step], peer: Step) -> str:
    return (
        f"{rows / total(own):,.0f} / {rows / peer.seconds:,.0f} = {peer.seconds / total(own):.2f} × (by processor "
        f"{cpu([peer]) / cpu(own):.2f} ×; peer's memory {peer.peak_bytes / 2**30:.1f} GiB)"
    )


def peaks(steps: Sequence[Step]) -> str:
    each = ", ".join(f"{word} {step.peak_bytes / 2**30:.2f}" for word, step in zip(WORDS, steps, strict=False))
    return f"{max(step.peak_bytes for step in steps) / 2**30:.2f} GiB ({each})"


def said(steps: Sequence[Step]) -> str:
    return ", ".join(f"{word} {step}" for word, step in zip(WORDS, steps, strict=False))


if __name__ == "__main__":
    main()
