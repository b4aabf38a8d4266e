"""Is the champion still clicked as it was? Looked at often, from the raw tables.

`concept.py` asks the same of the marts, once a day. Only the champion's own answers count here, so that a new one
begins with a clean slate.
"""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import psycopg

from monitoring.concept import MIN_REQUESTS, MOST_REQUESTS
from monitoring.replay import MIN_UNITS
from monitoring.stream import StreamDrift, judge_stream
from monitoring.windows import CURRENT_SHARE
from recsys import columns as c
from recsys.artifacts import RAW_IMPRESSIONS, RAW_INTERACTIONS
from recsys.experiments import INTERLEAVED, POPULAR, SHUFFLE
from recsys.promotion import CHECK_LIVE_QUALITY
from recsys.registry import champion_of
from recsys.settings import Settings
from recsys.warehouse import Outcome, connect, write_outcomes

STATION = "monitoring"
LONGEST_QUEUE = timedelta(minutes=15)
"""Older than this the newest event that landed is no sign of a queue, but of users who stay away."""


def watch(settings: Settings, now: datetime) -> dict[str, Any]:
    """Judge the quality of the champion's latest answers and write an outcome row; an alarm is a warning.

    Raises:
        ServiceUnavailable: the registry or the warehouse does not answer.
    """
    champion = champion_of(settings.mlflow_url)
    if champion is None:
        return {"champion": None, "fell": False, "unchanged": True}
    delay = timedelta(seconds=settings.label_delay_seconds)
    with connect(settings) as connection:
        requests = _read(connection, champion, _heard_until(connection, now) - delay)
        found = _judge(*requests, settings.seed)
        row = _outcome(champion, len(requests[0]), found, now)
        write_outcomes(connection, [row])
    fell = found is not None and found.is_drifted
    return {"champion": champion, "fell": fell, "observed": row.observed, "unchanged": not fell}


def _heard_until(connection: psycopg.Connection, now: datetime) -> datetime:
    """Return until when the stream has landed what users did: behind a queue in the log, clicks that were made are not
    there yet, and answers without them would look like bad ones. Where nobody does anything for long, that is news."""
    query = f"select max({c.OCCURRED_AT}) from {RAW_INTERACTIONS} where source = 'stream' and {c.OCCURRED_AT} <= %s"
    (newest,) = connection.execute(query, (now,)).fetchone()
    return max(newest, now - LONGEST_QUEUE) if newest else now


def _read(connection: psycopg.Connection, champion: str, end: datetime) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return user, quality (one over the rank of the first click, else 0) and instant of the latest requests, the
    earliest first. Each (N,)."""
    connection.execute("set local enable_nestloop = off")  # without statistics it is taken, and does not end
    rows = connection.execute(
        QUERY,
        {"champion": champion, "end": end, "left_out": [POPULAR, SHUFFLE, INTERLEAVED], "most": MOST_REQUESTS},
        binary=True,
    ).fetchall()
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    users, quality, at = (
        np.array(column, kind)[::-1] for column, kind in zip(columns, (str, float, float), strict=True)
    )
    return users, quality, at


def _judge(users: np.ndarray, quality: np.ndarray, at: np.ndarray, seed: int) -> StreamDrift | None:
    """Return the judgement; None with too few requests or users in a window."""
    if len(users) < MIN_REQUESTS:
        return None
    is_current = at >= at[-1] - (at[-1] - at[0]) * CURRENT_SHARE
    if min(len(np.unique(users[window])) for window in (is_current, ~is_current)) < MIN_UNITS:
        return None
    return judge_stream(quality[~is_current], quality[is_current], (users[~is_current], users[is_current]), seed)


def _outcome(champion: str, requests: int, found: StreamDrift | None, now: datetime) -> Outcome:
    detail: dict[str, Any] = {"at": now.isoformat(), "requests": requests}
    if found is None:
        observed, expected = f"not judged: {requests} requests", "told"
    else:
        observed, expected = f"{found.statistic:.3f}", f"Page-Hinkley <= {found.threshold:.3f}"
        fall = 1 - found.current_mean / found.reference_mean if found.reference_mean else 0.0
        detail |= {"reference": found.reference_mean, "current": found.current_mean, "fall": fall}
    is_alarm = found is not None and found.is_drifted
    subject = f"version {champion}" + (f" at {now:%H:%M:%S}" if is_alarm else "")  # no later look replaces an alarm
    return Outcome(
        STATION, now.date(), CHECK_LIVE_QUALITY, observed, expected, "warn" if is_alarm else "pass", subject, detail
    )


QUERY = f"""
    with

    shown as materialized (

        select {c.REQUEST_ID}, {c.USER_ID}, {c.ITEM_ID}, {c.RANK}, {c.SHOWN_AT}
        from {RAW_IMPRESSIONS}
        where model_version = %(champion)s and {c.SHOWN_AT} < %(end)s and not {c.VARIANT} = any(%(left_out)s)
        order by {c.SHOWN_AT} desc limit 20 * %(most)s

    ),

    clicks as materialized (

        select
            {c.USER_ID}, {c.ITEM_ID}, {c.OCCURRED_AT},
            case when context is json object then context::jsonb ->> 'request_id' end as {c.REQUEST_ID}
        from {RAW_INTERACTIONS}
        where
            source = 'stream' and {c.EVENT_TYPE} = 'click'
            and {c.OCCURRED_AT} >= (select min({c.SHOWN_AT}) from shown)

    ),

    clicked as materialized (

        select distinct shown.{c.REQUEST_ID}, shown.{c.USER_ID}, shown.{c.ITEM_ID}
        from shown
        inner join clicks using ({c.REQUEST_ID}, {c.USER_ID}, {c.ITEM_ID})
        where {c.OCCURRED_AT} >= {c.SHOWN_AT}

    )

    select
        min(shown.{c.USER_ID}),
        coalesce(max(1.0 / {c.RANK}) filter (where clicked.{c.ITEM_ID} is not null), 0)::float8,
        extract(epoch from min({c.SHOWN_AT}))::float8
    from shown
    left join clicked using ({c.REQUEST_ID}, {c.USER_ID}, {c.ITEM_ID})
    group by shown.{c.REQUEST_ID}
    order by 3 desc, shown.{c.REQUEST_ID} limit %(most)s
"""
