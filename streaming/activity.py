"""What the users' features are made of, kept as sums, so that an event costs one addition and not a walk over the past.

`raw.user_activity` holds a user's sums. They are changed in the transaction that lands the event, so whoever dies in
between leaves neither half. A user without a row, or with one from before the last load of files, is counted once from
all events (user_activity.sql); that statement is the definition, and the sums give what it gives: held by a test.

Two consumers may meet at one user, when partitions move: the row's lock comes before the counting, so each sees what
the other has landed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row

from recsys import columns as c
from recsys.artifacts import INTERACTIONS_LOADS, RAW_INTERACTIONS, USER_ACTIVITY, USER_FEATURES
from streaming.arrays import literal

USER_ACTIVITY_SQL = Path(__file__).with_name("user_activity.sql").read_text()
RECENT_DAYS = 30
ONE_DAY = timedelta(days=1)


class UserFeatures(NamedTuple):
    """One user's online features; see user_activity.sql."""

    event_timestamp: datetime
    values: dict[str, float | None]


class Event(NamedTuple):
    """What an event adds to its user's sums."""

    user_id: str
    item_id: str
    rating: float | None
    occurred_at: datetime
    is_item_known: bool
    """Whether the user had met the item before this batch."""


class Activity(NamedTuple):
    """One user's sums."""

    interactions: int
    items: int
    rating_sum: float
    ratings: int
    last_day: date
    """Day (UTC) of the latest event."""
    days: list[int]
    """Events of `last_day` and of the 29 days before it, backwards. (30,)"""

    @property
    def features(self) -> UserFeatures:
        midnight = datetime(self.last_day.year, self.last_day.month, self.last_day.day, tzinfo=UTC) + ONE_DAY
        mean = self.rating_sum / self.ratings if self.ratings else None
        values = (self.interactions, sum(self.days), self.items, mean)
        return UserFeatures(midnight, dict(zip(USER_FEATURES, values, strict=True)))

    def plus(self, events: Sequence[Event]) -> "Activity":
        """Return the sums with these events of the user added."""
        days = [event.occurred_at.astimezone(UTC).date() for event in events]
        last_day = max(self.last_day, *days)
        passed = min((last_day - self.last_day).days, RECENT_DAYS)
        counts = [0] * passed + self.days[: RECENT_DAYS - passed]
        for day in days:
            if (back := (last_day - day).days) < RECENT_DAYS:
                counts[back] += 1
        ratings = [event.rating for event in events if event.rating is not None]
        return Activity(
            self.interactions + len(events),
            self.items + len({event.item_id for event in events if not event.is_item_known}),
            self.rating_sum + sum(ratings),
            self.ratings + len(ratings),
            last_day,
            counts,
        )


def count(connection: psycopg.Connection, user_ids: Sequence[str]) -> dict[str, Activity]:
    """Return the sums of these users, from all their events by one statement."""
    if not user_ids:
        return {}
    with connection.cursor(row_factory=dict_row, binary=True) as cursor:
        rows = cursor.execute(USER_ACTIVITY_SQL, {"user_ids": list(user_ids)}).fetchall()
    return {row[c.USER_ID]: _counted(row) for row in rows}


def _counted(row: dict[str, Any]) -> Activity:
    days = [0] * RECENT_DAYS
    for back, events in zip(row["days_back"], row["interactions_a_day"], strict=True):
        days[back - 1] = events
    total, _, items, _ = (row[name] for name in USER_FEATURES)
    last_day = (row[c.EVENT_TIMESTAMP].astimezone(UTC) - ONE_DAY).date()
    return Activity(total, items, row["rating_sum"], row["rating_count"], last_day, days)


def follow(
    connection: psycopg.Connection, user_ids: Iterable[str], new_event_ids: Sequence[str]
) -> dict[str, Activity]:
    """Bring the sums of these users up to the events that this transaction has landed, and return them.

    Args:
        connection: in the transaction that landed the events.
        new_event_ids: those that were not there before. Users may have none: their sums are returned as they are.
    """
    wanted = sorted(set(user_ids))
    if not wanted:
        return {}
    loads = _loads(connection)
    held = _locked(connection, wanted)
    current = {user_id: activity for user_id, (at, activity) in held.items() if at == loads}
    added = _added(connection, list(current), list(new_event_ids))
    changed = {user_id: current[user_id].plus(events) for user_id, events in added.items()}
    changed |= count(connection, [user_id for user_id in wanted if user_id not in current])
    _keep(connection, loads, changed)
    return {user_id: activity for user_id, activity in (current | changed).items() if activity.interactions}


def recount(connection: psycopg.Connection, user_ids: Sequence[str]) -> dict[str, Activity]:
    """Count these users' sums anew, keep them and return them: what a rebuild does, so that the stream need not."""
    with connection.transaction():
        loads = _loads(connection)
        _locked(connection, sorted(user_ids))
        counted = count(connection, user_ids)
        _keep(connection, loads, counted)
    return counted


def _loads(connection: psycopg.Connection) -> int:
    """Return how many loads are to be seen: read before the counting, so that one in between calls for another."""
    return connection.execute(f"select count(*) from {INTERACTIONS_LOADS}").fetchone()[0]


def _locked(connection: psycopg.Connection, user_ids: list[str]) -> dict[str, tuple[int, Activity]]:
    """Return the rows of these users and hold them until the end of the transaction; new ones are empty and of no load.

    A row that a reload takes away meanwhile is made again.
    """
    held: dict[str, tuple[int, Activity]] = {}
    while missing := [user_id for user_id in user_ids if user_id not in held]:
        connection.execute(
            f"""
            insert into {USER_ACTIVITY} (user_id, loads) select user_id, -1 from unnest(%s::text[]) as user_id
            on conflict do nothing
            """,
            (literal(missing),),
        )
        rows = connection.execute(
            f"""
            select user_id, loads, interactions, items, rating_sum, ratings, last_day, days
            from {USER_ACTIVITY} where user_id = any(%s::text[]) order by user_id for update
            """,
            (literal(missing),),
            binary=True,
        )
        held |= {user_id: (loads, Activity(*sums)) for user_id, loads, *sums in rows.fetchall()}
    return held


def _added(connection: psycopg.Connection, user_ids: list[str], event_ids: list[str]) -> dict[str, list[Event]]:
    """Return what the new events add, by user. An event that a file has brought too adds nothing; one
    that it brought with another item does, until the user is counted again.

    Only what the user has to do with the item is looked at, by an index: the rest of the past costs nothing.
    """
    added: dict[str, list[Event]] = defaultdict(list)
    if not (user_ids and event_ids):
        return added
    # By event alone: with a list of users beside it the planner, once it has statistics, goes through all that these
    # users have in the stream; a join with the list goes through the whole stream while it has none.
    rows = connection.execute(
        f"""
        select
            new.{c.USER_ID}, new.{c.ITEM_ID}, new.{c.RATING}, new.{c.OCCURRED_AT},
            past.is_there, past.of_files, past.of_stream
        from {RAW_INTERACTIONS}_stream as new
        cross join lateral (
            select
                coalesce(bool_or(event_id = new.event_id and source <> 'stream'), false) as is_there,
                count(*) filter (where source <> 'stream') as of_files,
                count(*) filter (where source = 'stream') as of_stream
            from {RAW_INTERACTIONS} where user_id = new.user_id and item_id = new.item_id
        ) as past
        where new.event_id = any(%s::text[])
        """,
        (literal(event_ids),),
        binary=True,
    ).fetchall()
    in_batch = Counter((user_id, item_id) for user_id, item_id, *_ in rows)
    users = set(user_ids)
    for user_id, item_id, rating, occurred_at, is_there, of_files, of_stream in rows:
        if user_id in users and not is_there:
            is_known = of_files > 0 or of_stream > in_batch[user_id, item_id]
            added[user_id].append(Event(user_id, item_id, rating, occurred_at, is_known))
    return added


def _keep(connection: psycopg.Connection, loads: int, changed: dict[str, Activity]) -> None:
    if not changed:
        return
    rows = [
        (user_id, a.interactions, a.items, a.rating_sum, a.ratings, a.last_day, "{" + ",".join(map(str, a.days)) + "}")
        for user_id, a in changed.items()
    ]
    connection.execute(
        f"""
        update {USER_ACTIVITY} as kept set
            loads = %s, interactions = new.interactions, items = new.items, rating_sum = new.rating_sum,
            ratings = new.ratings, last_day = new.last_day, days = new.days::integer[]
        from unnest(%s::text[], %s::bigint[], %s::bigint[], %s::float8[], %s::bigint[], %s::date[], %s::text[])
            as new (user_id, interactions, items, rating_sum, ratings, last_day, days)
        where kept.user_id = new.user_id
        """,
        (loads, *(literal(column) for column in zip(*rows, strict=True))),
    )
