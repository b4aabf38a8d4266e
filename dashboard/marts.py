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
"""How far back the time lines go, in days before the latest day of each domain."""

COLUMNS = {
    artifacts.AGG_HEADLINES: ("domain", "headline", "latest_date", "value", "value_before", "change"),
    artifacts.AGG_DAILY_ENGAGEMENT: (
        "activity_date", "domain", "interactions", "active_users", "new_users", "mean_rating",
    ),
    artifacts.AGG_RECOMMENDATION_FUNNEL: (
        "shown_date", "domain", "variant", "model_version", "rung", "requests", "impressions", "clicks",
        "click_through_rate",
    ),
    artifacts.AGG_RECOMMENDATION_EFFECTIVENESS: (
        "domain", "variant", "window_days", "window_start_date", "window_end_date", "impressions", "clicks",
        "conversions", "click_through_rate", "conversion_rate", "users", "users_clicked", "users_converted",
        "items_shown", "coverage", "novelty_bits", "popularity_rank",
    ),
    artifacts.AGG_SESSIONS: (
        "session_date", "domain", "sessions", "users", "events", "single_event_sessions", "median_events",
        "median_minutes",
    ),
    artifacts.AGG_COHORT_RETENTION: (
        "domain", "cohort_month", "age_months", "cohort_users", "active_users", "retention", "is_complete",
        "is_small_cohort",
    ),
    artifacts.AGG_MODEL_QUALITY: ("as_of", "cut_id", "model", "metric", "value", "value_over_baseline"),
    artifacts.OUTCOMES: (
        "verdict", "station", "check_name", "subject", "observed", "expected", "outcome_date", "conclusion",
    ),
}  # fmt: skip
"""What the pages need of each table."""

EXPRESSIONS: dict[str, LiteralString] = {"conclusion": "detail ->> 'conclusion' as conclusion"}
"""Columns that are parts of others."""


def headlines(settings: Settings) -> pd.DataFrame:
    """Return one row per domain and headline."""
    return _read(settings, artifacts.AGG_HEADLINES, "order by domain, headline")


def daily_engagement(settings: Settings) -> pd.DataFrame:
    """Return one row per day and domain, oldest first."""
    return _read(
        settings,
        artifacts.AGG_DAILY_ENGAGEMENT,
        """
        where activity_date > (
            select max(latest.activity_date) from {table} as latest where latest.domain = {table}.domain
        ) - {days}
        order by activity_date, domain
        """,
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


def recommendation_effectiveness(settings: Settings) -> pd.DataFrame:
    """Return one row per domain, variant and window."""
    return _read(settings, artifacts.AGG_RECOMMENDATION_EFFECTIVENESS, "order by domain, window_days, variant")


def sessions(settings: Settings) -> pd.DataFrame:
    """Return one row per day and domain, oldest first."""
    return _read(
        settings,
        artifacts.AGG_SESSIONS,
        """
        where session_date > (
            select max(latest.session_date) from {table} as latest where latest.domain = {table}.domain
        ) - {days}
        order by session_date, domain
        """,
    )


def cohort_retention(settings: Settings) -> pd.DataFrame:
    """Return one row per domain, cohort and age."""
    return _read(settings, artifacts.AGG_COHORT_RETENTION, "order by domain, cohort_month, age_months")


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
        columns=sql.SQL(", ").join(
            sql.SQL(EXPRESSIONS[name]) if name in EXPRESSIONS else sql.Identifier(name) for name in names
        ),
        table=sql.Identifier(*table.split(".")),
        days=sql.Literal(SHOWN_DAYS),
    )
    with connect(settings) as connection:
        connection.read_only = True
        try:
            rows = connection.execute(query).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            fault = str(error).splitlines()[0]
            way_out = f"Trigger the DAG `{artifacts.DAG_PIPELINE}`; `{artifacts.DAG_INSIGHT}` follows it"
            raise MissingArtifact(f"mart {table}", fault, way_out) from error
    return pd.DataFrame(rows, columns=list(names))
