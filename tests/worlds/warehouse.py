"""A warehouse small enough to count by hand: two domains, an event that lands three times, one at the very as_of.

ann  rates Alpha 4 and Beta 2 on 10 January, and a book 5 on 20 February: one user in two domains
bob  views Gamma, which no source describes, on 10 February (from the log), rates Alpha 3 in the last millisecond of
     February, and again at the instant of as_of, which is outside
cyd  is described and does nothing; Delta is described and unused
r1   showed bob Beta and Alpha on 15 February; his click on Beta arrives late (`LATE_CLICK`)
"""

from datetime import UTC, date, datetime
from typing import Any

import psycopg

from recsys import receipts
from recsys.interval import Interval
from recsys.task import Task

AS_OF = date(2020, 3, 1)
INTERVAL = Interval(("books", "movies"), AS_OF)

DBT_BUILD = Task(
    name="dbt.build",
    interval=INTERVAL,
    code=("dbt",),
    after=("etl.load",),
    reads=(("raw.interactions_stream", "occurred_at"), ("raw.impressions", "shown_at")),
    command=(
        "dbt", "--quiet", "build", "--project-dir", "dbt", "--profiles-dir", "dbt",
        "--exclude-resource-type", "unit_test", "--exclude", "tag:insight",
        "--vars", '{"as_of": "2020-03-01", "domains": "books,movies"}',
    ),
)  # fmt: skip

FEATURE_TABLES = """
create table marts.feat_user_activity (
    user_id text collate "C", event_timestamp timestamptz, user_interactions_total bigint,
    user_interactions_30d bigint, user_distinct_items bigint, user_mean_rating double precision);
create table marts.feat_item_popularity (
    item_id text collate "C", event_timestamp timestamptz, item_interactions_total bigint,
    item_interactions_90d bigint, item_mean_rating double precision);
create table marts.feat_user_windows (
    user_id text collate "C", event_timestamp timestamptz, user_events_1d bigint, user_events_7d bigint,
    user_events_30d bigint, user_events_90d bigint, user_implicit_90d bigint, user_days_since_event bigint,
    user_sessions_30d bigint, user_recent_mean_rating double precision);
create table marts.feat_item_windows (
    item_id text collate "C", event_timestamp timestamptz, item_events_1d bigint, item_events_7d bigint,
    item_events_30d bigint, item_events_90d bigint, item_implicit_90d bigint, item_days_since_event bigint,
    item_events_decayed double precision, item_recent_mean_rating double precision);
create table marts.feat_user_category_windows (
    user_id text collate "C", category text, event_timestamp timestamptz, user_category_events_1d bigint,
    user_category_events_7d bigint, user_category_events_30d bigint, user_category_events_90d bigint,
    user_category_implicit_90d bigint, user_category_days_since_event bigint,
    user_category_recent_mean_rating double precision);
create table marts.feat_item_prices (
    item_id text collate "C", event_timestamp timestamptz, item_price double precision,
    item_price_to_mean double precision, item_mean_price_90d double precision, item_sold_total double precision)
"""
"""The feature marts that Feast's views read, without what dbt adds."""


def instant(month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0, micro: int = 0) -> datetime:
    return datetime(2020, month, day, hour, minute, second, micro, UTC)


EPOCH = datetime.fromtimestamp(0, UTC)
LAST_MILLISECOND = instant(2, 29, 23, 59, 59, 999_000)

# event_id, user_id, item_id, rating, occurred_at, domain, event_type, context, source, landed_partition
INTERACTIONS: list[tuple[Any, ...]] = [
    ("e1", "u:ann", "m:1", 4.0, instant(1, 10, 12), "movies", "rate", "{}", "films", "history"),
    ("e1", "u:ann", "m:1", 4.0, instant(1, 10, 12), "movies", "rate", "{}", "films", "2020-01-10"),
    ("e1", "u:ann", "m:1", 4.0, instant(1, 10, 12), "movies", "rate", "{}", "stream", "stream"),
    ("e2", "u:ann", "m:2", 2.0, instant(1, 10, 13), "movies", "rate", "{}", "films", "history"),
    ("e3", "u:ann", "b:1", 5.0, instant(2, 20), "books", "rate", "{}", "shelf", "history"),
    ("e4", "u:bob", "m:1", 3.0, LAST_MILLISECOND, "movies", "rate", "{}", "films", "history"),
    ("e5", "u:bob", "m:1", 1.0, instant(3, 1), "movies", "rate", "{}", "films", "2020-03-01"),
    ("e6", "u:bob", "m:9", None, instant(2, 10), "movies", "view", "not json", "stream", "stream"),
]
LATE_CLICK = (
    "e7", "u:bob", "m:2", None, instant(2, 15, 10), "movies", "click", '{"request_id": "r1"}', "stream", "stream",
)  # fmt: skip

# item_id, domain, title, categories, source, landed_partition
ITEMS = [
    ("m:1", "movies", "Alpha", ["Drama"], "films", "history"),
    ("m:1", "movies", "Alpha, as another source spells it", [], "other", "history"),
    ("m:2", "movies", "Beta", ["Comedy"], "films", "history"),
    ("m:3", "movies", "Delta", [], "films", "history"),
    ("b:1", "books", "A Book", ["Fiction"], "shelf", "history"),
]

# user_id, domain, attributes, source, landed_partition
USERS = [
    ("u:ann", "movies", '{"age": "25"}', "films", "history"),
    ("u:cyd", "movies", "{}", "films", "history"),
]

# event_id, request_id, user_id, item_id, rank, score, domain, variant, model_version, propensity, rung, shown_at
IMPRESSIONS = [
    ("i1", "r1", "u:bob", "m:2", 1, 0.9, "movies", "champion", "1", 0.99, "personalised", instant(2, 15, 9)),
    ("i2", "r1", "u:bob", "m:1", 2, 0.8, "movies", "champion", "1", 0.99, "personalised", instant(2, 15, 9)),
]


def land(connection: psycopg.Connection) -> None:
    """Fill the raw tables as etl and streaming would have, with the receipt of `etl.load`."""
    insert(connection, "raw.interactions", INTERACTIONS)
    columns = "raw.items (item_id, domain, title, categories, source, landed_partition)"
    insert(connection, columns, ITEMS)
    insert(connection, "raw.users", USERS)
    insert(connection, "raw.impressions", IMPRESSIONS)
    receipts.record(connection, "etl.load", f"{INTERVAL.partition}/{INTERVAL.key}", "landed once", {})


def insert(connection: psycopg.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    """Insert rows; `table` may carry a list of columns."""
    places = ", ".join(["%s"] * len(rows[0]))
    with connection.cursor() as cursor:
        cursor.executemany(f"insert into {table} values ({places})", rows)
