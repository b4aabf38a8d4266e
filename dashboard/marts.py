"""Reads of the analytics marts and of the judgements: one function a table, read-only, nothing computed.

Every function returns a `pandas.DataFrame` with the columns named beside its table; no rows means an empty frame.
"""

from typing import LiteralString

import pandas as pd
import psycopg
from psycopg import sql

from recsys import artifacts
from recsys.errors import MissingArtifact
from recsys.settings import Settings
from recsys.warehouse import connect

SHOWN_DAYS = 365
"""How far back the time lines go, in days before the latest day of the table."""

COLUMNS = {
    artifacts.AGG_DAILY_ENGAGEMENT: (
        "activity_date", "domain", "interactions", "active_users", "new_users", "mean_rating",
    ),
    artifacts.AGG_RECOMMENDATION_FUNNEL: (
        "shown_date", "domain", "variant", "model_version", "rung", "requests", "impressions", "clicks",
        "click_through_rate",
    ),
    artifacts.AGG_MODEL_QUALITY: ("as_of", "cut_id", "model", "metric", "value", "value_over_baseline"),
    artifacts.OUTCOMES: ("verdict", "station", "check_name", "subject", "observed", "expected", "outcome_date"),
}  # fmt: skip
"""What each page needs of its table."""


def daily_engagement(settings: Settings) -> pd.DataFrame:
    """Return one row per day and domain, oldest first."""
    return _read(
        settings,
        artifacts.AGG_DAILY_ENGAGEMENT,
        "where activity_date > (select max(activity_date) from {table}) - {days} order by activity_date, domain",
    )


def recommendation_funnel(settings: Settings) -> pd.DataFrame:
    """Return one row per day, domain, variant, model version and rung, latest day first."""
    return _read(
        settings,
        artifacts.AGG_RECOMMENDATION_FUNNEL,
        """
        where shown_date > (select max(shown_date) from {table}) - {days}
        order by shown_date desc, domain, variant, model_version, rung
        """,
    )


def model_quality(settings: Settings) -> pd.DataFrame:
    """Return the evaluations of every data cut, latest first: one row per cut, model and metric."""
    return _read(settings, artifacts.AGG_MODEL_QUALITY, "order by as_of desc, cut_id, model, metric")


def outcomes(settings: Settings) -> pd.DataFrame:
    """Return the latest judgement of each station, check and subject: failures first, then warnings."""
    return _read(
        settings,
        artifacts.OUTCOMES,
        """
        where not exists (
            select from {table} as later
            where (later.station, later.check_name, later.subject)
                = ({table}.station, {table}.check_name, {table}.subject)
                and later.outcome_date > {table}.outcome_date
        )
        order by array_position(array['fail', 'warn', 'pass'], verdict), station, check_name, subject
        """,
    )


def _read(settings: Settings, table: str, condition: LiteralString) -> pd.DataFrame:
    """Select a table's columns, under this condition and order, in a transaction that cannot write.

    Raises:
        ServiceUnavailable: the warehouse does not answer.
        MissingArtifact: the table, or a column of it, is not there.
    """
    names = COLUMNS[table]
    query = sql.SQL("select {columns} from {table} " + condition).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, names)),
        table=sql.Identifier(*table.split(".")),
        days=sql.Literal(SHOWN_DAYS),
    )
    with connect(settings) as connection:
        connection.read_only = True
        try:
            rows = connection.execute(query).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            fault = str(error).splitlines()[0]
            raise MissingArtifact(f"mart {table}", fault, f"Trigger the DAG `{artifacts.DAG_PIPELINE}`") from error
    return pd.DataFrame(rows, columns=list(names))
