"""A training set as of its instants: the platform's join beside Feast's historical look-up, on the same tables.

    python -m bench.point_in_time [--labels 1000000] [--user-rows 2000000] [--item-rows 1000000] [--rounds 1]

Labels ask for 15 features of a user and 15 of an item. Each way is a process of its own, which reads the questions from
Parquet and answers with float32; its seconds are of the wall with its imports, its memory is its peak (RSS), and
PostgreSQL's is apart. The answers are compared before anything is published.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.etl import warehouse
from bench.results import publish
from recsys.settings import HOME, Settings
from recsys.warehouse import connect

DAYS, DAY_US = 2_000, 86_400_000_000
FEATURES = 15
SIDES = {"user": 60_000, "item": 20_000}
TABLES = {side: f"marts.bench_{side}" for side in SIDES}
NAMES = {side: tuple(f"{side}_{number}" for number in range(FEATURES)) for side in SIDES}
INSTANT = pa.timestamp("us", tz="UTC")
DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.types import Float64
from feast.value_type import ValueType

views = []
for side in ("user", "item"):
    entity = Entity(name=side, join_keys=[f"{side}_id"], value_type=ValueType.STRING)
    globals()[side] = entity
    globals()[f"{side}_view"] = FeatureView(
        name=f"bench_{side}", entities=[entity], ttl=timedelta(0),
        schema=[Field(name=f"{side}_{number}", dtype=Float64) for number in range(%d)],
        source=PostgreSQLSource(
            name=f"bench_{side}_source", table=f"marts.bench_{side}", timestamp_field="event_timestamp"
        ),
    )
    views.append(globals()[f"{side}_view"])
service = FeatureService(name="bench", features=views)
"""


def write_features(settings: Settings, side: str, rows: int, random: np.random.Generator) -> None:
    """Fill one table: at most one row an entity and midnight, indexed as the marts are."""
    import adbc_driver_postgresql.dbapi as adbc

    keys = np.unique(random.integers(0, SIDES[side] * DAYS, rows))
    table = pa.table({
        f"{side}_id": [f"{side}:{key}" for key in keys // DAYS],
        "event_timestamp": pa.array(keys % DAYS * DAY_US, INSTANT),
        **{name: random.random(len(keys)).round(4) for name in NAMES[side]},
    })  # fmt: skip
    columns = ", ".join(f"{name} double precision" for name in NAMES[side])
    with connect(settings) as connection:
        connection.execute("create schema if not exists marts")
        connection.execute(
            f'create table {TABLES[side]} ({side}_id text collate "C", event_timestamp timestamptz, {columns})'
        )
    with adbc.connect(settings.postgres_url) as connection, connection.cursor() as cursor:
        schema, name = TABLES[side].split(".")
        cursor.adbc_ingest(name, table, mode="append", db_schema_name=schema)
        connection.commit()
    with connect(settings) as connection:
        connection.execute(f"create unique index on {TABLES[side]} ({side}_id, event_timestamp)")
        connection.execute(f"analyze {TABLES[side]}")


def write_questions(path: Path, labels: int, random: np.random.Generator) -> None:
    """Write labels: who, what, when; a few of entities that nothing is known of."""
    table = pa.table({
        f"{side}_id": [f"{side}:{number}" for number in random.integers(0, round(entities * 1.01), labels)]
        for side, entities in SIDES.items()
    } | {"event_timestamp": pa.array(random.integers(0, DAYS * DAY_US, labels), INSTANT)})  # fmt: skip
    pq.write_table(table, path)


def write_repository(folder: Path) -> None:
    """Write a feature repository with the platform's own stores over the two tables."""
    folder.mkdir()
    (folder / "feature_store.yaml").write_text((HOME / "feature_repo" / "feature_store.yaml").read_text())
    (folder / "definitions.py").write_text(DEFINITIONS % FEATURES)


def by_platform(settings: Settings, questions: Path, _: Path) -> np.ndarray:
    from training.asof import View, known_at

    views = [View(TABLES[side], f"{side}_id", NAMES[side]) for side in SIDES]
    return known_at(settings, pq.read_table(questions), views)


def by_feast(_: Settings, questions: Path, repository: Path) -> np.ndarray:
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(repository))
    asked = pq.read_table(questions).to_pandas()
    asked["label"] = np.arange(len(asked))  # it comes back with the answer, which is in another order
    found = store.get_historical_features(entity_df=asked, features=store.get_feature_service("bench")).to_df()
    found = found.sort_values("label")
    return found[[name for side in SIDES for name in NAMES[side]]].to_numpy(np.float32)


WAYS = {"the platform's join": by_platform, "Feast's historical look-up": by_feast}


def answer(way: str, questions: Path, repository: Path, answers: Path) -> None:
    """Answer in this process: called as a process of its own."""
    import resource

    settings = Settings(_env_file=None)
    np.save(answers, WAYS[way](settings, questions, repository))
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def measured(settings: Settings, way: str, home: Path) -> tuple[float, float, np.ndarray]:
    """Return seconds, peak MB and the answers of one way."""
    answers = home / "answers.npy"
    command = [sys.executable, "-m", "bench.point_in_time", "--answer", way, str(home / "questions.parquet")]
    command += [str(home / "repository"), str(answers)]
    environment = {**settings.child_environment(), **settings.own_environment(), **settings.libpq_environment()}
    started = perf_counter()
    done = subprocess.run(command, cwd=HOME, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    seconds = perf_counter() - started
    peak = json.loads(done.stdout.splitlines()[-1])["peak_mb"]
    print(f"{way}: {seconds:.1f} s, {peak:.0f} MB", flush=True)
    return seconds, peak, np.load(answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--user-rows", type=int, default=2_000_000)
    parser.add_argument("--item-rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--answer", nargs=4, metavar=("WAY", "QUESTIONS", "REPOSITORY", "ANSWERS"))
    arguments = parser.parse_args()
    if arguments.answer:
        way, *paths = arguments.answer
        answer(way, *map(Path, paths))
        return
    random, taken = np.random.default_rng(1), {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as name:
        home = Path(name)
        home.chmod(0o711)
        with warehouse(home / "var") as settings:
            for side, rows in (("user", arguments.user_rows), ("item", arguments.item_rows)):
                write_features(settings, side, rows, random)
            write_questions(home / "questions.parquet", arguments.labels, random)
            write_repository(home / "repository")
            feast = [Path(sys.executable).with_name("feast"), "-c", home / "repository"]
            apply = [*feast, "apply", "--skip-source-validation"]
            subprocess.run(apply, env=settings.child_environment(), check=True)
            for _ in range(arguments.rounds):
                found = {}
                for way in WAYS:
                    seconds, peak, found[way] = measured(settings, way, home)
                    taken[way].append((seconds, peak))
                np.testing.assert_allclose(*found.values(), rtol=1e-6)
    size = f"{arguments.labels / 1e6:g} M labels × {FEATURES * len(SIDES)} features"
    rows = f"{arguments.user_rows / 1e6:g} M rows of users, {arguments.item_rows / 1e6:g} M of items"
    command = " ".join(["python -m bench.point_in_time", *sys.argv[1:]])
    publish(
        "point_in_time",
        "A training set as of its instants",
        [
            {"measure": f"{way}: {size}, {rows}", "target": "reported",
             "measured": f"{median(took for took, _ in runs):.1f} s, peak {max(peak for _, peak in runs):,.0f} MB",
             "command": command}
            for way, runs in taken.items()
        ],
        "Both answered the same, missing values included. Median of the rounds; the memory is the greatest.",
    )  # fmt: skip


if __name__ == "__main__":
    main()
