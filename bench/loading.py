"""Loading PostgreSQL: the platform's COPY beside Spark's JDBC writer, the same rows into tables of the same form.

    python -m bench.loading [--rows 2000000] [--rounds 3]

Fetches PostgreSQL's JDBC driver with the Ivy that comes with Spark, checked against `requirements/jars_bench.txt`, and
starts a PostgreSQL with the platform's own options. COPY has one connection; JDBC has one or two, as it comes and tuned
(batches of 10 000 rows, inserts rewritten to many rows a statement). Session starts and a first write of each kind, for
the compilers, are left out of the seconds; rows are counted after each.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from bench.etl import warehouse
from bench.results import publish
from etl.load import FRESH, INDEX_MEMORY, begin_first_load, constants_of, copy_files, transaction
from infra.local import locks, setup
from recsys.settings import HOME, Settings
from recsys.warehouse import connect

LOCK = HOME / "requirements" / "jars_bench.txt"
TARGET = "raw.loaded"
WARM_UP_ROWS = 50_000
DEFAULT = {"batchsize": "1000"}
TUNED = {"batchsize": "10000", "reWriteBatchedInserts": "true"}


def driver(folder: Path) -> Path:
    """Fetch the JDBC driver into a folder and return its path."""
    jars = locks.read_jars(LOCK.read_text())
    folder.mkdir()
    setup.fetch(jars, folder, folder / "ivy.log")
    locks.verify_jars(folder / "jars", jars)
    return folder / "jars" / jars[0].file_name


def interactions(rows: int, seed: int = 1) -> pa.Table:
    """Return made-up interactions with the columns, the lengths and the order (by user) of landed ratings."""
    random = np.random.default_rng(seed)
    instants = random.integers(1_000_000_000, 1_500_000_000, rows)
    digests = random.bytes(16 * rows).hex()
    return pa.table(
        {
            "event_id": [digests[at : at + 32] for at in range(0, 32 * rows, 32)],
            "user_id": [f"ml-25m:{user}" for user in np.sort(random.integers(1, 160_000, rows))],
            "item_id": [f"movielens:{item}" for item in random.zipf(1.3, rows) % 60_000],
            "rating": random.integers(1, 11, rows) / 2,
            "occurred_at": pa.array(instants * 1_000_000, pa.timestamp("us", tz="UTC")),
            "domain": ["movies"] * rows,
            "event_type": ["rate"] * rows,
            "context": ["{}"] * rows,
            "source": ["ml-25m"] * rows,
            "landed_partition": ["history"] * rows,
        }
    )


def write_files(table: pa.Table, folder: Path, files: int = 4) -> list[Path]:
    """Write a table as so many Parquet files and return their paths."""
    folder.mkdir()
    size = -(-len(table) // files)
    paths = [folder / f"part-{number}.parquet" for number in range(files)]
    for number, path in enumerate(paths):
        pq.write_table(table.slice(number * size, size), path)
    return paths


def empty_target(settings: Settings) -> None:
    with connect(settings) as connection:
        connection.execute(f"drop table if exists {TARGET}")
        connection.execute(f"create table {TARGET} (like raw.interactions including defaults)")
        connection.execute(f"create index on {TARGET} (user_id, occurred_at)")
        connection.execute("checkpoint")


def seconds(settings: Settings, rows: int, load: Callable[[], None]) -> float:
    """Return what one load into an empty table takes; the table then holds exactly these rows."""
    empty_target(settings)
    started = perf_counter()
    load()
    taken = perf_counter() - started
    with connect(settings) as connection:
        found = connection.execute(f"select count(*) from {TARGET}").fetchone()[0]
    if found != rows:
        raise SystemExit(f"{found} rows arrived of {rows}")
    return taken


def by_copy(settings: Settings, folder: Path) -> Callable[[], None]:
    def load() -> None:
        with transaction(settings) as cursor:
            copy_files(cursor, TARGET, sorted(folder.glob("*.parquet")))

    return load


def by_first_load(settings: Settings, folder: Path) -> Callable[[], None]:
    """What `etl load` does where no event is there yet: a table of its own, what all rows share as its defaults, the
    index last."""

    def load() -> None:
        files = sorted(folder.glob("*.parquet"))
        with transaction(settings) as cursor:
            cursor.execute(f"drop table {TARGET}")
            told = constants_of(files)
            begin_first_load(cursor, told)
            copy_files(cursor, FRESH, files, told)
            cursor.execute(f"set local maintenance_work_mem = '{INDEX_MEMORY}'")
            cursor.execute(f"create index on {FRESH} (user_id, occurred_at)")
            cursor.execute(f"alter table {FRESH} rename to {TARGET.split('.')[1]}")

    return load


def by_jdbc(
    spark: SparkSession, settings: Settings, folder: Path, options: dict[str, str], connections: int = 1
) -> Callable[[], None]:
    account, place = settings.postgres_url.removeprefix("postgresql://").split("@")
    user, password = account.split(":")

    def load() -> None:
        writer = spark.read.parquet(str(folder)).coalesce(connections).write.format("jdbc")
        said = {"url": f"jdbc:postgresql://{place}", "driver": "org.postgresql.Driver", "dbtable": TARGET,
                "user": user, "password": password, **options}  # fmt: skip
        writer.options(**said).mode("append").save()

    return load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as name:
        home = Path(name)
        home.chmod(0o711)
        jar = driver(home / "driver")
        table = interactions(arguments.rows)
        write_files(table, home / "rows")
        write_files(table.slice(0, WARM_UP_ROWS), home / "warm-up")
        builder = SparkSession.builder.master("local[2]").appName("bench loading").config("spark.jars", str(jar))
        loopback = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
        }
        for key, value in loopback.items():
            builder = builder.config(key, value)
        spark = builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()
        taken: dict[str, list[float]] = {}
        with warehouse(home / "var") as settings:
            for rows, folder, rounds in ((WARM_UP_ROWS, "warm-up", 1), (arguments.rows, "rows", arguments.rounds)):
                ways = {
                    "COPY": by_copy(settings, home / folder),
                    "COPY as a first load (`etl load`'s own way)": by_first_load(settings, home / folder),
                    "JDBC as it comes, one connection": by_jdbc(spark, settings, home / folder, DEFAULT),
                    "JDBC as it comes, two": by_jdbc(spark, settings, home / folder, DEFAULT, connections=2),
                    "JDBC tuned, two": by_jdbc(spark, settings, home / folder, TUNED, connections=2),
                }
                for number in range(rounds):  # in turn, so that a slow minute of the machine meets all of them
                    for way, load in ways.items():
                        took = seconds(settings, rows, load)
                        print(f"{datetime.now(UTC):%H:%M:%S} {folder} {number} {way}: {took:.2f} s", flush=True)
                        if rows == arguments.rows:
                            taken.setdefault(way, []).append(took)
        spark.stop()
    publish("loading", "Loading PostgreSQL", table_of(arguments.rows, taken))


def table_of(rows: int, taken: dict[str, list[float]]) -> list[dict[str, str]]:
    """Return the published rows: each way's rate, and how many times COPY's is of the others'."""
    rates = {way: rows / statistics.median(values) for way, values in taken.items()}
    command = f"python -m bench.loading --rows {rows} --rounds {len(next(iter(taken.values())))}"
    lines = []
    for way, values in taken.items():
        spread = f"{rows / max(values):,.0f} to {rows / min(values):,.0f}"
        copies = [f"{name} {rates[name] / rates[way]:.2f} ×" for name in rates if name.startswith("COPY")]
        beside = "" if way.startswith("COPY") else f"; {', '.join(copies)}"
        lines.append({"measure": f"{way}: rows a second, one index, {rows / 1e6:g} M rows",
                      "target": "reported" if way.startswith("COPY") else "COPY ≥ 5 ×",
                      "measured": f"{rates[way]:,.0f} ({spread}){beside}", "command": command})  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
