"""Concept drift: do people still want what is shown to them? Judged on requests whose clicks have had time to come."""

from datetime import timedelta
from typing import Any

import numpy as np
import psycopg

from monitoring.replay import MIN_UNITS
from monitoring.stream import StreamDrift, judge_stream
from monitoring.windows import CURRENT_SHARE
from recsys import columns as c
from recsys.artifacts import FCT_IMPRESSIONS
from recsys.experiments import INTERLEAVED, POPULAR, SHUFFLE
from recsys.interval import Interval
from recsys.warehouse import Outcome

CHECK = "concept_drift"
LABEL_DELAY = timedelta(days=1)
"""A click that has not come by then does not come."""
MIN_REQUESTS = 500
MOST_REQUESTS = 20_000
"""The latest so many requests of a segment."""


def judge_concept(
    connection: psycopg.Connection, interval: Interval, seed: int
) -> list[tuple[str, StreamDrift | None]]:
    """Return the judgement on each segment, a domain; None where there are too few requests.

    The quality of an answer is one over the rank of the first click in it, 0 without one. Answers whose order is not
    the model's are left out.
    """
    (exists,) = connection.execute("select to_regclass(%s) is not null", (FCT_IMPRESSIONS,)).fetchone()
    return [(domain, _judge(connection, interval, domain, seed)) for domain in interval.domains if exists]


def _judge(connection: psycopg.Connection, interval: Interval, domain: str, seed: int) -> StreamDrift | None:
    rows = connection.execute(
        f"""
        select
            min({c.USER_ID}),
            coalesce(max(1.0 / {c.RANK}) filter (where is_clicked), 0)::float8,
            extract(epoch from min({c.SHOWN_AT}))::float8
        from {FCT_IMPRESSIONS}
        where {c.DOMAIN} = %s and {c.SHOWN_AT} < %s and not {c.VARIANT} = any(%s)
        group by {c.REQUEST_ID}
        order by 3 desc, {c.REQUEST_ID} limit %s
        """,
        (domain, interval.end - LABEL_DELAY, [POPULAR, SHUFFLE, INTERLEAVED], MOST_REQUESTS),
        binary=True,
    ).fetchall()
    if len(rows) < MIN_REQUESTS:
        return None
    users, quality, at = (np.array(column)[::-1] for column in zip(*rows, strict=True))
    is_current = at >= at[-1] - (at[-1] - at[0]) * CURRENT_SHARE
    windows = ~is_current, is_current
    if min(len(np.unique(users[window])) for window in windows) < MIN_UNITS:
        return None
    return judge_stream(quality[windows[0]], quality[windows[1]], (users[windows[0]], users[windows[1]]), seed)


def outcome(station: str, interval: Interval, domain: str, found: StreamDrift | None) -> Outcome:
    """Return the judgement as a row."""
    if found is None:
        return Outcome(station, interval.as_of, CHECK, "not judged: too few requests", "told", "pass", domain)
    detail: dict[str, Any] = {"reference": found.reference_mean, "current": found.current_mean, "first": found.alarm_at}
    return Outcome(
        station,
        interval.as_of,
        CHECK,
        f"{found.statistic:.3f}",
        f"Page-Hinkley <= {found.threshold:.3f}",
        "warn" if found.is_drifted else "pass",
        domain,
        detail,
    )
