"""Features as they were known at an instant: of each entity the latest row not later than it, from PostgreSQL.

The same answer as Feast's historical look-up (tests/feature_repo/test_features.py compares them) without a query that
joins every question to every row of its entity: the rows come once, as columns, and a binary search finds each answer
(docs/decisions/0039-own-historical-join.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import adbc_driver_postgresql.dbapi as adbc
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.columns import EVENT_TIMESTAMP
from recsys.settings import Settings

ASKED = "asked_entities"
INSTANT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class View:
    """One table of features: a row says what is known of an entity from `event_timestamp` on."""

    table: str
    entity: str
    features: tuple[str, ...]


def known_at(settings: Settings, asked: pa.Table, views: Sequence[View]) -> np.ndarray:
    """Return the views' features for each question, NaN where nothing was known yet. float32 (R, F)

    Args:
        asked: a row a question: the entities' ids and `event_timestamp`; in any order, also twice.
    """
    instants = _microseconds(asked[EVENT_TIMESTAMP])
    with adbc.connect(settings.postgres_url) as connection, connection.cursor() as cursor:
        return np.column_stack([_answers(cursor, asked[view.entity], instants, view) for view in views])


def _answers(cursor: adbc.Cursor, ids: pa.ChunkedArray, instants: np.ndarray, view: View) -> np.ndarray:
    """Return one view's features. float32 (R, F)"""
    entities = ids.unique()  # (E,)
    codes, times, values = _rows(cursor, entities, view)  # (n,), (n,), (n, F)
    order = np.lexsort((times, codes))
    wanted = pc.index_in(ids, value_set=entities).to_numpy()  # (R,)
    found = latest(codes[order], times[order], wanted, instants)
    answers = np.full((len(ids), len(view.features)), np.nan, np.float32)
    answers[found >= 0] = values[order[found[found >= 0]]]
    return answers


def _rows(cursor: adbc.Cursor, entities: pa.Array, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of these entities: number of the entity (n,), microseconds (n,), features float32 (n, F)."""
    cursor.execute(f"drop table if exists pg_temp.{ASKED}")
    cursor.adbc_ingest(ASKED, pa.table({"id": entities}), mode="create", temporary=True)
    listed = ", ".join(f"{name}::real" for name in view.features)
    cursor.execute(
        f"select {view.entity}, {EVENT_TIMESTAMP}, {listed} from {view.table}"
        f' where {view.entity} in (select id collate "C" from pg_temp.{ASKED})'
    )
    codes, times, values = [np.empty(0, np.int32)], [np.empty(0, np.int64)], [np.empty((0, len(view.features)))]
    for batch in cursor.fetch_record_batch():
        codes.append(pc.index_in(batch.column(0), value_set=entities).to_numpy())
        times.append(_microseconds(batch.column(1)))
        columns = [batch.column(2 + at).to_numpy(zero_copy_only=False) for at in range(len(view.features))]
        values.append(np.column_stack(columns).astype(np.float32))
    return np.concatenate(codes), np.concatenate(times), np.concatenate(values, dtype=np.float32)


def _microseconds(instants: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return instants.cast(INSTANT).cast(pa.int64()).to_numpy()


def latest(codes: np.ndarray, times: np.ndarray, wanted: np.ndarray, instants: np.ndarray) -> np.ndarray:
    """Return for each question the number of its entity's latest row that is not later; -1 where there is none. (R,)

    Args:
        codes: entity of each row, sorted (n,).
        times: instant of each row, sorted within an entity (n,).
        wanted: entity of each question (R,).
        instants: instant of each question (R,).
    """
    # Instants as ranks among the rows', so that entity and instant fit into one sortable number.
    ranks = np.unique(times)
    span = len(ranks) + 1
    keys = codes.astype(np.int64) * span + np.searchsorted(ranks, times) + 1  # (n,)
    until = wanted.astype(np.int64) * span + np.searchsorted(ranks, instants, side="right")  # (R,)
    found = np.searchsorted(keys, until, side="right") - 1
    if len(codes):
        found[codes[found] != wanted] = -1  # of -1, the last row's entity is looked at, which is no smaller than any
    return found
