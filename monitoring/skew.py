"""Training-serving skew: is what the ranker read at an answer what training would read of that instant?

Serving keeps with each ranked answer the features that its ranker read (docs/api.md). Here the latest such answers are
held against the marts, point-in-time: the newest row of the user or the item that is not later than the answer.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from redis import Redis

from recsys import columns as c
from recsys.artifacts import (
    FCT_INTERACTIONS,
    FEAT_ITEM_POPULARITY,
    FEAT_USER_ACTIVITY,
    ITEM_FEATURES,
    RAW_IMPRESSIONS,
    USER_FEATURES,
)
from recsys.interval import Interval
from recsys.user_state import record_key
from recsys.warehouse import Outcome

STATION, CHECK = "monitoring", "training_serving_skew"
REQUESTS = 500
"""The latest answers; each logs the features of one user and of all items that it showed."""
MIN_VALUES = 50
LIMIT = 0.05
"""Share of the values that may differ: an answer between a build of the marts and the deployment reads older facts."""
CLOSE = 1e-4
"""Relative difference that is rounding: the ranker reads float32, the marts hold float64."""


@dataclass(frozen=True)
class Logged:
    """A feature of one user or item as the ranker read it; `value` is None for one that it did not know."""

    entity: str
    id_: str
    feature: str
    value: float | None
    at: datetime


@dataclass(frozen=True)
class Skew:
    """Of one feature: how many logged values could be held against the marts, and how many differ."""

    feature: str
    compared: int
    differing: int
    unknown: int
    """Of those that differ: one side has a value, the other has none."""

    @property
    def share(self) -> float:
        return self.differing / self.compared if self.compared else 0.0


def logged_in(record: Mapping[str, Any]) -> Iterator[Logged]:
    """Yield the features of one request record (JSON of serving's `RequestRecord`); nothing where no ranker ran."""
    if not record.get("ranker"):
        return
    at = datetime.fromisoformat(record["answered_at"])
    for name, value in record["ranker"]["user_features"].items():
        yield Logged(c.USER_ID, record["user_id"], name, value, at)
    for item in record["items"]:
        for name, value in (item.get("features") or {}).items():
            yield Logged(c.ITEM_ID, item["item_id"], name, value, at)


def compare(
    logged: Iterable[Logged], offline: Mapping[tuple[str, str, datetime], Mapping[str, float | None] | None]
) -> list[Skew]:
    """Return the skew of each feature that the marts have, by name.

    Args:
        logged: what the ranker read.
        offline: (entity, id, instant of the answer) → the row that training would read; None: not to be compared.
    """
    counts: dict[str, list[int]] = {}
    for one in logged:
        row = offline.get((one.entity, one.id_, one.at))
        if row is None or one.feature not in row:
            continue
        expected = row[one.feature]
        is_unknown = (expected is None) != (one.value is None)
        differs = is_unknown or (
            expected is not None and abs(one.value - expected) > CLOSE * max(1.0, abs(expected))  # type: ignore[operator]
        )
        found = counts.setdefault(one.feature, [0, 0, 0])
        found[0] += 1
        found[1] += differs
        found[2] += is_unknown
    return [Skew(name, *found) for name, found in sorted(counts.items())]


def outcomes(skews: Iterable[Skew], interval: Interval) -> list[Outcome]:
    """Return the judgement on each feature; one with fewer than `MIN_VALUES` values is told, not judged."""
    return [
        Outcome(
            STATION,
            interval.as_of,
            CHECK,
            f"{skew.share:.1%} of {skew.compared} values differ",
            f"at most {LIMIT:.0%}" if skew.compared >= MIN_VALUES else f"told: fewer than {MIN_VALUES} values",
            "warn" if skew.compared >= MIN_VALUES and skew.share > LIMIT else "pass",
            subject=skew.feature,
            detail={"compared": skew.compared, "differing": skew.differing, "unknown_on_one_side": skew.unknown},
        )
        for skew in skews
    ]


def measure_skew(connection: psycopg.Connection, store: Redis, interval: Interval) -> list[Skew]:
    """Return the skew of the latest answers before the interval's end that were ranked and are still on record."""
    logged = [one for record in _records(connection, store, interval) for one in logged_in(record)]
    offline: dict[tuple[str, str, datetime], Mapping[str, float | None] | None] = {}
    for entity, mart, names in (
        (c.USER_ID, FEAT_USER_ACTIVITY, USER_FEATURES),
        (c.ITEM_ID, FEAT_ITEM_POPULARITY, ITEM_FEATURES),
    ):
        wanted = {(one.id_, one.at) for one in logged if one.entity == entity}
        offline |= _rows_of_then(connection, entity, mart, names, wanted)
    return compare(logged, offline)


def _records(connection: psycopg.Connection, store: Redis, interval: Interval) -> list[dict[str, Any]]:
    requests = connection.execute(
        f"""
        select {c.REQUEST_ID} from {RAW_IMPRESSIONS}
        where {c.DOMAIN} = any(%s) and {c.SHOWN_AT} < %s
        group by {c.REQUEST_ID} order by max({c.SHOWN_AT}) desc limit %s
        """,
        (list(interval.domains), interval.end, REQUESTS),
    ).fetchall()
    kept = store.mget([record_key(request) for (request,) in requests]) if requests else []
    return [json.loads(text) for text in kept if text is not None]


def _rows_of_then(
    connection: psycopg.Connection, entity: str, mart: str, names: tuple[str, ...], wanted: set[tuple[str, datetime]]
) -> dict[tuple[str, str, datetime], Mapping[str, float | None] | None]:
    """Return the rows that training would read; None of a user who has acted since: the stream keeps those newer."""
    ids, instants = [id_ for id_, _ in wanted], [at for _, at in wanted]
    has_acted = (
        f"exists (select 1 from {FCT_INTERACTIONS} acted where acted.{c.USER_ID} = asked.id "
        f"and acted.{c.OCCURRED_AT} >= known.{c.EVENT_TIMESTAMP} and acted.{c.OCCURRED_AT} <= asked.at)"
        if entity == c.USER_ID
        else "false"
    )
    rows = connection.execute(
        f"""
        select asked.id, asked.at, {has_acted}, {", ".join(f"known.{name}::float8" for name in names)}
        from unnest(%s::text[], %s::timestamptz[]) asked (id, at)
        cross join lateral (
            select * from {mart} where {entity} = asked.id and {c.EVENT_TIMESTAMP} <= asked.at
            order by {c.EVENT_TIMESTAMP} desc limit 1
        ) known
        """,
        (ids, instants),
    ).fetchall()
    return {
        (entity, id_, at): None if acted else dict(zip(names, values, strict=True)) for id_, at, acted, *values in rows
    }
