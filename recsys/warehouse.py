"""The warehouse: one way to connect, to apply the shared tables, and to write judgements."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

import psycopg

from recsys.errors import ServiceUnavailable
from recsys.settings import Settings

SCHEMA_SQL = Path(__file__).with_name("schema.sql")


@contextmanager
def connect(settings: Settings) -> Iterator[psycopg.Connection]:
    """Yield a connection whose block is one transaction: committed at the end, rolled back on an exception.

    Raises:
        ServiceUnavailable: PostgreSQL does not answer within ten seconds or refuses the login.
    """
    try:
        connection = psycopg.connect(settings.postgres_url, connect_timeout=10)
    except psycopg.OperationalError as error:
        raise ServiceUnavailable(
            "PostgreSQL", " ".join(str(error).split()), "Start the platform with `make up`, or set RECSYS_POSTGRES_URL"
        ) from error
    with connection:
        yield connection


def apply_schema(settings: Settings) -> None:
    """Create the tables of `schema.sql` that are missing. Safe to run again and from two processes at once."""
    with connect(settings) as connection:
        connection.execute("select pg_advisory_xact_lock(hashtext('recsys schema'))")
        connection.execute(SCHEMA_SQL.read_text())


@dataclass(frozen=True)
class Outcome:
    """One judgement of one station about one subject on one day."""

    station: str
    outcome_date: date
    check_name: str
    observed: Any
    expected: Any
    verdict: Literal["pass", "warn", "fail"]
    subject: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


def write_outcomes(connection: psycopg.Connection, outcomes: list[Outcome]) -> None:
    """Write judgements; one with the same station, day, check and subject is replaced."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into monitoring.outcomes
                (station, outcome_date, check_name, subject, observed, expected, verdict, detail)
            values (%s, %s, %s, %s, %s, %s, %s, %s)
            on conflict (station, outcome_date, check_name, subject) do update set
                observed = excluded.observed, expected = excluded.expected,
                verdict = excluded.verdict, detail = excluded.detail
            """,
            [
                (o.station, o.outcome_date, o.check_name, o.subject, str(o.observed), str(o.expected), o.verdict,
                 json.dumps(o.detail, default=str))
                for o in outcomes
            ],
        )  # fmt: skip
