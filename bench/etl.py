"""Landing and building at full size: the rate of the landing beside a DuckDB pipeline written by hand, its memory, and
what one more day costs.

    python -m bench.etl REAL_RATINGS.csv.gz MOVIES.csv.gz --rows 20000000 [--sizes 5000000] [--without-peer]

Needs a few tens of GB of disk below the temporary folder and a PostgreSQL that it starts itself with the platform's
options. Each step is a process of its own; its seconds are of the wall and, in parentheses, of the processor with all
that it started. Peak memory is that of the step's processes together (RSS), PostgreSQL's apart.
"""

import argparse
import json
import resource
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
DBT = ("dbt.build", "--domains=movies", "--code=dbt", "--after=etl.load",
       "--reads=raw.interactions_stream:occurred_at,raw.impressions:shown_at")  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What one command took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    said: dict

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.cpu_seconds:.1f} s of processor)"


def measured(settings: Settings, arguments: Sequence[str]) -> Step:
    """Run `python <arguments>` and return its costs."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
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
    seconds, after = perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if child.returncode:
        raise SystemExit(f"{arguments} ended with {child.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    step = Step(seconds, cpu, memory.peak_rss, json.loads(said.strip().splitlines()[-1]))
    print(" ".join(arguments)[:60], step, f"{step.peak_bytes / 2**30:.2f} GiB", flush=True)
    return step


@contextmanager
def warehouse(folder: Path) -> Iterator[Settings]:
    """Yield settings whose PostgreSQL runs, with the platform's own options, for as long as the block does."""
    from tests.conftest import free_port, start, stop

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


def land(settings: Settings, data: Path, as_of: date, since: date | None = None) -> tuple[Step, Step, Step]:
    """Land, load and build; return their costs."""
    given = settings.model_copy(update={"data_dir": data})
    interval = [f"--as-of={as_of}", "--domains=movies", *([f"--since={since}"] if since else [])]
    landed = measured(given, ["-m", "etl", "land", *interval])
    loaded = measured(given, ["-m", "etl", "load", *interval])
    said = json.dumps({"as_of": as_of.isoformat(), "domains": "movies"})
    dbt = ["dbt", "--quiet", "build", "--project-dir", "dbt", "--profiles-dir", "dbt", "--exclude", "tag:insight",
           "--exclude-resource-type", "unit_test", "--vars", said]  # fmt: skip
    built = measured(given, ["-m", "recsys.task", *DBT, f"--as-of={as_of}", "--", *dbt])
    with connect(settings) as connection:
        print(connection.execute("select as_of, is_full, watermark from intermediate.builds").fetchall(), flush=True)
    return landed, loaded, built


def raw_rows(settings: Settings) -> int:
    with connect(settings) as connection:
        return connection.execute("select count(*) from raw.interactions").fetchone()[0]


def total(steps: Sequence[Step]) -> float:
    return sum(step.seconds for step in steps)


def cpu(steps: Sequence[Step]) -> float:
    return sum(step.cpu_seconds for step in steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("movies", type=Path)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[])
    parser.add_argument("--without-peer", action="store_true")
    parser.add_argument("--name", default="etl")
    arguments = parser.parse_args()
    real = etl_world.read(arguments.ratings)
    as_of, day_after = real.last_day, real.last_day + timedelta(days=1)
    command = f"python -m bench.etl RATINGS MOVIES --rows {arguments.rows}"
    table = []
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as name:
        home = Path(name)
        home.chmod(0o711)
        for rows in (*arguments.sizes, arguments.rows):
            history, day = home / f"{rows}" / "ml-25m", home / f"{rows}-day" / "ml-25m"
            _, of_day = etl_world.write(real, arguments.movies, rows, history, day, as_of)
            size = f"{rows / 1e6:g} M"
            with warehouse(home / f"var-{rows}") as settings:
                full = land(settings, history.parent, as_of)
                one = land(settings, day.parent, day_after, since=as_of)
                assert raw_rows(settings) == rows + of_day
                if not arguments.without_peer:
                    peer = measured(settings, ["-m", "bench.etl_peer", str(history), str(home / f"peer-{rows}"),
                                               settings.postgres_url])  # fmt: skip
                    assert peer.said["rows"] == rows
                    own = full[:2]
                    table.append(
                        {"measure": f"{size}: landing and loading, rows a second, beside DuckDB and COPY by hand",
                         "target": "≥ 0.7 ×",
                         "measured": f"{rows / total(own):,.0f} / {rows / peer.seconds:,.0f} = "
                         f"{peer.seconds / total(own):.2f} × (by processor {peer.cpu_seconds / cpu(own):.2f} ×; "
                         f"peer's memory {peer.peak_bytes / 2**30:.1f} GiB)", "command": command}
                    )  # fmt: skip
            peak = max(step.peak_bytes for step in full) / 2**30
            steps = ", ".join(f"{word} {step}" for word, step in zip(("land", "load", "build"), full, strict=True))
            table += [
                {"measure": f"{size}: peak memory of landing, loading and building", "target": "≤ 6 GiB",
                 "measured": f"{peak:.2f} GiB", "command": command},
                {"measure": f"{size}: the whole history", "target": "reported", "measured": steps, "command": command},
                {"measure": f"{size}: one more day of {of_day:,} events", "target": "≤ 5 % of the whole",
                 "measured": f"{total(one) / total(full):.1%}: "
                 + ", ".join(f"{w} {step}" for w, step in zip(("land", "load", "build"), one, strict=True)),
                 "command": command},
            ]  # fmt: skip
    publish(arguments.name, "The landing and the warehouse at full size", table)


if __name__ == "__main__":
    main()
