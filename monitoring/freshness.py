"""How old the newest rows are, and whether the marts hold what the raw tables hold before the interval's end."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from recsys import columns as c
from recsys.artifacts import (
    FCT_IMPRESSIONS,
    FCT_INTERACTIONS,
    FEAT_ITEM_POPULARITY,
    FEAT_USER_ACTIVITY,
    RAW_IMPRESSIONS,
    RAW_INTERACTIONS,
)
from recsys.interval import Interval
from recsys.warehouse import Outcome, write_outcomes

STATION, CHECK = "monitoring", "freshness"
LAG_LIMIT = timedelta(days=1)


@dataclass(frozen=True)
class Followed:
    """A table with instants, and the raw table that its rows are made from (None for a raw one)."""

    table: str
    instant: str
    origin: "Followed | None" = None


INTERACTIONS = Followed(RAW_INTERACTIONS, c.OCCURRED_AT)
IMPRESSIONS = Followed(RAW_IMPRESSIONS, c.SHOWN_AT)
FOLLOWED = (
    INTERACTIONS,
    IMPRESSIONS,
    Followed(FCT_INTERACTIONS, c.OCCURRED_AT, INTERACTIONS),
    Followed(FCT_IMPRESSIONS, c.SHOWN_AT, IMPRESSIONS),
    Followed(FEAT_USER_ACTIVITY, c.EVENT_TIMESTAMP, INTERACTIONS),
    Followed(FEAT_ITEM_POPULARITY, c.EVENT_TIMESTAMP, INTERACTIONS),
)


def check_freshness(connection: psycopg.Connection, interval: Interval, now: datetime) -> dict[str, Any]:
    """Write one outcome a table; return the ages of the newest rows in seconds (null: no rows, or no such table)."""
    newest = {one.table: _newest(connection, one) for one in FOLLOWED}
    due = {one.table: _newest_before_the_end(connection, one, interval) for one in (INTERACTIONS, IMPRESSIONS)}
    outcomes = [
        judge(one, newest[one.table], due[one.origin.table] if one.origin else None, interval, now) for one in FOLLOWED
    ]
    write_outcomes(connection, outcomes)
    ages = {table: instant and round((now - instant).total_seconds()) for table, instant in newest.items()}
    return {"age_seconds": ages, "stale": [o.subject for o in outcomes if o.verdict == "warn"], "unchanged": False}


def judge(one: Followed, newest: datetime | None, due: datetime | None, interval: Interval, now: datetime) -> Outcome:
    """Return the judgement on one table.

    A raw table's age is a fact without a limit: a finished data set is old. A mart that ends more than `LAG_LIMIT`
    before what it is made from has not followed.

    Args:
        newest: instant of the table's newest row, if it has one.
        due: instant of the newest raw row that the mart should hold, if there is one.
    """
    is_stale = due is not None and (newest is None or due - newest > LAG_LIMIT)
    limit = f"at most {LAG_LIMIT.days} day behind {one.origin.table}" if one.origin else "told, not judged"
    return Outcome(
        STATION,
        interval.as_of,
        CHECK,
        "no rows" if newest is None else f"{(now - newest).total_seconds() / 3600:.1f} h old",
        limit,
        "warn" if is_stale else "pass",
        subject=one.table,
        detail={"newest": newest, "due": due},
    )


def _newest(connection: psycopg.Connection, one: Followed) -> datetime | None:
    (exists,) = connection.execute("select to_regclass(%s) is not null", (one.table,)).fetchone()
    if not exists:
        return None
    return connection.execute(f"select max({one.instant}) from {one.table}").fetchone()[0]


def _newest_before_the_end(connection: psycopg.Connection, raw: Followed, interval: Interval) -> datetime | None:
    return connection.execute(
        f"select max({raw.instant}) from {raw.table} where {raw.instant} < %s and {c.DOMAIN} = any(%s)",
        (interval.end, list(interval.domains)),
    ).fetchone()[0]
