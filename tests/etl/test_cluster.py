"""The same job on a Spark cluster: two workers with a core each leave the rows of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.lake import parquet_files
from recsys.settings import HOME, Settings
from tests.worlds import etl_files as files
from tests.worlds.spark_cluster import WORKERS, cluster

pytestmark = [pytest.mark.services, pytest.mark.soak]

GOOD = [f"{user}::{film}::4::{978300000 + user * 400 + film}" for user in range(1, 200) for film in range(1, 100)]
RATINGS = [*GOOD, *(line for line in files.BROKEN_RATINGS if line), "1::1::5::978300401"]


def land(settings: Settings, lake: Path, more: dict[str, str]) -> dict:
    command = [sys.executable, "-m", "etl", "land", "--domains", "movies", "--as-of", files.AS_OF]
    said = {"RECSYS_DATA_DIR": str(settings.data_dir), "RECSYS_LAKE_URL": str(lake), **more}
    done = subprocess.run(command, cwd=HOME, env=os.environ | said, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def rows(lake: Path, table: str) -> list[dict]:
    parts = [file for folder in sorted((lake / table).glob("*/*/*")) for file in parquet_files(folder)]
    assert parts, table
    return sorted(pa.concat_tables([pq.read_table(part, partitioning=None) for part in parts]).to_pylist(), key=repr)


def test_two_workers_leave_the_rows_of_one_process(world, tmp_path):
    settings = world("postgres").model_copy(update={"data_dir": tmp_path / "data"})
    files.movielens_1m(settings.data_dir / "ml-1m", ratings=RATINGS)
    alone = land(settings, tmp_path / "alone", {"RECSYS_SPARK_MASTER": "local[1]"})
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster") as two:
        together = land(settings, tmp_path / "together", two.environment())
        assert len(two.workers_that_ran()) == WORKERS
    assert together["rows_landed"] == alone["rows_landed"] >= len(GOOD)
    assert {**together, "unchanged": 0} == {**alone, "unchanged": 0}
    for table in ("interactions", "items", "users", "quarantine"):
        assert rows(tmp_path / "together", table) == rows(tmp_path / "alone", table), table
