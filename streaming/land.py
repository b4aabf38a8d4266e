"""Effects on the warehouse: events into the raw tables, and what the users' online state must be afterwards."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from recsys import columns as c
from recsys.artifacts import RAW_IMPRESSIONS, RAW_INTERACTIONS
from recsys.erasure import erased_at
from recsys.schemas import Impression, Interaction
from streaming.activity import UserFeatures, count, follow
from streaming.arrays import literal
from streaming.events import Effects

SOURCE = "stream"
STREAM_PARTITION = f"{RAW_INTERACTIONS}_{SOURCE}"
QUERY_OPTIONS = "-c jit=off -c work_mem=64MB -c plan_cache_mode=force_custom_plan"
"""Compiling user_activity.sql costs more than it saves; a batch of 1000 active users sorts some 30 MB. Every batch is
planned anew: PostgreSQL keeps a prepared statement's plan until the next analyze, and one made while the stream's table
was known to be empty went through all of it for each new event, up to 17 s a batch."""

INTERACTION_COLUMNS = {
    c.EVENT_ID: "text", c.USER_ID: "text", c.ITEM_ID: "text", c.RATING: "float8", c.OCCURRED_AT: "timestamptz",
    c.DOMAIN: "text", c.EVENT_TYPE: "text", c.CONTEXT: "text", c.SOURCE: "text", c.LANDED_PARTITION: "text",
}  # fmt: skip
IMPRESSION_COLUMNS = {
    c.EVENT_ID: "text", c.REQUEST_ID: "text", c.USER_ID: "text", c.ITEM_ID: "text", c.RANK: "int4", c.SCORE: "float8",
    c.DOMAIN: "text", c.VARIANT: "text", c.MODEL_VERSION: "text", c.PROPENSITY: "float8", c.RUNG: "text",
    c.SHOWN_AT: "timestamptz",
}  # fmt: skip


@dataclass(frozen=True)
class Landed:
    """What the warehouse holds after a batch, for the users that the batch touched."""

    new_interactions: int
    new_impressions: int
    items: dict[str, list[tuple[str, datetime]]]
    """user_id → items and instants of the batch's events, as the table holds them: where an event_id comes again with
    another content, the first content stays."""
    features: dict[str, UserFeatures]


@contextmanager
def user_state_lock(connection: psycopg.Connection, exclusive: bool = False) -> Iterator[None]:
    """Hold the right to carry users' state from the warehouse to Redis.

    The consumers share it, from reading until Redis has it; a rebuild takes it alone, so that it never puts an older
    state over a newer one. It belongs to the connection: who dies holds nothing.
    """
    suffix = "" if exclusive else "_shared"
    connection.execute(f"select pg_advisory_lock{suffix}(hashtext('recsys user state'))")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(f"select pg_advisory_unlock{suffix}(hashtext('recsys user state'))")


def land(connection: psycopg.Connection, effects: Effects) -> Landed:
    """Write a batch's events in one transaction and return the state that follows. Events that are there already stay.

    Args:
        connection: in autocommit mode.

    Raises:
        psycopg.DataError: PostgreSQL refuses a value; nothing was written.
    """
    with connection.transaction():
        effects = _without_erased(connection, effects)
        new_interactions = _insert(
            connection, STREAM_PARTITION, INTERACTION_COLUMNS, [_interaction_row(e) for e in effects.interactions]
        )
        new_impressions = _insert(
            connection, RAW_IMPRESSIONS, IMPRESSION_COLUMNS, [_impression_row(e) for e in effects.impressions]
        )
        items = _landed_items(connection, effects.interactions, new_interactions)
        activity = follow(connection, items, new_interactions)
    features = {user_id: one.features for user_id, one in activity.items()}
    return Landed(len(new_interactions), len(new_impressions), items, features)


def _without_erased(connection: psycopg.Connection, effects: Effects) -> Effects:
    """Return the effects without what erased users did before they were erased."""
    gone = erased_at(connection, {event.user_id for event in (*effects.interactions, *effects.impressions)})
    if not gone:
        return effects

    def stays(user_id: str, instant: datetime) -> bool:
        return user_id not in gone or instant > gone[user_id]

    return Effects(
        [event for event in effects.interactions if stays(event.user_id, event.occurred_at)],
        [event for event in effects.impressions if stays(event.user_id, event.shown_at)],
        effects.refused,
    )


def user_features(connection: psycopg.Connection, user_ids: Sequence[str]) -> dict[str, UserFeatures]:
    """Return the features of these users, counted anew from the raw tables by one statement."""
    return {user_id: activity.features for user_id, activity in count(connection, user_ids).items()}


def _landed_items(
    connection: psycopg.Connection, events: Sequence[Interaction], new_event_ids: Collection[str]
) -> dict[str, list[tuple[str, datetime]]]:
    """Return what the table holds of these events. Of an id that came for the first time it holds the first that the
    batch said; of the others it is asked."""
    items: dict[str, list[tuple[str, datetime]]] = defaultdict(list)
    to_tell, repeated = set(new_event_ids), set()
    for event in events:
        if event.event_id in to_tell:
            to_tell.remove(event.event_id)
            items[event.user_id].append((event.item_id, event.occurred_at))
        else:
            repeated.add(event.event_id)
    if asked := repeated.difference(new_event_ids):
        rows = connection.execute(
            f"""
            select {c.USER_ID}, {c.ITEM_ID}, {c.OCCURRED_AT} from {STREAM_PARTITION}
            where {c.EVENT_ID} = any(%s::text[])
            """,
            (literal(asked),),
            binary=True,
        )
        for user_id, item_id, occurred_at in rows.fetchall():
            items[user_id].append((item_id, occurred_at))
    return items


def _insert(
    connection: psycopg.Connection, table: str, types: dict[str, str], rows: list[tuple[Any, ...]]
) -> list[str]:
    """Insert rows whose event_id is not there yet, in the order of event_id so that two writers cannot deadlock.
    Returns the ids that were new."""
    if not rows:
        return []
    arrays = [literal(column) for column in zip(*sorted(rows, key=lambda row: row[0]), strict=True)]
    unnested = ", ".join(f"%s::{kind}[]" for kind in types.values())
    inserted = connection.execute(
        f"""
        insert into {table} ({", ".join(types)}) select * from unnest({unnested})
        on conflict (event_id) do nothing returning event_id
        """,
        arrays,
    )
    return [event_id for (event_id,) in inserted.fetchall()]


def _interaction_row(event: Interaction) -> tuple[Any, ...]:
    day = event.occurred_at.astimezone(UTC).date().isoformat()
    context = json.dumps(event.context, sort_keys=True) if event.context else "{}"
    return (
        event.event_id, event.user_id, event.item_id, event.rating, event.occurred_at,
        event.domain, event.event_type, context, SOURCE, day,
    )  # fmt: skip


def _impression_row(event: Impression) -> tuple[Any, ...]:
    return tuple(getattr(event, column) for column in IMPRESSION_COLUMNS)
