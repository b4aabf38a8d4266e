"""Replay: what a training row says of an instant is what the online store said then.

The online store holds, after the build of a night, the latest row of each entity; a training row, made much later from
the last build, is the row known at its instant. Both come from the compiled SQL of the feature marts, over worlds that
Hypothesis makes: events that arrive late, days without any, entities that begin or end in between.
"""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recsys.settings import HOME
from recsys.task import command_environment
from recsys.warehouse import connect

BEGIN, NIGHTS = datetime(2020, 1, 1, tzinfo=UTC), 130
STAND_IN = "2019-12-31"
REPLAYED = {
    "feat_user_activity": "user_id", "feat_user_windows": "user_id", "feat_item_windows": "item_id",
    "feat_user_category_windows": "user_id, category", "feat_item_prices": "item_id",
}  # fmt: skip
STALE = {"feat_item_popularity": "item_id"}
"""Stated at month ends: the training row may be a month older than what the online store has."""
CATEGORIES = {"i": ("Drama", "War"), "j": ("Drama",)}

EVENT = st.tuples(
    st.sampled_from("uvw"),
    st.sampled_from("ij"),
    st.integers(0, NIGHTS * 24 - 1),
    st.sampled_from([None, 1.0, 2.5, 5.0]),
    st.integers(0, 4),
)
"""user, item, hours since the beginning, rating, nights that it comes too late"""
WORLDS = given(
    events=st.lists(EVENT, min_size=1, max_size=25), nights=st.lists(st.integers(1, NIGHTS), min_size=1, max_size=4)
)
UNHURRIED = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


class Marts:
    """The feature marts as queries over `replay.events`, as they would be built on any night."""

    def __init__(self, connection: psycopg.Connection, compiled: Path):
        self.connection = connection
        self.queries = {path.stem: path.read_text() for path in compiled.rglob("feat_*.sql")}
        connection.execute(
            """
            set time zone 'UTC';
            create schema replay;
            create schema if not exists intermediate;
            create table replay.events (
                event_id text, user_id text collate "C", item_id text collate "C", rating float8,
                occurred_at timestamptz, known_from timestamptz);
            create view marts.fct_interactions as
            select event_id, user_id, item_id, 'movies' as domain, rating, occurred_at,
                occurred_at::date as occurred_date
            from replay.events
            where occurred_at < current_setting('replay.as_of')::timestamptz
                and known_from <= current_setting('replay.known_at')::timestamptz;
            create table marts.dim_items (item_id text collate "C", categories text[]);
            create view intermediate.int_purchases_priced as
            select event_id, item_id, occurred_at, occurred_date, 1.0::float8 as quantity, rating as revenue
            from marts.fct_interactions;
            create table intermediate.int_interactions_changed (
                event_id text, user_id text, item_id text, occurred_at timestamptz, occurred_date date)
            """
        )
        for model in ("int_items_daily", "int_items_monthly"):
            query = next(compiled.rglob(f"{model}.sql")).read_text()
            connection.execute(f"create view intermediate.{model} as {query}")
        for item, names in CATEGORIES.items():
            connection.execute("insert into marts.dim_items values (%s, %s)", (item, list(names)))

    def land(self, events: list[tuple]) -> None:
        """Replace all events; one that comes `late` nights too late is known from that night's build on."""
        self.connection.execute("truncate replay.events")
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "insert into replay.events values (%s, %s, %s, %s, %s, %s)",
                [
                    (f"e{number}", user, item, rating, at(hour // 24, hour % 24), at(hour // 24 + 1 + late))
                    for number, (user, item, hour, rating, late) in enumerate(events)
                ],
            )

    def known(self, mart: str, key: str, built: datetime, by: datetime, instant: datetime) -> dict[tuple, tuple]:
        """Return the row of each entity known at an instant, from the mart of the build of a night.

        Args:
            by: only events that had come by then are there.
        """
        for name, value in (("as_of", built), ("known_at", by)):
            self.connection.execute("select set_config(%s, %s, false)", (f"replay.{name}", value.isoformat()))
        query = self.queries[mart].replace(f"'{STAND_IN} ", f"'{built.date()} ")
        rows = self.connection.execute(
            f"select distinct on ({key}) * from ({query}) as mart where event_timestamp <= %s"
            f" order by {key}, event_timestamp desc",
            (instant,),
        )
        parts = len(key.split(","))
        return {row[:parts]: row[parts:] for row in rows}


def touched(event: tuple, key: str) -> set[tuple]:
    """Return the entities, by their key's values, that an event belongs to."""
    user, item = event[:2]
    of_key = {"user_id": {(user,)}, "item_id": {(item,)}}
    return of_key.get(key) or {(user, category) for category in CATEGORIES[item]}


def at(night: int, hour: int = 0) -> datetime:
    return BEGIN + timedelta(days=night, hours=hour)


@pytest.fixture(scope="module")
def marts(world, tmp_path_factory):
    here = world("postgres")
    target, dbt = tmp_path_factory.mktemp("target"), Path(sys.executable).with_name("dbt")
    said = json.dumps({"as_of": STAND_IN, "domains": "movies"})
    command = [dbt, "--quiet", "compile", "--project-dir", "dbt", "--profiles-dir", "dbt", "--vars", said, "--select",
               "marts.features", "int_items_daily", "int_items_monthly"]  # fmt: skip
    subprocess.run(command, cwd=HOME, env={**command_environment(here), "DBT_TARGET_PATH": str(target)}, check=True)
    with connect(here) as connection:
        yield Marts(connection, target / "compiled")


END = at(NIGHTS + 10)


@pytest.mark.services
@UNHURRIED
@WORLDS
@example(events=[("u", "i", 5, None, 0)], nights=[1, 2, 8, 31, 91, 92])
def test_a_training_row_equals_what_the_online_store_returned(marts, events, nights):
    """Nothing late. A later build says of an earlier night what the build of that night said."""
    marts.land([(*event[:4], 0) for event in events])
    for mart, key in REPLAYED.items():
        for night in nights:
            online = marts.known(mart, key, built=at(night), by=END, instant=at(night))
            noon = at(night, 12)
            assert marts.known(mart, key, built=END, by=END, instant=noon) == online, (mart, night)


@pytest.mark.services
@UNHURRIED
@WORLDS
def test_a_late_event_moves_only_whom_it_belongs_to_and_both_ways_alike(marts, events, nights):
    """Until it comes the store cannot know it: only its user's and item's rows differ. From then on both agree."""
    marts.land(events)
    for mart, key in REPLAYED.items():
        for night in nights:
            online = marts.known(mart, key, built=at(night), by=at(night), instant=at(night))
            trained = marts.known(mart, key, built=END, by=END, instant=at(night))
            late = [event for event in events if event[2] < night * 24 and event[2] // 24 + 1 + event[4] > night]
            missed = {entity for event in late for entity in touched(event, key)}
            assert {one: row for one, row in trained.items() if one not in missed} == {
                one: row for one, row in online.items() if one not in missed
            }, (mart, night)
            assert trained == marts.known(mart, key, built=at(night), by=END, instant=at(night)), (mart, night)


@pytest.mark.services
@UNHURRIED
@WORLDS
def test_the_monthly_rows_are_those_of_the_last_month_end(marts, events, nights):
    """`feat_item_popularity` is stated by month: training knows of an item what was known when the month began."""
    marts.land([(*event[:4], 0) for event in events])
    for mart, key in STALE.items():
        for night in nights:
            month = at(night).replace(day=1)
            online = marts.known(mart, key, built=month, by=END, instant=month)
            trained = marts.known(mart, key, built=END, by=END, instant=at(night))
            totals = {one: row[1] for one, row in trained.items()}
            assert totals == {one: row[1] for one, row in online.items()}, (mart, night)
