"""The latest row of each entity of the feature tables, into the online store: `feast materialize` from Arrow.

Feast converts each cell to protobuf by itself: some 10 000 rows a second. Here a batch of Arrow rows becomes the same
bytes, and the store compares and writes them: byte for byte what Feast writes, held by
tests/feature_repo/test_online_features.py.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
import redis

from recsys.artifacts import FEAT_ITEM_POPULARITY, FEAT_ITEM_WINDOWS, FEAT_USER_ACTIVITY, FEAT_USER_WINDOWS
from recsys.columns import EVENT_TIMESTAMP
from recsys.errors import MissingArtifact, ServiceUnavailable
from recsys.interval import Interval
from recsys.online_features import ITEM_POPULARITY, ITEM_WINDOWS, USER_ACTIVITY, USER_WINDOWS, View, write
from recsys.settings import Settings

SOURCES = {
    FEAT_USER_ACTIVITY: USER_ACTIVITY,
    FEAT_USER_WINDOWS: USER_WINDOWS,
    FEAT_ITEM_POPULARITY: ITEM_POPULARITY,
    FEAT_ITEM_WINDOWS: ITEM_WINDOWS,
}
ROWS_AT_ONCE = 5000
AT_ONCE = 2
"""Writes under way: while the store works on one, the next one is encoded."""


def materialize(settings: Settings, interval: Interval) -> dict[str, Any]:
    """Copy what was known at the end of the interval. Rows that the store holds newer ones of stay as they are.

    Raises:
        MissingArtifact: a feature table was never built.
        ServiceUnavailable: PostgreSQL or the online store does not answer.
    """
    client = redis.Redis.from_url(settings.redis_url, socket_timeout=30, socket_connect_timeout=5)
    try:
        return {view.name: copy(settings, client, table, view, interval.end) for table, view in SOURCES.items()}
    except redis.ConnectionError as error:
        raise ServiceUnavailable("Redis", error, "Start the platform with `make up`") from error
    except adbc.OperationalError as error:
        raise ServiceUnavailable("PostgreSQL", error, "Start the platform with `make up`") from error
    except adbc.ProgrammingError as error:
        raise MissingArtifact("feature tables", error, "Build the marts first: `dbt build`") from error
    finally:
        client.close()


def copy(settings: Settings, client: Any, table: str, view: View, end: datetime) -> int:
    """Copy one view and return how many rows were read; a few batches are in memory at a time."""
    columns = ", ".join((view.join_key, f"extract(epoch from {EVENT_TIMESTAMP})::float8", *view.features))
    read = 0
    with adbc.connect(settings.postgres_url) as connection, connection.cursor() as cursor:
        cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(1 << 20)})
        cursor.execute(
            f"""
            select distinct on ({view.join_key}) {columns} from {table}
            where {EVENT_TIMESTAMP} <= to_timestamp($1) order by {view.join_key}, {EVENT_TIMESTAMP} desc
            """,
            (end.timestamp(),),
        )
        with ThreadPoolExecutor(AT_ONCE) as writers:
            under_way: deque[Future[int]] = deque()
            for batch in cursor.fetch_record_batch():
                for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                    under_way.append(writers.submit(_write, client, view, batch.slice(start, ROWS_AT_ONCE)))
                    if len(under_way) > AT_ONCE:
                        under_way.popleft().result()
                read += batch.num_rows
            for one in under_way:
                one.result()
    return read


def _write(client: Any, view: View, rows: pa.RecordBatch) -> int:
    ids, epochs, *values = (column.to_pylist() for column in rows.columns)
    return write(client, view, list(zip(ids, map(_instant, epochs), zip(*values, strict=True), strict=True)))


@lru_cache(4096)
def _instant(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
