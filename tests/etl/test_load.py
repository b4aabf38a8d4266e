"""Parquet → Postgres: the partition is replaced as a whole, judged before it is published, and done once."""

from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.__main__ import land, load
from etl.lake import parquet_files
from etl.load import (
    FRESH,
    begin_first_load,
    constants_of,
    copy_files,
    end_first_load,
    replace_partition,
    transaction,
)
from recsys.errors import CheckFailed, MissingArtifact
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.warehouse import connect
from tests.worlds import etl_files as world_files

pytestmark = pytest.mark.services

NOW = datetime.fromisoformat(world_files.NOW)
MOVIES = Interval(("movies",), date.fromisoformat(world_files.AS_OF))
TABLES = ("interactions", "items", "users", "quarantine")


@pytest.fixture
def settings(world, land_in_process, tmp_path) -> Settings:
    """A warehouse without rows of this station, and a MovieLens 1M release with one duplicate event."""
    settings = world("postgres").model_copy(update={"data_dir": tmp_path / "data", "lake_url": str(tmp_path / "lake")})
    world_files.movielens_1m(settings.data_dir / "ml-1m", ratings=[*world_files.RATINGS, world_files.RATINGS[0]])
    with connect(settings) as connection:
        tables = ", ".join(f"raw.{table}" for table in TABLES)
        connection.execute(f"truncate {tables}, monitoring.receipts, monitoring.outcomes")
    return settings


def rows(settings: Settings, query: str) -> list[tuple]:
    with connect(settings) as connection:
        return connection.execute(query).fetchall()


def in_lake(settings: Settings, table: str) -> list[tuple]:
    files = [file for folder in Path(settings.lake, table).glob("*/*/*") for file in parquet_files(folder)]
    return [tuple(row.values()) for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]


def test_every_column_arrives_as_it_was_landed(settings):
    land(settings, MOVIES, NOW)
    assert load(settings, MOVIES)["rows"] == {"interactions": 5, "items": 4, "users": 2, "quarantine": 1}
    for table in TABLES:
        landed = in_lake(settings, table)
        assert landed
        found = [row[: len(landed[0])] for row in rows(settings, f"select * from raw.{table}")]
        assert sorted(found, key=repr) == sorted(landed, key=repr)


def test_loading_replaces_the_partition_and_nothing_else(settings):
    land(settings, MOVIES, NOW)
    load(settings, MOVIES)
    other = "('e', 'u', 'i', 1, '2000-01-01Z', '{}', 'rate', '{{}}', '{}', '{}')"
    with connect(settings) as connection:
        kept = [("movies", "stream", "stream"), ("movies", "ml-1m", "2020-05-31"), ("books", "goodbooks", "history")]
        values = ", ".join(other.format(*place) for place in kept)
        connection.execute(f"insert into raw.interactions values {values}")
    (settings.data_dir / "ml-1m").rename(settings.data_dir / "ml-10m")
    world_files.movielens_1m(settings.data_dir / "ml-10m", ratings=world_files.RATINGS[:2])
    land(settings, MOVIES, NOW)
    load(settings, MOVIES)
    found = rows(settings, "select domain, source, landed_partition, count(*) from raw.interactions group by 1, 2, 3")
    assert sorted(found) == sorted([("movies", "ml-10m", "history", 2), *((*place, 1) for place in kept)])
    assert rows(settings, "select distinct source from raw.items") == [("ml-10m",)]
    assert rows(settings, "select count(*) from raw.quarantine") == [(0,)]


FORM = """
    select regexp_replace(indexdef, 'INDEX \\S+ ON', 'INDEX ON') from pg_indexes where tablename = 'interactions_files'
    union all
    select tgname || pg_get_triggerdef(oid) from pg_trigger where tgrelid = 'raw.interactions_files'::regclass
    union all
    select concat_ws(' ', column_name, data_type, collation_name, column_default, is_nullable)
    from information_schema.columns where table_name = 'interactions_files'
    order by 1
"""


def test_a_first_load_leaves_the_partition_in_the_form_of_the_schema(settings):
    """Rows first, indexes last, in a table that takes the place of the empty one: nobody may notice."""
    before, loads = rows(settings, FORM), rows(settings, "select count(*) from raw.interactions_loads")[0][0]
    assert len(before) > 10
    land(settings, MOVIES, NOW)
    load(settings, MOVIES)
    assert rows(settings, FORM) == before
    assert rows(settings, "select count(*) from raw.interactions_loads")[0][0] == loads + 1
    assert rows(settings, "select count(*) from raw.interactions") == rows(
        settings, "select count(*) from only raw.interactions_files"
    )
    unsummarised = "select count(*) from raw.interactions where landed_partition = 'history' and landed_tx > 0"
    assert rows(settings, unsummarised)[0][0] == len(in_lake(settings, "interactions"))


def test_what_all_rows_share_is_a_default_and_arrives_all_the_same(settings, tmp_path):
    columns = {
        "event_id": ["e1", "e2"], "user_id": ["u", "u"], "item_id": ["i", "i"], "rating": [1.0, 1.0],
        "occurred_at": pa.array([NOW, NOW], pa.timestamp("us", "UTC")), "domain": ["movies"] * 2,
        "event_type": ["rate", "view"], "context": ['{"it\'s": "\\\\"}'] * 2, "source": ["s"] * 2,
        "landed_partition": ["history", None],
    }  # fmt: skip
    table = pa.table({**columns, "landed_partition": ["history"] * 2})
    pq.write_table(table, path := tmp_path / "part-0.parquet", row_group_size=1)
    pq.write_table(pa.table(columns), tmp_path / "with_null.parquet", row_group_size=1)
    shared = constants_of([path])
    assert shared.keys() == {"user_id", "item_id", "domain", "context", "source", "landed_partition"}
    assert shared["context"] == columns["context"][0]
    assert "landed_partition" not in constants_of([path, tmp_path / "with_null.parquet"])
    with transaction(settings) as cursor:
        begin_first_load(cursor, shared)
        assert copy_files(cursor, FRESH, [path], shared) == 2
        end_first_load(cursor)
    found = rows(settings, "select * from raw.interactions order by event_id")
    assert [row[:-1] for row in found] == [tuple(row.values()) for row in table.to_pylist()]


def test_a_first_load_is_not_logged(settings):
    """Its rows are flushed with their table at the end, not written to PostgreSQL's log as well."""
    many = [f"{user}::{film}::4::{978300000 + user * 100 + film}" for user in range(1, 301) for film in range(1, 101)]
    world_files.movielens_1m(settings.data_dir / "ml-1m", ratings=many)
    landed = land(settings, MOVIES, NOW)["sources"]
    position = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
    before = rows(settings, position)[0][0]
    with transaction(settings) as cursor:
        assert replace_partition(cursor, Path(settings.lake), MOVIES, landed)["interactions"] == len(many)
    logged = rows(settings, position)[0][0] - before
    assert 0 < logged < rows(settings, "select pg_relation_size('raw.interactions_files') / 2")[0][0]


def test_the_second_time_both_say_unchanged_until_a_file_changes(settings):
    first = land(settings, MOVIES, NOW)
    assert (first["unchanged"], first["rows_read"], first["quarantine"]) == (False, 6, {"duplicate_event": 1})
    assert not load(settings, MOVIES)["unchanged"]
    assert land(settings, MOVIES, NOW) == {**first, "unchanged": True}
    assert load(settings, MOVIES)["unchanged"]
    with (settings.data_dir / "ml-1m" / "ratings.dat").open("a") as file:
        file.write("2::661::3::978302110\n")
    assert land(settings, MOVIES, NOW)["rows_landed"] == 6
    assert load(settings, MOVIES)["rows"]["interactions"] == 6


def test_a_file_that_lost_most_of_its_rows_is_a_warning_in_words(settings):
    def kept() -> list[tuple]:
        query = "select observed, expected, verdict from monitoring.outcomes where check_name = 'rows_kept'"
        return rows(settings, query)

    land(settings, MOVIES, NOW)
    assert "warnings" not in load(settings, MOVIES)
    assert kept() == []  # of a first load nothing is said
    world_files.movielens_1m(settings.data_dir / "ml-1m", ratings=world_files.RATINGS[:2])
    land(settings, MOVIES, NOW)
    sentence = "ml-1m/interactions/history holds 2 rows, expected >= 0.8 of 5: was a file cut off?"
    assert load(settings, MOVIES)["warnings"] == [sentence]
    assert kept() == [("2", ">= 0.8 of 5", "warn")]
    world_files.movielens_1m(settings.data_dir / "ml-1m", ratings=world_files.RATINGS)
    land(settings, MOVIES, NOW)
    assert "warnings" not in load(settings, MOVIES)
    assert kept() == [("5", ">= 0.8 of 2", "pass")]


def test_a_later_landing_of_the_partition_withdraws_the_receipts_of_the_earlier(settings):
    earlier = Interval(("movies",), date(2020, 1, 1))
    land(settings, earlier, NOW)
    load(settings, earlier)
    assert land(settings, MOVIES, NOW)["rows_landed"] == 5
    with pytest.raises(MissingArtifact, match=r"etl\.land.*2020-01-01"):
        load(settings, earlier)
    assert not load(settings, MOVIES)["unchanged"]
    assert not land(settings, earlier, NOW)["unchanged"]
    assert load(settings, earlier)["rows"]["interactions"] == 4


def test_a_later_day_lands_and_loads_nothing_again_where_no_file_has_changed(settings):
    first = land(settings, MOVIES, NOW)
    loaded = load(settings, MOVIES)
    before = rows(settings, "select event_id, landed_tx from raw.interactions order by 1")
    later = Interval(("movies",), date(2020, 6, 9))
    assert land(settings, later, NOW) == {**first, "unchanged": True}
    assert load(settings, later) == {**loaded, "unchanged": True}
    assert rows(settings, "select event_id, landed_tx from raw.interactions order by 1") == before
    judged = rows(settings, "select outcome_date, count(*) from monitoring.outcomes group by 1 order by 1")
    assert [day for day, _ in judged] == [MOVIES.as_of, later.as_of]
    assert judged[0][1] == judged[1][1] > 0

    with (settings.data_dir / "ml-1m" / "ratings.dat").open("a") as file:
        file.write("2::661::3::1591056000\n")  # on the second of June
    assert land(settings, MOVIES, NOW)["rows_outside_interval"] == 1
    assert not load(settings, MOVIES)["unchanged"]
    assert land(settings, later, NOW)["rows_landed"] == 6  # what lay outside until then belongs to it
    assert load(settings, later)["rows"]["interactions"] == 6


def test_a_landing_whose_lake_was_emptied_is_done_again(settings, tmp_path):
    land(settings, MOVIES, NOW)
    (tmp_path / "lake" / "interactions").rename(tmp_path / "elsewhere")
    with pytest.raises(MissingArtifact, match=r"raw\.interactions: 0 rows in the lake, 5 landed"):
        load(settings, MOVIES)
    assert not land(settings, MOVIES, NOW)["unchanged"]
    assert load(settings, MOVIES)["rows"]["interactions"] == 5


def test_too_many_refused_rows_keep_the_raw_tables_and_show_the_quarantine(settings):
    land(settings, MOVIES, NOW)
    load(settings, MOVIES)
    before = rows(settings, "select * from raw.interactions order by event_id")
    broken = [*world_files.RATINGS[:2], "3::1193::nan::978300760", "nothing"]
    world_files.movielens_1m(settings.data_dir / "ml-1m", ratings=broken)
    land(settings, MOVIES, NOW)
    for _ in range(2):  # a failure leaves no receipt: the second run fails as well
        with pytest.raises(CheckFailed, match=r"refused_share: 0\.5 of ml-1m/interactions/history") as error:
            load(settings, MOVIES)
        assert "\n" not in str(error.value)
    assert rows(settings, "select * from raw.interactions order by event_id") == before
    assert len(before) == 5
    found = rows(settings, "select reason, record from raw.quarantine where table_name = 'interactions' order by 1")
    assert found == [("broken_row", "nothing"), ("not_a_number", "3::1193::nan::978300760")]
    failed = "select subject, observed from monitoring.outcomes where station = 'etl' and verdict = 'fail'"
    assert rows(settings, failed) == [("ml-1m/interactions/history", "0.5")]


def test_some_refused_rows_warn_and_duplicates_are_counted_apart(settings):
    lines = [*world_files.RATINGS, *world_files.RATINGS[:1], "3::1193::nan::978300760"]
    world_files.movielens_1m(settings.data_dir / "ml-1m", ratings=lines)
    land(settings, MOVIES, NOW)
    assert load(settings, MOVIES)["verdicts"]["warn"] == 2
    judged = """
        select check_name, observed, verdict from monitoring.outcomes
        where subject = 'ml-1m/interactions/history' order by check_name
    """
    share = str(round(1 / 7, 6))
    assert rows(settings, judged) == [
        ("harmless_share", share, "warn"),
        ("refused_share", share, "warn"),
        ("rows_conserved", "7", "pass"),
    ]


def test_loading_what_was_never_landed_says_so(settings):
    with pytest.raises(MissingArtifact, match=r"etl\.land"):
        load(settings, MOVIES)
