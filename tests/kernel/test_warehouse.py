"""The warehouse: one transaction a block, a schema that may be applied again, judgements that are replaced."""

from concurrent.futures import ThreadPoolExecutor
from datetime import date

import psycopg
import pytest

from recsys.errors import ServiceUnavailable
from recsys.warehouse import Outcome, apply_schema, connect, write_outcomes


@pytest.fixture(scope="module")
def settings(world):
    return world("postgres")


def test_a_block_is_one_transaction(settings):
    def insert_and_fail() -> None:
        with connect(settings) as connection:
            connection.execute("insert into raw.users values ('u', 'movies', '{}', 's', 'p')")
            connection.execute("select * from nowhere")

    with pytest.raises(psycopg.errors.UndefinedTable):
        insert_and_fail()
    with connect(settings) as connection:
        assert connection.execute("select count(*) from raw.users").fetchone() == (0,)


def test_a_dead_server_is_named_with_the_way_out(settings):
    dead = settings.model_copy(update={"postgres_url": "postgresql://recsys@127.0.0.1:1/recsys"})
    with pytest.raises(ServiceUnavailable, match=r"PostgreSQL: .*make up"), connect(dead):
        pass


def test_the_schema_may_be_applied_by_many_at_once(settings):
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(apply_schema, [settings] * 4)) == [None] * 4


def test_an_event_from_the_log_counts_once(settings):
    event = "insert into raw.interactions values ('e', 'u', 'i', null, '2020-01-01', 'movies', 'view', '{}', %s, 'p')"
    with connect(settings) as connection:
        connection.execute(event, ("stream",))
    with pytest.raises(psycopg.errors.UniqueViolation), connect(settings) as connection:
        connection.execute(event, ("stream",))


def test_an_impression_says_whether_its_user_is_made_up_in_an_older_installation_too(settings):
    with connect(settings) as connection:
        connection.execute("alter table raw.impressions drop column source")
        shown = (
            "insert into raw.impressions values (%s, 'r', %s, 'i', 1, 1, 'movies', 'champion', '1', 1, 'popular', %s)"
        )
        connection.execute(shown, ("e1", "synthetic:u1", "2020-01-01"))
    apply_schema(settings)
    with connect(settings) as connection:
        connection.execute(shown, ("e2", "u1", "2020-01-01"))
        found = connection.execute("select event_id, source from raw.impressions order by 1").fetchall()
    assert found == [("e1", "synthetic"), ("e2", "stream")]
    with pytest.raises(psycopg.errors.GeneratedAlways), connect(settings) as connection:
        connection.execute("update raw.impressions set source = 'stream'")


def test_an_outcome_of_the_same_check_is_replaced(settings):
    def outcome(observed: float, verdict) -> Outcome:
        return Outcome("station", date(2020, 1, 1), "check", observed, ">= 1", verdict, "subject", {"n": observed})

    for given in (outcome(0.5, "fail"), outcome(1.5, "pass")):
        with connect(settings) as connection:
            write_outcomes(connection, [given])
    with connect(settings) as connection:
        found = connection.execute("select observed, verdict, detail from monitoring.outcomes").fetchall()
    assert found == [("1.5", "pass", {"n": 1.5})]


def test_a_verdict_is_one_of_three(settings):
    with pytest.raises(psycopg.errors.CheckViolation), connect(settings) as connection:
        write_outcomes(connection, [Outcome("s", date(2020, 1, 1), "c", 1, 1, "maybe")])  # type: ignore[arg-type]


def test_an_installation_from_before_incremental_builds_is_brought_up_and_keeps_its_rows(settings):
    with connect(settings) as connection:
        connection.execute("drop table raw.interactions cascade")
        connection.execute(
            """
            create table raw.interactions (event_id text not null, user_id text not null, item_id text not null,
                rating double precision, occurred_at timestamptz not null, domain text not null,
                event_type text not null, context text not null default '{}', source text not null,
                landed_partition text not null) partition by list (source);
            create table raw.interactions_files partition of raw.interactions default;
            create schema staging;
            create view staging.stg_raw__interactions as select user_id collate "C" as user_id from raw.interactions;
            insert into raw.interactions
            values ('e', 'u', 'i', null, '2020-01-01', 'movies', 'view', '{}', 'films', 'history')
            """
        )
    apply_schema(settings)
    apply_schema(settings)
    with connect(settings) as connection:
        assert connection.execute("select event_id, landed_tx > 0 from raw.interactions").fetchall() == [("e", True)]
        connection.execute("delete from raw.interactions")
        assert connection.execute("select event_id, user_id from raw.removed_interactions").fetchall() == [("e", "u")]
