"""How the jobs read marts and replace their own rows."""

from collections.abc import Sequence
from typing import Any, LiteralString

import pandas as pd
import psycopg
from psycopg import sql

from recsys.artifacts import DAG_PIPELINE
from recsys.errors import MissingArtifact


def read(connection: psycopg.Connection, query: LiteralString, parameters: Sequence[Any] = ()) -> pd.DataFrame:
    """Return the rows of a query with its columns' names.

    Raises:
        MissingArtifact: a mart that it reads was not built.
    """
    try:
        cursor = connection.execute(query, parameters)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        way_out = f"Trigger the DAG `{DAG_PIPELINE}`; the analytics follow it"
        raise MissingArtifact("mart", str(error).splitlines()[0], way_out) from error
    return pd.DataFrame(cursor.fetchall(), columns=[column.name for column in cursor.description or ()])


def replace(
    connection: psycopg.Connection,
    table: str,
    rows: pd.DataFrame,
    domains: Sequence[str],
    domain_column: str = "domain",
    day: Any = None,
) -> int:
    """Replace the rows of these domains in one transaction, so that nobody reads half of them; NaN becomes null.

    Args:
        day: replace the rows of this day only; without it a table holds the latest rows.
    """
    name = sql.Identifier(*table.split("."))
    condition = sql.SQL("{} = any(%s)").format(sql.Identifier(domain_column))
    values: list[Any] = [list(domains)]
    if day is not None:
        condition, values = condition + sql.SQL(" and as_of = %s"), [*values, day]
    connection.execute(sql.SQL("delete from {} where {}").format(name, condition), values)
    if rows.empty:
        return 0
    columns = sql.SQL(", ").join(map(sql.Identifier, rows.columns))
    plain = rows.astype(object).where(rows.notna(), None)
    with connection.cursor().copy(sql.SQL("copy {} ({}) from stdin").format(name, columns)) as copy:
        for row in plain.itertuples(index=False, name=None):
            copy.write_row(row)
    return len(rows)
