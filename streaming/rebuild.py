"""All users' live state in Redis, from the warehouse, by the functions that keep it live.

It puts back what Redis lost and brings what was loaded from files. The state of a user is a function of the raw tables,
all domains together; `--domains` and `--as-of` only name the pipeline run that this belongs to. Users who are no longer
in the raw tables keep their keys: to forget a user is another task's decision, not a side effect of this one.
"""

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import redis

from recsys import columns as c
from recsys.artifacts import RAW_INTERACTIONS
from recsys.errors import MissingArtifact, ServiceUnavailable
from recsys.interval import Interval
from recsys.receipts import code_fingerprint, fingerprint, recall, record, upstream
from recsys.settings import Settings
from recsys.warehouse import connect
from streaming import state
from streaming.activity import recount
from streaming.land import QUERY_OPTIONS, STREAM_PARTITION, user_state_lock

log = logging.getLogger(__name__)

TASK = "streaming.rebuild"
MARKER_KEY = f"receipt:{TASK}"
"""Holds the fingerprint of the last rebuild; a Redis that was emptied has none."""
USERS_AT_ONCE = 100
"""As many users change in one Redis transaction: some 10 ms at 165 events a user."""


def rebuild(settings: Settings, interval: Interval) -> dict[str, Any]:
    """Bring every user's state in Redis to what the raw tables say, unless it is already so.

    Raises:
        MissingArtifact: nothing was loaded, or there are no events.
        ServiceUnavailable: PostgreSQL or Redis does not answer.
    """
    client = redis.Redis.from_url(settings.redis_url, socket_timeout=30, socket_connect_timeout=5)
    try:
        with connect(settings) as connection:
            wanted = _wanted(connection, interval)
            done = recall(connection, TASK, interval.key, wanted)
        if done is not None and client.get(MARKER_KEY) == wanted.encode():
            return {"unchanged": True, **done}
        detail = rebuild_all(settings, client)
        client.set(MARKER_KEY, wanted)
    except redis.ConnectionError as error:
        raise ServiceUnavailable(
            "Redis", error, "Start the platform with `make up`, or set RECSYS_REDIS_URL"
        ) from error
    finally:
        client.close()
    with connect(settings) as connection:
        record(connection, TASK, interval.key, wanted, detail)
    return {"unchanged": False, **detail}


def _wanted(connection: psycopg.Connection, interval: Interval) -> str:
    """Return the fingerprint of our input: what was loaded from files, and the streamed events before the interval's
    end. Later ones reach Redis through the consumer and call for no rebuild."""
    streamed = connection.execute(
        f"select count(*) from {STREAM_PARTITION} where {c.OCCURRED_AT} < %s", (interval.end,)
    ).fetchone()[0]
    loaded = upstream(connection, ["etl.load"], interval.key)
    return fingerprint(code_fingerprint("streaming", "recsys"), loaded, streamed)


def rebuild_all(settings: Settings, client: redis.Redis) -> dict[str, int]:
    users = events = 0
    with psycopg.connect(settings.postgres_url, autocommit=True, options=QUERY_OPTIONS) as connection:
        for user_ids in _chunks(connection):
            with user_state_lock(connection, exclusive=True):
                histories = _histories(connection, user_ids)
                features = {user: one.features for user, one in recount(connection, user_ids).items()}
                state.replace(client, [(user, histories[user], features.get(user)) for user in user_ids])
            users, events = users + len(user_ids), events + sum(map(len, histories.values()))
    if not users:
        raise MissingArtifact(RAW_INTERACTIONS, "no events", "Run `python -m etl land` and `load` first")
    log.info("rebuilt %s users from %s events", users, events)
    return {"users": users, "events": events}


def _chunks(connection: psycopg.Connection) -> Iterator[list[str]]:
    """Yield all user ids in ascending order, some at a time, by the index on user_id."""
    after = ""
    while True:
        rows = connection.execute(
            f"""
            with recursive users as (
                (select {c.USER_ID} from {RAW_INTERACTIONS} where {c.USER_ID} > %(after)s order by 1 limit 1)
                union all
                select (select min({c.USER_ID}) from {RAW_INTERACTIONS} where {c.USER_ID} > users.{c.USER_ID})
                from users where users.{c.USER_ID} is not null
            )
            select {c.USER_ID} from users where {c.USER_ID} is not null limit %(limit)s
            """,
            {"after": after, "limit": USERS_AT_ONCE},
        ).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        yield [row[0] for row in rows]


def _histories(connection: psycopg.Connection, user_ids: list[str]) -> dict[str, list[tuple[str, datetime]]]:
    rows = connection.execute(
        f"""
        select {c.USER_ID}, array_agg({c.ITEM_ID}), array_agg({c.OCCURRED_AT})
        from {RAW_INTERACTIONS} where {c.USER_ID} = any(%s) group by 1
        """,
        (user_ids,),
        binary=True,
    )
    return {user_id: list(zip(items, instants, strict=True)) for user_id, items, instants in rows}
