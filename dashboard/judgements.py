"""Reads of the judgements (`monitoring.outcomes`): one function a question, read-only, nothing computed."""

import pandas as pd

from dashboard.marts import select
from recsys import artifacts
from recsys.settings import Settings


def outcomes(settings: Settings) -> pd.DataFrame:
    """Return the latest judgement of each station, check and subject: failures first, then warnings."""
    return select(
        settings,
        artifacts.OUTCOMES,
        """
        where (station, check_name, subject, outcome_date) in (
            select station, check_name, subject, max(outcome_date) from {table} group by station, check_name, subject
        )
        order by array_position(array['fail', 'warn', 'pass'], verdict), station, check_name, subject
        """,
    )


def champions(settings: Settings) -> pd.DataFrame:
    """Return what the gate has said of each cut's challenger, latest first; `model`, `version` are the champion's."""
    return select(
        settings,
        artifacts.OUTCOMES,
        "where station = 'training' and check_name = 'promotion_gate' order by outcome_date desc, subject",
        ("outcome_date", "domains", "model", "version", "promoted", "challenger", "reason"),
    )


def experiments(settings: Settings) -> pd.DataFrame:
    """Return the latest conclusion of each experiment and variant."""
    return select(
        settings,
        artifacts.OUTCOMES,
        """
        where station = 'experiments' and check_name = 'conclusion'
            and (station, check_name, subject, outcome_date) in (
            select station, check_name, subject, max(outcome_date) from {table} group by station, check_name, subject
        )
        order by outcome_date desc, subject
        """,
        ("experiment", "variant", "decision", "told", "question", "outcome_date"),
    )


def experiment_lifts(settings: Settings, experiment: str) -> pd.DataFrame:
    """Return every reading of one experiment: a lift over the control with its always-valid interval, oldest first."""
    return select(
        settings,
        artifacts.OUTCOMES,
        """
        where station = 'experiments' and check_name like 'lift:%' and starts_with(subject, {key} || '/')
        order by outcome_date, subject, check_name
        """,
        ("outcome_date", "variant", "metric", "lift", "low", "high", "observed", "verdict"),
        experiment,
    )


def experiment_checks(settings: Settings, experiment: str) -> pd.DataFrame:
    """Return the latest judgements of one experiment that are no lift and no conclusion."""
    return select(
        settings,
        artifacts.OUTCOMES,
        """
        where station = 'experiments' and check_name <> 'conclusion' and check_name not like 'lift:%'
            and starts_with(subject || '/', {key} || '/') and outcome_date = (
                select max(latest.outcome_date) from {table} as latest
                where latest.station = 'experiments' and starts_with(latest.subject || '/', {key} || '/')
            )
        order by array_position(array['fail', 'warn', 'pass'], verdict), check_name, subject
        """,
        ("check_name", "subject", "observed", "expected", "verdict", "outcome_date"),
        experiment,
    )


def watched(settings: Settings) -> pd.DataFrame:
    """Return the judgements on drift and freshness of every day, oldest first."""
    return select(
        settings,
        artifacts.OUTCOMES,
        """
        where station = 'monitoring' and outcome_date > (select max(outcome_date) from {table}) - {days}
        order by outcome_date, check_name, subject
        """,
        ("outcome_date", "check_name", "subject", "observed", "expected", "verdict"),
    )


def judgements_by_day(settings: Settings) -> pd.DataFrame:
    """Return how many judgements of each verdict every station has made each day, oldest first."""
    return select(
        settings,
        artifacts.OUTCOMES,
        """
        where outcome_date > (select max(outcome_date) from {table}) - {days} and station <> 'experiments'
        group by outcome_date, station, verdict order by outcome_date, station, verdict
        """,
        ("outcome_date", "station", "verdict", "judgements"),
    )
