"""The station as Airflow runs it: a process with an exit code and one line of JSON; it may be killed at any moment."""

import json
import os
import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

import psutil
import psycopg
import pytest
import tenacity

from etl.__main__ import land, load
from recsys.interval import Interval
from recsys.settings import HOME, Settings
from recsys.warehouse import connect
from tests.worlds import etl_files as world_files

pytestmark = pytest.mark.services

INTERVAL = ("--domains", "movies", "--as-of", world_files.AS_OF)
MANY = [f"{user}::{film}::4::{978300000 + user * 400 + film}" for user in range(1, 300) for film in range(1, 300)]
COLUMNS = "event_id, user_id, item_id, rating, occurred_at, domain, event_type, context, source, landed_partition"


@pytest.fixture
def settings(world, land_in_process, tmp_path, monkeypatch) -> Settings:
    settings = world("postgres").model_copy(update={"data_dir": tmp_path / "data", "lake_url": str(tmp_path / "lake")})
    monkeypatch.setenv("RECSYS_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("RECSYS_LAKE_URL", settings.lake)
    monkeypatch.setenv("RECSYS_SPARK_MASTER", "local[1]")
    world_files.movielens_1m(settings.data_dir / "ml-1m")
    return settings


def start(command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "etl", command, *INTERVAL],
        cwd=HOME, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ),
    )  # fmt: skip


def run(command: str) -> dict:
    process = start(command)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def wait_until(condition) -> None:
    for attempt in tenacity.Retrying(
        stop=tenacity.stop_after_delay(240),
        wait=tenacity.wait_fixed(0.02),
        retry=tenacity.retry_if_exception_type(AssertionError),
        reraise=True,
    ):
        with attempt:
            assert condition()


def files_below(lake: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(lake)): path.read_bytes() for path in sorted(lake.glob(pattern))}


def test_killed_while_it_lands_and_while_it_loads_then_run_again(settings):
    """Both halves in one walk: starting Spark is what costs."""
    lake = Path(settings.lake)
    interval = Interval(("movies",), date.fromisoformat(world_files.AS_OF))
    assert land(settings, interval, datetime.fromisoformat(world_files.NOW))["rows_landed"] == len(world_files.RATINGS)
    assert load(settings, interval)["rows"]["interactions"] == len(world_files.RATINGS)
    published = files_below(lake, "interactions/*/*/*/part-*")
    assert published
    world_files.movielens_1m(settings.data_dir / "ml-1m", ratings=MANY)

    landing = start("land")
    wait_until(
        lambda: landing.poll() is None and list(lake.glob(".landing/*/*/interactions/*/*/*/_temporary/**/part-*"))
    )
    java = psutil.Process(landing.pid).children(recursive=True)
    landing.kill()
    landing.communicate()
    _, alive = psutil.wait_procs(java, timeout=60)
    assert java
    assert not alive, "the JVM outlives the station"
    assert files_below(lake, "interactions/*/*/*/part-*") == published

    assert land(settings, interval, datetime.fromisoformat(world_files.NOW))["rows_landed"] == len(MANY)
    assert not list(lake.glob(".landing/*"))

    with psycopg.connect(settings.postgres_url) as blocker:
        blocker.execute("lock table raw.users in access exclusive mode")  # interactions are replaced before users are
        loading = start("load")
        waiting = "select count(*) from pg_locks where not granted and relation = 'raw.users'::regclass"
        wait_until(lambda: loading.poll() is None and blocker.execute(waiting).fetchone() == (1,))
        loading.kill()
        loading.communicate()
    query = f"select {COLUMNS} from raw.interactions order by event_id"
    with connect(settings) as connection:
        connection.execute("lock table raw.users in access exclusive mode")  # the killed session is gone
        assert connection.execute("select count(*) from raw.interactions").fetchone() == (len(world_files.RATINGS),)
        assert connection.execute("select count(*) from monitoring.receipts").fetchone() == (2,)

    assert run("load")["rows"]["interactions"] == len(MANY)
    with connect(settings) as connection:
        after = connection.execute(query).fetchall()
        connection.execute("delete from raw.interactions")
        connection.execute("delete from monitoring.receipts where task = 'etl.load'")
    assert not run("load")["unchanged"]  # undisturbed
    with connect(settings) as connection:
        assert connection.execute(query).fetchall() == after
    assert len(after) == len(MANY)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("ratings.dat", b"", "ratings.dat. It is empty"),
        ("movies.dat", b"\0\1\2", "movies.dat. It is not text"),
    ],
)
def test_an_unusable_file_ends_the_process_red_with_one_sentence(settings, file, content, sentence):
    (settings.data_dir / "ml-1m" / file).write_bytes(content)
    process = start("land")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == ""
    assert errors.splitlines()[-1].startswith("FAILED UnusableInput: raw file: ")
    assert sentence in errors
    assert "Traceback" not in errors
