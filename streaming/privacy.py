"""What is known of one user: to hand it out, or to forget it everywhere.

Rows in Postgres, live state and stored lists in Redis, the records of requests, the online features. Topics keep their
messages until their retention ends, and the lake what files brought; the tombstone keeps both without effect.
Models hold nothing of a user but what all users together taught them.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import redis
from psycopg import sql
from psycopg.rows import dict_row

from recsys import user_state
from recsys.artifacts import (
    AGG_PURCHASE_DAYS,
    AGG_USER_BEHAVIOUR,
    AGG_USER_CATEGORIES,
    CUSTOMER_VALUES,
    DIM_USERS,
    ERASED_USERS,
    FCT_IMPRESSIONS,
    FCT_INTERACTIONS,
    FEAT_USER_ACTIVITY,
    FEAT_USER_CATEGORY_WINDOWS,
    FEAT_USER_WINDOWS,
    INTERACTIONS_CHANGED,
    PRECOMPUTED_LISTS,
    RAW_IMPRESSIONS,
    RAW_INTERACTIONS,
    RAW_USERS,
    REMOVED_INTERACTIONS,
    USER_ACTIVITY,
    USER_SEGMENTS,
    USERS_ACTIVE,
)
from recsys.columns import DOMAINS, REQUEST_ID, USER_ID
from recsys.erasure import digest
from recsys.online_features import USER_ACTIVITY as FEAST_VIEW
from recsys.settings import Settings
from recsys.warehouse import connect
from streaming.land import user_state_lock

TABLES = (
    RAW_INTERACTIONS, RAW_IMPRESSIONS, RAW_USERS, FCT_INTERACTIONS, FCT_IMPRESSIONS, DIM_USERS, FEAT_USER_ACTIVITY,
    FEAT_USER_WINDOWS, FEAT_USER_CATEGORY_WINDOWS, USER_ACTIVITY,
    INTERACTIONS_CHANGED, USERS_ACTIVE, PRECOMPUTED_LISTS,
    AGG_PURCHASE_DAYS, AGG_USER_BEHAVIOUR, AGG_USER_CATEGORIES, USER_SEGMENTS, CUSTOMER_VALUES,
)  # fmt: skip
"""Every table with a row a user; of the marts those that were built already."""


def export(settings: Settings, user_id: str) -> dict[str, Any]:
    """Return all that is kept of a user: rows by table, and values by key of the online store."""
    with connect(settings) as connection, _store(settings.redis_url) as store:
        tables = {}
        with connection.cursor(row_factory=dict_row) as cursor:
            for table, name in _present(connection):
                query = sql.SQL("select * from {} where {} = %s").format(name, sql.Identifier(USER_ID))
                tables[table] = cursor.execute(query, (user_id,)).fetchall()
        readers = {"string": store.get, "hash": store.hgetall, "zset": lambda key: store.zrange(key, 0, -1)}
        keys = [key for key in _keys(user_id) if store.exists(key)]
        online = {key: readers[store.type(key)](key) for key in keys}
        with _store(settings.record_store) as records:
            for key in _record_keys(connection, user_id):
                if (record := records.get(key)) is not None:
                    online[key] = record
        return {"user_id": user_id, "tables": tables, "online": online}


def erase(settings: Settings, user_id: str, instant: datetime) -> dict[str, int]:
    """Forget a user everywhere and set the tombstone; return what was deleted. May be repeated.

    Rows go in one transaction, after the keys: whoever dies in between leaves rows, and the next call finds them. No
    consumer carries the user back meanwhile: it waits for the lock, and then sees the tombstone.

    Raises:
        ServiceUnavailable: PostgreSQL does not answer.
        redis.RedisError: the online store does not, or that of the records.
    """
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection, user_state_lock(connection, True):
        connection.execute(
            f"""
            insert into {ERASED_USERS} as earlier (user_digest, erased_at) values (%s, %s)
            on conflict (user_digest) do update set erased_at = greatest(excluded.erased_at, earlier.erased_at)
            """,
            (digest(user_id), instant),
        )
        with _store(settings.redis_url) as store:
            keys = store.delete(*_keys(user_id), FEAST_VIEW.key(user_id))
        if own := _record_keys(connection, user_id):
            with _store(settings.record_store) as records:
                keys += records.delete(*own)
        deleted = 0
        with connection.transaction():
            for _, name in _present(connection):
                query = sql.SQL("delete from {} where {} = %s").format(name, sql.Identifier(USER_ID))
                deleted += connection.execute(query, (user_id,)).rowcount
            # The next build still has to learn on which items and days something is gone, not whose it was.
            nameless = f"update {REMOVED_INTERACTIONS} set {USER_ID} = null where {USER_ID} = %s"
            connection.execute(nameless, (user_id,))
    return {"rows": deleted, "keys": keys}


def _store(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True, socket_timeout=10, socket_connect_timeout=5)


def _present(connection: psycopg.Connection) -> Iterator[tuple[str, sql.Identifier]]:
    for table in TABLES:
        if connection.execute("select to_regclass(%s)", (table,)).fetchone() != (None,):
            yield table, sql.Identifier(*table.split("."))


def _keys(user_id: str) -> list[str]:
    """Return the user's keys in the online store."""
    return [
        user_state.history_key(user_id),
        user_state.features_key(user_id),
        user_state.version_key(user_id),
        *(user_state.list_key(user_id, domain) for domain in (None, *DOMAINS)),
    ]


def _record_keys(connection: psycopg.Connection, user_id: str) -> list[str]:
    """Return the keys of the records of the user's requests, none found by a scan: the impressions name them."""
    requests = connection.execute(
        f"select distinct {REQUEST_ID} from {RAW_IMPRESSIONS} where {USER_ID} = %s", (user_id,)
    )
    return [user_state.record_key(request_id) for (request_id,) in requests]
