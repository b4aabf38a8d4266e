"""Concept and prediction drift: do people still want what is shown to them, are scores still worth as many clicks, and
does the model still give the same scores? Judged on requests whose clicks have had time to come.

Shapes: N requests, K items of one request.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import psycopg

from monitoring.drift import Column, Drift, measure
from monitoring.replay import MIN_UNITS
from monitoring.stream import StreamDrift, judge_stream
from monitoring.windows import CURRENT_SHARE
from recsys import columns as c
from recsys.artifacts import FCT_IMPRESSIONS, FEAT_USER_ACTIVITY
from recsys.experiments import INTERLEAVED, POPULAR, SHUFFLE
from recsys.interval import Interval
from recsys.warehouse import Outcome

CONCEPT, CALIBRATION, PREDICTION = "concept_drift", "calibration_drift", "prediction_drift"
LABEL_DELAY = timedelta(days=1)
"""A click that has not come by then does not come."""
MIN_REQUESTS = 500
MOST_REQUESTS = 20_000
"""The latest so many requests of a domain."""
SCORE_BINS = 10


@dataclass(frozen=True)
class Answers:
    """The latest answers of a domain in the order of time, of those whose order is the model's."""

    user_id: np.ndarray  # (N,)
    quality: np.ndarray  # (N,)
    """One over the rank of the first click, 0 without one."""
    at: np.ndarray  # (N,)
    """Seconds since 1970."""
    version: np.ndarray  # (N,)
    before: np.ndarray  # (N,)
    """Events of the user before the first of these answers."""
    scores: list[np.ndarray]  # N of (K,)
    clicked: list[np.ndarray]  # N of (K,)

    def taken(self, at: np.ndarray) -> "Answers":
        """Return the answers at these places, in this order."""
        lists = ([one[place] for place in at] for one in (self.scores, self.clicked))
        columns = (self.user_id, self.quality, self.at, self.version, self.before)
        return Answers(*(column[at] for column in columns), *lists)

    def where(self, kept: np.ndarray) -> "Answers":
        return self.taken(np.flatnonzero(kept))

    def segments(self) -> Iterator[tuple[str, "Answers"]]:
        """Yield all answers under no name, then those to new, light and heavy users."""
        yield "", self
        active = self.before > 0
        middle = np.median(self.before[active]) if active.any() else 0.0
        heavy = self.before > middle
        for name, kept in (("new", ~active), ("light", active & ~heavy), ("heavy", heavy)):
            yield f" {name}", self.where(kept)

    def windows(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return which answers are the reference's and which the current window's, the last fifth of the time; None
        where they are too few to be judged."""
        if len(self.at) < MIN_REQUESTS:
            return None
        is_current = self.at >= self.at[-1] - (self.at[-1] - self.at[0]) * CURRENT_SHARE
        few = min(len(np.unique(self.user_id[window])) for window in (is_current, ~is_current)) < MIN_UNITS
        return None if few else (~is_current, is_current)


def judge_answers(connection: psycopg.Connection, station: str, interval: Interval, seed: int) -> list[Outcome]:
    """Return an outcome for each check and segment: the quality of all answers of a domain and of those to its new,
    light and heavy users; calibration and scores of the version that answered last.
    """
    (exists,) = connection.execute("select to_regclass(%s) is not null", (FCT_IMPRESSIONS,)).fetchone()
    rows = []
    for domain in interval.domains if exists else ():
        answers = read_answers(connection, interval, domain)
        for segment, of_segment in answers.segments():
            rows.append(_told(station, interval, CONCEPT, domain + segment, judge_quality(of_segment, seed)))
        latest = answers.where(answers.version == answers.version[-1]) if len(answers.at) else answers
        rows.append(_told(station, interval, CALIBRATION, domain, judge_calibration(latest, seed)))
        rows.append(_scores_told(station, interval, domain, judge_scores(latest, seed)))
    return rows


def judge_quality(answers: Answers, seed: int) -> StreamDrift | None:
    """Return whether answers are clicked less; None where there are too few."""
    windows = answers.windows()
    return None if windows is None else _judged(answers, answers.quality, windows, seed)


def judge_calibration(answers: Answers, seed: int) -> StreamDrift | None:
    """Return whether a score is worth more or fewer clicks than it was; None where there are too few answers.

    What a score is worth is the share of clicks in its decile in the reference window, so that any scale of scores will
    do. The stream is each answer's clicks beyond what its scores are worth, judged for a fall and for a rise: the one
    that is further beyond its threshold.
    """
    windows = answers.windows()
    if windows is None:
        return None
    places = np.repeat(np.arange(len(answers.at)), [len(one) for one in answers.scores])
    scores, clicked = np.concatenate(answers.scores), np.concatenate(answers.clicked).astype(float)
    of_reference = windows[0][places]
    edges = np.unique(np.quantile(scores[of_reference], np.linspace(0, 1, SCORE_BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, scores, side="right")
    shown = np.bincount(bins[of_reference], minlength=len(edges) + 1)
    worth = np.bincount(bins[of_reference], clicked[of_reference], len(edges) + 1) / np.maximum(shown, 1)
    beyond = np.bincount(places, clicked - worth[bins], len(answers.at)) / np.bincount(
        places, minlength=len(answers.at)
    )
    both = [_judged(answers, sign * beyond, windows, seed) for sign in (1, -1)]
    return max(both, key=lambda found: found.statistic / max(found.threshold, 1e-12))


def judge_scores(answers: Answers, seed: int) -> list[Drift] | None:
    """Return whether the scores of what is shown are distributed otherwise; None where there are too few answers."""
    windows = answers.windows()
    if windows is None:
        return None
    counts = np.array([len(one) for one in answers.scores])
    scores, users = np.concatenate(answers.scores), np.repeat(answers.user_id, counts)
    reference, current = (np.repeat(window, counts) for window in windows)
    column = Column("score", "number", scores[reference], users[reference], scores[current], users[current])
    return measure([column], seed)


def _judged(
    answers: Answers, values: np.ndarray, windows: tuple[np.ndarray, np.ndarray], seed: int
) -> StreamDrift:  # fmt: skip
    reference, current = windows
    return judge_stream(
        values[reference], values[current], (answers.user_id[reference], answers.user_id[current]), seed
    )


def read_answers(connection: psycopg.Connection, interval: Interval, domain: str) -> Answers:
    """Return the latest answers whose clicks have had time to come."""
    rows = connection.execute(
        QUERY,
        {
            "domain": domain, "end": interval.end - LABEL_DELAY, "left_out": [POPULAR, SHUFFLE, INTERLEAVED],
            "most": MOST_REQUESTS,
        },
        binary=True,
    ).fetchall()[::-1]  # fmt: skip
    users, quality, at, version, before, scores, clicked = list(zip(*rows, strict=True)) or [()] * 7
    return Answers(
        np.array(users, str), np.array(quality, float), np.array(at, float), np.array(version, str),
        np.array(before, float), [np.array(one, float) for one in scores], [np.array(one, bool) for one in clicked],
    )  # fmt: skip


QUERY = f"""
    with

    answers as materialized (

        select
            min({c.USER_ID}) as {c.USER_ID},
            coalesce(max(1.0 / {c.RANK}) filter (where is_clicked), 0)::float8 as quality,
            extract(epoch from min({c.SHOWN_AT}))::float8 as at,
            min(model_version) as version,
            array_agg(score order by {c.RANK}) as scores,
            array_agg(is_clicked order by {c.RANK}) as clicked,
            {c.REQUEST_ID}
        from {FCT_IMPRESSIONS}
        where {c.DOMAIN} = %(domain)s and {c.SHOWN_AT} < %(end)s and not {c.VARIANT} = any(%(left_out)s)
        group by {c.REQUEST_ID}
        order by 3 desc, {c.REQUEST_ID} limit %(most)s

    ),

    known as (

        select users.{c.USER_ID}, states.user_interactions_total
        from (select distinct {c.USER_ID} from answers) as users
        cross join lateral (
            select user_interactions_total from {FEAT_USER_ACTIVITY}
            where
                {c.USER_ID} = users.{c.USER_ID}
                and {c.EVENT_TIMESTAMP} <= (select to_timestamp(min(at)) from answers)
            order by {c.EVENT_TIMESTAMP} desc limit 1
        ) as states

    )

    select {c.USER_ID}, quality, at, version, coalesce(user_interactions_total, 0)::float8, scores, clicked
    from answers
    left join known using ({c.USER_ID})
    order by at desc, {c.REQUEST_ID}
"""


def _told(station: str, interval: Interval, check: str, subject: str, found: StreamDrift | None) -> Outcome:
    if found is None:
        return Outcome(station, interval.as_of, check, "not judged: too few requests", "told", "pass", subject)
    detail: dict[str, Any] = {"reference": found.reference_mean, "current": found.current_mean, "first": found.alarm_at}
    return Outcome(
        station,
        interval.as_of,
        check,
        f"{found.statistic:.3f}",
        f"Page-Hinkley <= {found.threshold:.3f}",
        "warn" if found.is_drifted else "pass",
        subject,
        detail,
    )


def _scores_told(station: str, interval: Interval, domain: str, found: list[Drift] | None) -> Outcome:
    """Return one row of both distances: the one that drifted, else the first."""
    judged = [drift for drift in found or () if drift.score is not None]
    if not judged:
        return Outcome(station, interval.as_of, PREDICTION, "not judged: too few requests", "told", "pass", domain)
    drift = max(judged, key=lambda one: one.is_drifted)
    return Outcome(
        station,
        interval.as_of,
        PREDICTION,
        f"{drift.score:.4f}",
        f"{drift.method} <= {drift.threshold:.4f}",
        "warn" if drift.is_drifted else "pass",
        domain,
        {one.method: {"score": one.score, "largest_of_chance": one.chance} for one in judged},
    )
