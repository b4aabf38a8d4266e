"""Two windows of the marts, by the data's own time: what was (reference) and what is (current)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import psycopg

from monitoring.drift import Column, Kind
from recsys import columns as c
from recsys.artifacts import (
    DIM_ITEMS,
    DIM_USERS,
    FCT_INTERACTIONS,
    FEAT_ITEM_POPULARITY,
    FEAT_USER_ACTIVITY,
    ITEM_FEATURES,
    USER_FEATURES,
)
from recsys.errors import CheckFailed
from recsys.interval import Interval

CURRENT_SHARE = 0.2
"""The current window is the last fifth of the time that the events span."""
SAMPLE_ROWS = 20_000
"""At most so many rows of each table and window, drawn by a seeded hash of the key."""


@dataclass(frozen=True)
class Watched:
    """One table that is watched: how it is read, and which of its columns are numbers and which are categories."""

    table: str
    instant: str
    key: str
    unit: str
    """Rows of one unit hang together: a user's events, an item's states."""
    numbers: tuple[str, ...]
    categories: tuple[str, ...] = ()
    of_domains: str = f"{c.DOMAIN} = any(%(domains)s)"

    def kinds(self) -> dict[str, Kind]:
        """Return the watched columns with their kind."""
        numbers: dict[str, Kind] = dict.fromkeys(self.numbers, "number")
        return numbers | dict.fromkeys(self.categories, "category")


WATCHED = (
    Watched(FCT_INTERACTIONS, c.OCCURRED_AT, c.EVENT_ID, c.USER_ID, (c.RATING,), (c.EVENT_TYPE, c.DOMAIN)),
    Watched(
        FEAT_USER_ACTIVITY, c.EVENT_TIMESTAMP, c.USER_ID, c.USER_ID, USER_FEATURES,
        of_domains=f"{c.USER_ID} in (select {c.USER_ID} from {DIM_USERS} where domains && %(domains)s)",
    ),
    Watched(
        FEAT_ITEM_POPULARITY, c.EVENT_TIMESTAMP, c.ITEM_ID, c.ITEM_ID, ITEM_FEATURES,
        of_domains=f"{c.ITEM_ID} in (select {c.ITEM_ID} from {DIM_ITEMS} where {c.DOMAIN} = any(%(domains)s))",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Windows:
    """Samples of one table, before the cut and from it on: column → values, the unit's column among them."""

    watched: Watched
    reference: dict[str, np.ndarray]
    current: dict[str, np.ndarray]

    def columns(self) -> list[Column]:
        """Return the watched columns as they are judged, named `<table>.<column>`."""
        unit = self.watched.unit
        return [
            Column(
                f"{self.watched.table}.{name}", kind, self.reference[name], self.reference[unit], self.current[name],
                self.current[unit],
            )
            for name, kind in self.watched.kinds().items()
        ]  # fmt: skip


def find_cut(connection: psycopg.Connection, interval: Interval) -> datetime:
    """Return the instant where the current window begins.

    Raises:
        CheckFailed: there are no events, so that both windows are empty.
    """
    first, last = connection.execute(
        f"""
        select min({c.OCCURRED_AT}), max({c.OCCURRED_AT}) from {FCT_INTERACTIONS}
        where {c.DOMAIN} = any(%s) and {c.OCCURRED_AT} < %s
        """,
        (list(interval.domains), interval.end),
    ).fetchone()
    if first is None:
        raise CheckFailed(
            f"{FCT_INTERACTIONS} of {interval.key}", "no events", "Run `etl load` and `dbt build` for it first"
        )
    return last - (last - first) * CURRENT_SHARE


def read(connection: psycopg.Connection, watched: Watched, interval: Interval, cut: datetime, seed: int) -> Windows:
    """Return both windows of a table: instants before the cut, and from the cut to the interval's end inclusive (a
    feature that is stated for the final midnight belongs to it)."""
    bounds = {
        "reference": f"{watched.instant} < %(cut)s",
        "current": f"{watched.instant} >= %(cut)s and {watched.instant} <= %(end)s",
    }
    parameters = {
        "cut": cut, "end": interval.end, "domains": list(interval.domains), "seed": seed, "rows": SAMPLE_ROWS
    }  # fmt: skip
    frames = {name: _sample(connection, watched, bound, parameters) for name, bound in bounds.items()}
    return Windows(watched, **frames)


def read_rows(
    connection: psycopg.Connection, watched: Watched, interval: Interval, since: datetime | None, seed: int
) -> dict[str, np.ndarray]:
    """Return a sample of a table's rows from `since` on, or from the first, to the interval's end inclusive."""
    bound = f"{watched.instant} <= %(end)s" + (f" and {watched.instant} >= %(since)s" if since else "")
    parameters = {
        "since": since, "end": interval.end, "domains": list(interval.domains), "seed": seed, "rows": SAMPLE_ROWS
    }  # fmt: skip
    return _sample(connection, watched, bound, parameters)


def _sample(
    connection: psycopg.Connection, watched: Watched, bound: str, parameters: dict[str, Any]
) -> dict[str, np.ndarray]:
    texts = [watched.unit, *watched.categories]
    selected = ", ".join([f"{name}::text" for name in texts] + [f"{name}::float8" for name in watched.numbers])
    cursor = connection.execute(
        f"""
        select {selected} from {watched.table} where {bound} and {watched.of_domains}
        order by hashtextextended({watched.key} || {watched.instant}::text, %(seed)s) limit %(rows)s
        """,
        parameters,
        binary=True,
    )
    rows = cursor.fetchall()
    names = (*texts, *watched.numbers)
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    kinds = [object] * len(texts) + [float] * len(watched.numbers)
    return {name: np.array(column, kind) for name, column, kind in zip(names, columns, kinds, strict=True)}
