"""An incremental build leaves the rows that a full one makes: late, removed and repeated events included."""

import json
from datetime import UTC, date, datetime, timedelta
from random import Random

import psycopg
import pytest

from recsys.errors import RecsysError
from recsys.settings import Settings
from recsys.task import CODE_VARIABLE, command_environment, run_command
from recsys.warehouse import connect
from tests.worlds.warehouse import insert

FIRST = datetime(2020, 1, 1, tzinfo=UTC)
AS_OF = date(2020, 4, 20)
USERS, ITEMS, EVENTS = 100, 60, 4000

IN_PLACE = {
    "intermediate.int_users_active": "user_id, domain",
    "intermediate.int_items_daily": "item_id, active_date",
    "intermediate.int_items_monthly": "item_id, active_month",
    "intermediate.int_domains_daily": "activity_date, domain",
    "marts.fct_interactions": "event_id",
    "marts.feat_user_activity": "user_id, event_timestamp",
    "marts.feat_item_popularity": "item_id, event_timestamp",
    "marts.feat_user_windows": "user_id, event_timestamp",
    "marts.feat_item_windows": "item_id, event_timestamp",
}
ANEW = {
    "marts.dim_users": "user_id",
    "marts.dim_items": "item_id",
    "marts.agg_daily_engagement": "activity_date, domain",
}


def event(random: Random, number: int, at: datetime, source: str = "films", partition: str = "history") -> tuple:
    """One event on a popular item by a busy user, most likely; every third without a rating."""
    user, item = (int(size * random.random() ** 2) for size in (USERS, ITEMS))
    rating = random.choice([0.5, 1.3, 2.0, 3.7, 5.0]) if number % 3 else None
    domain, kind = ("movies" if item % 3 else "books"), ("rate" if rating else "view")
    return (f"e{number:05}", f"u:{user}", f"i:{item}", rating, at, domain, kind, "{}", source, partition)


def build(settings: Settings, as_of: date, code: str = "this") -> None:
    said = json.dumps({"as_of": as_of.isoformat(), "domains": "books,movies"})
    command = ["dbt", "--quiet", "run", "--project-dir", "dbt", "--profiles-dir", "dbt", "--exclude", "tag:insight"]
    run_command([*command, "--vars", said], {**command_environment(settings), CODE_VARIABLE: code})


def was_full(settings: Settings) -> bool:
    with connect(settings) as connection:
        ((is_full,),) = connection.execute("select is_full from intermediate.builds where state = 'complete'")
    return is_full


def tables(settings: Settings) -> dict[str, list[tuple]]:
    """Return all rows, numbers rounded to nine digits: sums of fractions depend on their order in the last one."""
    with connect(settings) as connection:
        connection.execute("set time zone 'UTC'")
        return {
            table: [
                tuple(round(value, 9) if isinstance(value, float) else value for value in row)
                for row in connection.execute(f"select * from {table} order by {key}")
            ]
            for table, key in {**IN_PLACE, **ANEW}.items()
        }


@pytest.fixture(scope="module")
def settings(world) -> Settings:
    """A history of 110 days, and some events that are known already but lie after its end."""
    settings, random = world("postgres"), Random(1)
    days = (AS_OF - FIRST.date()).days
    history = [event(random, n, FIRST + timedelta(days=days * random.random())) for n in range(EVENTS)]
    later = [event(random, n, FIRST + timedelta(days=days + 15 * random.random())) for n in range(EVENTS, EVENTS + 20)]
    with connect(settings) as connection:
        insert(connection, "raw.interactions", history)
    with connect(settings) as connection:
        insert(connection, "raw.interactions", later)
        connection.execute("analyze raw.interactions")
    build(settings, AS_OF)
    assert was_full(settings)
    return settings


def change(connection: psycopg.Connection, random: Random, day: datetime) -> None:
    """A day's partition, late events of the log, a repeated one, one that is gone, and a user who is."""
    number = EVENTS + 100 * day.day
    new = [event(random, number + n, day + timedelta(hours=n / 2), partition=str(day.date())) for n in range(40)]
    late = [event(random, number + n, day - timedelta(days=n), "stream", "stream") for n in range(50, 60)]
    lone = event(random, number + 61, FIRST - timedelta(days=400), "stream", "stream")
    twice = connection.execute("select * from raw.interactions where source = 'films' limit 1 offset 7").fetchone()
    again = (*twice[:3], 4.4, *twice[4:8], "films", str(day.date()))
    insert(connection, "raw.interactions", [*new, *late, lone, again])
    connection.execute("delete from raw.interactions where event_id in ('e00003', 'e00042')")
    connection.execute("delete from raw.interactions where user_id = %s", (f"u:{USERS - 1 - day.day}",))
    connection.execute("delete from raw.interactions where item_id = %s", (f"i:{ITEMS - 1 - day.day}",))


def test_the_incremental_path_gives_the_rows_of_a_full_refresh(settings):
    """Two builds on top of the first: one within its month, one over a month's end; then anew by other code."""
    random, first = Random(2), tables(settings)
    for as_of in (AS_OF + timedelta(days=1), AS_OF + timedelta(days=13)):
        with connect(settings) as connection:
            change(connection, random, datetime.combine(as_of, datetime.min.time(), UTC) - timedelta(days=1))
        build(settings, as_of)
        assert not was_full(settings)
    incremental = tables(settings)
    build(settings, as_of, code="another")
    assert was_full(settings)
    anew = tables(settings)

    assert all(first.values())
    for table, rows in anew.items():
        assert incremental[table] == rows, table
        assert first[table] != rows, table


def test_the_events_of_a_build_are_found_by_the_index_of_raw(settings):
    """A view that hides it leaves nothing but reading all events, even where that is the last resort."""
    with connect(settings) as connection:
        connection.execute("set enable_seqscan = off")
        plan = connection.execute(
            "explain select event_id from staging.stg_raw__interactions"
            " inner join intermediate.int_interactions_changed using (user_id, item_id, occurred_at, event_id)"
        )
        lines = [line for (line,) in plan]
    assert any("Index" in line and "on interactions_files" in line for line in lines), lines


def test_rows_that_come_while_a_build_is_at_work_are_the_next_builds_and_a_lost_one_is_found(settings):
    """What is written after a build began looks to its tests as what came meanwhile does."""
    shown = "('i1', 'r', 'u:1', 'i:1', 1, 1, 'movies', 'champion', '1', 1, 'personalised', '2020-04-01Z')"
    with connect(settings) as connection:
        insert(connection, "raw.interactions", [event(Random(9), 90_000, FIRST, "stream", "stream")])
        connection.execute(f"insert into raw.impressions values {shown}")
    check(settings)
    with connect(settings) as connection:
        connection.execute("delete from marts.fct_interactions where event_id = 'e00007'")
    with pytest.raises(RecsysError, match="assert_interactions_conserved"):
        check(settings)


def check(settings: Settings) -> None:
    with connect(settings) as connection:
        ((built,),) = connection.execute("select as_of from intermediate.builds where state = 'complete'")
    said = json.dumps({"as_of": built.isoformat(), "domains": "books,movies"})
    tests = ["assert_interactions_conserved", "assert_impressions_conserved"]
    command = ["dbt", "--quiet", "test", "--project-dir", "dbt", "--profiles-dir", "dbt", "--select", *tests]
    run_command([*command, "--vars", said], command_environment(settings))
