"""One small Spark session for all tests of this station, and a way to land into a lake without the warehouse."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl import judge
from etl import land as landing
from etl.discovery import discover
from etl.lake import Draft, lake_folder, parquet_files
from etl.spark import session
from recsys.interval import Interval
from recsys.settings import Settings
from tests.worlds.etl_files import AS_OF, NOW

CLOCK = judge.Clock(datetime.fromisoformat(NOW))


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory):
    settings = Settings(
        _env_file=None, var_dir=tmp_path_factory.mktemp("spark"), spark_master="local[1]", spark_memory="1g"
    )
    with session(settings, input_bytes=0, keep_classes=False) as started:
        interpret(started, True)
        yield started


def interpret(spark, yes: bool) -> None:
    """Have Spark interpret expressions, quicker for ten rows than compiling them, or compile as in earnest."""
    spark.conf.set("spark.sql.codegen.wholeStage", str(not yes).lower())
    spark.conf.set("spark.sql.codegen.factoryMode", "NO_CODEGEN" if yes else "FALLBACK")


@pytest.fixture
def compiled(spark) -> Iterator[None]:
    """For one test, Spark compiles expressions as it does outside of tests."""
    interpret(spark, False)
    yield
    interpret(spark, True)


@dataclass(frozen=True)
class Landed:
    """What a landing left."""

    lake: Path
    counts: Sequence[landing.Counts]

    def count(self, table: str = "interactions") -> landing.Counts:
        (only,) = [count for count in self.counts if count.table == table]
        return only

    def rows(self, table: str) -> list[dict]:
        """All rows of a table in this lake, in a fixed order."""
        files = [file for folder in sorted((self.lake / table).glob("*/*/*")) for file in parquet_files(folder)]
        tables = [pq.read_table(file, partitioning=None) for file in files]
        return sorted(pa.concat_tables(tables, promote_options="permissive").to_pylist(), key=repr) if tables else []


Land = Callable[..., Landed]


@pytest.fixture(scope="module")
def shared_session(spark) -> Iterator[None]:
    """Every landing in this process takes the session of the tests instead of one of its own."""

    @contextmanager
    def shared(*_: object) -> Iterator[object]:
        yield spark

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(landing, "session", shared)
        yield


@pytest.fixture
def land_in_process(shared_session) -> None:
    """The same, for one test."""


@pytest.fixture
def land(land_in_process, tmp_path: Path) -> Land:
    """A function (folder of raw files) → `Landed`; further landings in one test go to the same lake."""

    def run(
        data: Path | None, domains: str = "movies", as_of: str = AS_OF, since: str | None = None, lake: str = "lake"
    ) -> Landed:
        settings = Settings(_env_file=None, var_dir=tmp_path, data_dir=data, lake_url=str(tmp_path / lake))
        days = date.fromisoformat(as_of), date.fromisoformat(since) if since else None
        draft = Draft(lake_folder(settings), Interval(tuple(domains.split(",")), *days))
        draft.begin()
        counts = landing.land(settings, draft, CLOCK, discover(settings, draft.interval.domains))
        draft.publish()
        return Landed(draft.lake, counts)

    return run
