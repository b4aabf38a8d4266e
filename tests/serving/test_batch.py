"""Precomputed lists over real PostgreSQL and Redis: the same answers as live, replaced as one, found again."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import redis
from pyarrow.dataset import dataset

from infra.local.applications import python_of
from recsys import receipts, user_state
from recsys.errors import MissingArtifact, RecsysError, ServiceUnavailable
from recsys.interval import Interval
from recsys.settings import HOME, Settings
from recsys.warehouse import connect
from serving import list_files, precompute
from serving.batch import run
from serving.cache import list_key
from serving.model import load
from serving.recommend import Query, recommend
from tests.ports import free_port
from tests.worlds.served import BOOKS, EVEN, FILMS, ITEMS, ODD, write_world

pytestmark = pytest.mark.services
INTERVAL = Interval(("books", "movies"), date(2026, 1, 10))
START = datetime(2026, 1, 1, tzinfo=UTC)
HISTORIES = {"even": EVEN[:3], "odd": ODD[:2], "books": BOOKS, "all": ITEMS, "elsewhere": ["gone:1"]}
LENGTH = 5


@pytest.fixture
def settings(world, tmp_path) -> Iterator[Settings]:
    """A world with marts, a deployed model and the users' live state, as the pipeline leaves them."""
    settings = world("postgres", "redis").model_copy(update={"var_dir": tmp_path, "model_dir": tmp_path / "model"})
    write_world(tmp_path / "model", version="3")
    with connect(settings) as connection:
        connection.execute("drop table if exists marts.fct_interactions")
        connection.execute(
            "truncate serving.precomputed_lists, serving.precomputed_lists_begun, serving.batch_begun, "
            "monitoring.receipts"
        )
        connection.execute(
            "create table marts.fct_interactions (user_id text not null, item_id text not null, "
            "domain text not null, occurred_at timestamptz not null)"
        )
        receipts.record(connection, "dbt.build", INTERVAL.key, "marts-1", {})
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as store:
        store.flushdb()
        for user_id, items in HISTORIES.items():
            happen(settings, store, user_id, [(item, START + timedelta(hours=n)) for n, item in enumerate(items)])
    return settings


def happen(settings: Settings, store: redis.Redis, user_id: str, events: list[tuple[str, datetime]]) -> None:
    """Let events be in the mart and in the live state."""
    with connect(settings) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "insert into marts.fct_interactions values (%s, %s, 'movies', %s)",
            [(user_id, item, occurred_at) for item, occurred_at in events],
        )
    user_state.add_events(store, user_id, events)
    user_state.move_version(store, user_id)


def stored(settings: Settings) -> list[tuple]:
    with psycopg.connect(settings.postgres_url) as connection:
        return connection.execute("select * from serving.precomputed_lists order by user_id, domain, rank").fetchall()


def in_files(settings: Settings) -> list[tuple]:
    """The rows of the Parquet files, as the table's."""
    names = ("user_id", "domain", "rank", "item_id", "score", "model_version")
    table = dataset(Path(settings.lake) / "precomputed_lists", partitioning="hive").to_table()
    return sorted(tuple(row[name] for name in names) for row in table.to_pylist())


def cached(settings: Settings, user_id: str, domain: str | None = None) -> dict | None:
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as store:
        value = store.get(list_key(user_id, domain))
        assert value is None or 0 < store.ttl(list_key(user_id, domain)) <= 2 * 24 * 3600
    return value and json.loads(value)


def test_the_lists_are_the_live_answers(settings):
    counts = run(settings, INTERVAL, LENGTH)
    model = load(settings.served_model)
    assert counts | {"rows": 0} == {"users": 5, "rows": 0, "cached_users": 4, "parts": 1, "unchanged": False}
    rows = stored(settings)
    assert len(rows) == counts["rows"]
    compared = 0
    for user_id, history in HISTORIES.items():
        for domain in (None, "books", "movies"):
            (live,) = recommend(model, [Query(LENGTH, history, domain=domain)])
            wanted = [(rank, ITEMS[item]) for rank, item in enumerate(live.items, start=1)]
            assert [(r[2], r[3]) for r in rows if r[:2] == (user_id, domain or "all")] == wanted
            compared += len(wanted)
            if user_id != "elsewhere":
                answer = cached(settings, user_id, domain)
                assert (answer["model_version"], answer["user_version"]) == ("3", 1)
                assert [item for item, _ in answer["items"]] == [item for _, item in wanted]
    assert compared == counts["rows"]
    assert {row[5] for row in rows} == {"3"}
    assert in_files(settings) == sorted(rows)
    assert {path.name for path in Path(settings.lake, "precomputed_lists").iterdir()} == {
        "domain=all", "domain=books", "domain=movies",
    }  # fmt: skip


def test_a_user_without_a_known_item_gets_the_popular_list_but_no_cached_one(settings):
    run(settings, INTERVAL, LENGTH)
    assert [row[3] for row in stored(settings) if row[:2] == ("elsewhere", "all")] == ITEMS[::-1][:LENGTH]
    assert cached(settings, "elsewhere") is None


def test_a_second_run_finds_the_receipt_and_a_new_model_does_not(settings):
    first = run(settings, INTERVAL, LENGTH)
    before = stored(settings)
    assert run(settings, INTERVAL, LENGTH) == first | {"unchanged": True}
    assert run(settings, INTERVAL, LENGTH + 1)["unchanged"] is False
    deployment = settings.served_model / "deployment.json"
    deployment.write_text(json.dumps({"model_version": "4"}))
    assert run(settings, INTERVAL, LENGTH)["unchanged"] is False
    assert [row[:5] for row in stored(settings)] == [row[:5] for row in before]
    assert {row[5] for row in stored(settings)} == {"4"}


def test_the_receipt_of_another_day_goes_with_its_lists(settings):
    later = Interval(INTERVAL.domains, date(2026, 1, 11))
    with connect(settings) as connection:
        receipts.record(connection, "dbt.build", later.key, "marts-2", {})
    run(settings, INTERVAL, LENGTH)
    run(settings, later, LENGTH)
    assert run(settings, INTERVAL, LENGTH)["unchanged"] is False


def test_events_after_the_interval_are_not_in_the_lists_and_keep_them_out_of_the_cache(settings):
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as store:
        happen(settings, store, "even", [(ODD[5], INTERVAL.end)])
    run(settings, INTERVAL, LENGTH)
    assert [row[3] for row in stored(settings) if row[:2] == ("even", "all")] == EVEN[3 : 3 + LENGTH]
    assert cached(settings, "even") is None
    assert cached(settings, "odd") is not None


def test_a_repeated_event_counts_once_at_its_latest_instant(settings):
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as store:
        repeated = [(EVEN[0], START + timedelta(days=2)), (ODD[0], START + timedelta(days=2, milliseconds=1))]
        happen(settings, store, "again", [(EVEN[0], START), *repeated])
    run(settings, INTERVAL, LENGTH)
    assert cached(settings, "again")["items"][0][0] == ODD[1]  # the odd item came last


def test_a_dead_store_fails_the_task_and_leaves_the_earlier_lists(settings):
    run(settings, INTERVAL, LENGTH)
    before = stored(settings)
    (settings.served_model / "deployment.json").write_text(json.dumps({"model_version": "4"}))
    dead = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}/0"})
    with pytest.raises(ServiceUnavailable, match="online store"):
        run(dead, INTERVAL, LENGTH)
    assert stored(settings) == before
    assert run(settings, INTERVAL, LENGTH)["unchanged"] is False


def test_a_batch_that_died_goes_on_behind_its_last_users(settings, monkeypatch):
    whole = run(settings, INTERVAL, LENGTH)
    rows = stored(settings)
    with connect(settings) as connection:
        connection.execute("delete from monitoring.receipts where task = 'serving.batch'")
    asked, lists = [], precompute._lists

    def dying(model, block, domain, length):
        asked.extend(user.user_id for user in block if domain is None)
        if len(asked) == 3:
            raise MemoryError("killed")
        return lists(model, block, domain, length)

    monkeypatch.setattr(precompute, "SCORES_IN_MEMORY", 1)  # a user a block
    monkeypatch.setattr(precompute, "_lists", dying)
    with pytest.raises(MemoryError):
        run(settings, INTERVAL, LENGTH)
    assert stored(settings) == rows
    assert run(settings, INTERVAL, LENGTH) == whole
    users = sorted(HISTORIES)
    assert asked == [*users[:3], *users[2:]]
    assert stored(settings) == rows
    assert in_files(settings) == sorted(rows)
    with connect(settings) as connection:
        left = connection.execute(
            "select (select count(*) from serving.precomputed_lists_begun) + (select count(*) from serving.batch_begun)"
        ).fetchone()
    assert left == (0,)


@pytest.mark.parametrize("rows_a_part", [1, 20, 10_000])
def test_files_go_on_where_they_were_and_are_put_in_place_as_one(settings, monkeypatch, rows_a_part):
    monkeypatch.setattr(precompute, "SCORES_IN_MEMORY", 1)  # a user a block
    monkeypatch.setattr(list_files.ListFiles.__init__, "__defaults__", (rows_a_part,))
    run(settings, INTERVAL, LENGTH)
    before = in_files(settings)
    (settings.served_model / "deployment.json").write_text(json.dumps({"model_version": "4"}))
    lists = precompute._lists

    def dying(model, block, domain, length):
        if block[0].user_id == "even":
            raise MemoryError("killed")
        return lists(model, block, domain, length)

    monkeypatch.setattr(precompute, "_lists", dying)
    with pytest.raises(MemoryError):
        run(settings, INTERVAL, LENGTH)
    assert in_files(settings) == before
    monkeypatch.setattr(precompute, "_lists", lists)
    done = run(settings, INTERVAL, LENGTH)

    assert in_files(settings) == sorted(stored(settings))
    assert {row[5] for row in in_files(settings)} == {"4"}
    assert done["parts"] in {1: [len(HISTORIES) - 1], 20: [2, 3], 10_000: [1]}[rows_a_part]  # one has seen all: no list
    assert len(list(Path(settings.lake, ".precomputed_lists").iterdir())) == 1


def test_lost_files_are_written_again(settings):
    first = run(settings, INTERVAL, LENGTH)
    rows = in_files(settings)
    shutil.rmtree(settings.lake)
    assert run(settings, INTERVAL, LENGTH) == first
    assert in_files(settings) == rows


def test_what_a_batch_of_another_model_began_is_given_up(settings, monkeypatch):
    lists = precompute._lists
    monkeypatch.setattr(precompute, "SCORES_IN_MEMORY", 1)

    def dying(model, block, domain, length):
        if block[0].user_id == "even":
            raise MemoryError("killed")
        return lists(model, block, domain, length)

    monkeypatch.setattr(precompute, "_lists", dying)
    with pytest.raises(MemoryError):
        run(settings, INTERVAL, LENGTH)
    monkeypatch.setattr(precompute, "_lists", lists)
    (settings.served_model / "deployment.json").write_text(json.dumps({"model_version": "4"}))

    assert run(settings, INTERVAL, LENGTH)["users"] == len(HISTORIES)
    assert {row[5] for row in stored(settings)} == {"4"}


@pytest.mark.parametrize("length", [0, 1001])
def test_an_impossible_length_is_refused(settings, length):
    with pytest.raises(RecsysError, match="--length"):
        run(settings, INTERVAL, length)


def test_without_marts_or_model_it_says_so(settings):
    with pytest.raises(MissingArtifact, match=r"dbt\.build"):
        run(settings, Interval(("movies",), date(2026, 1, 10)), LENGTH)
    with pytest.raises(MissingArtifact, match="deployed model"):
        run(settings.model_copy(update={"model_dir": settings.var_dir / "nothing"}), INTERVAL, LENGTH)


def test_the_command_prints_its_counts_and_fails_in_one_sentence(settings):
    def command(as_of: str, environment: str = "platform", *more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [python_of(environment), "-m", "serving", "batch", "--as-of", as_of, "--domains", "movies,books", *more],
            cwd=HOME, capture_output=True, text=True, env=os.environ | {"RECSYS_MODEL_DIR": str(settings.model_dir)},
        )  # fmt: skip

    done = command("2026-01-10")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["users"], answer["unchanged"]) == (len(HISTORIES), False)
    assert set(FILMS) >= {row[3] for row in stored(settings) if row[1] == "movies"}
    failed = command("2026-01-11")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("FAILED MissingArtifact: receipt of `dbt.build`")
    thin = command("2026-01-10", "serving")
    assert thin.stderr.splitlines()[-1].startswith("FAILED RecsysError: this environment: has no pyarrow. ")
    assert json.loads(command("2026-01-10", "serving", "--without-files").stdout.splitlines()[-1])["unchanged"] is True
