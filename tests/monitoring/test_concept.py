"""Answers whose quality, calibration or scores change, and answers of which nothing changes."""

from datetime import date

import numpy as np
import pytest

from monitoring.concept import Answers, judge_answers, judge_calibration, judge_quality, judge_scores
from recsys.interval import Interval
from recsys.warehouse import connect

REQUESTS, USERS, SHOWN = 2_000, 100, 5
CURRENT = np.arange(REQUESTS) >= 0.8 * REQUESTS


def answers(
    seed: int = 1, fall: float = 0.0, rise: float = 0.0, shift: float = 0.0, only_heavy: bool = False
) -> Answers:
    """Return answers whose scores are their chances of a click; in the current window a share `fall` of the clicks is
    gone, a share `rise` comes without reason, and scores are higher by `shift`."""
    rng = np.random.default_rng(seed)
    chance = -np.sort(-rng.uniform(0.05, 0.35, (REQUESTS, SHOWN)), axis=1)
    clicked = rng.random((REQUESTS, SHOWN)) < chance
    user = rng.integers(0, USERS, REQUESTS)
    before = np.where(user < 20, 0, user).astype(float)  # 0 to 19 are new; the median of the others is near 59
    hit = (CURRENT & (before > 70) if only_heavy else CURRENT)[:, None]
    clicked &= ~(hit & (rng.random(clicked.shape) < fall))
    clicked |= hit & (rng.random(clicked.shape) < rise)
    first = np.where(clicked.any(1), clicked.argmax(1) + 1, np.inf)
    return Answers(
        np.char.add("u", user.astype(str)), 1 / first, np.arange(REQUESTS, dtype=float), np.full(REQUESTS, "1"), before,
        list(chance + shift * CURRENT[:, None]), list(clicked),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_of_a_steady_stream_nothing_is_said(seed):
    steady = answers(seed)
    assert not judge_quality(steady, seed).is_drifted
    assert not judge_calibration(steady, seed).is_drifted
    assert not any(drift.is_drifted for drift in judge_scores(steady, seed))


def test_clicks_that_go_and_clicks_that_come_are_another_calibration():
    gone, come = answers(fall=0.5), answers(rise=0.15)
    assert judge_quality(gone, 1).is_drifted
    assert not judge_quality(come, 1).is_drifted  # more clicks are no fall of quality
    for found in (judge_calibration(gone, 1), judge_calibration(come, 1)):
        assert found.is_drifted
        assert found.reference_mean == pytest.approx(0, abs=1e-9)  # a score is worth what it was worth there
    assert not any(drift.is_drifted for drift in judge_scores(gone, 1))


def test_scores_that_move_are_prediction_drift_and_no_fall_of_quality():
    moved = answers(shift=0.1)
    assert all(drift.is_drifted for drift in judge_scores(moved, 1))
    assert not judge_quality(moved, 1).is_drifted
    assert judge_calibration(moved, 1).is_drifted  # they promise clicks that do not come


def test_a_fall_for_heavy_users_is_found_among_them_and_not_among_the_others():
    found = {name: judge_quality(of_segment, 1) for name, of_segment in answers(fall=0.9, only_heavy=True).segments()}
    assert found[" new"] is None  # 20 users in 400 requests
    assert found[" heavy"].is_drifted
    assert not found[" light"].is_drifted


def test_a_new_version_and_few_users_are_not_judged():
    many = answers()
    assert judge_calibration(many.where(np.arange(REQUESTS) >= REQUESTS - 499), 1) is None
    assert judge_scores(many.where(np.isin(many.user_id, [f"u{number}" for number in range(19)])), 1) is None


MARTS = """
drop schema marts cascade;
create schema marts;
create table marts.fct_impressions as
    select 'e' || n || k as event_id, 'r' || n as request_id, 'u' || n % 60 as user_id, 'i' || k as item_id,
        k as rank, 1.0::float8 / k as score, 'movies' as domain, 'champion' as variant, '7' as model_version,
        timestamptz '2020-01-01 00:00+00' + n * interval '1 minute' as shown_at,
        (n < 1600 or n % 4 = 0) and hashtextextended(n || '/' || k, 3) % 5 = 0 as is_clicked
    from generate_series(0, 1999) n, generate_series(1, 3) k;
create table marts.feat_user_activity as
    select 'u' || n as user_id, timestamptz '2019-12-31 00:00+00' as event_timestamp, n as user_interactions_total
    from generate_series(20, 59) n
"""


@pytest.mark.services
def test_the_marts_answers_are_judged_by_domain_segment_and_latest_version(world):
    settings = world("postgres")
    interval = Interval(("movies", "books"), date(2020, 1, 10))
    with connect(settings) as connection:
        connection.execute(MARTS)
        rows = {(row.check_name, row.subject): row for row in judge_answers(connection, "monitoring", interval, 1)}
        early = Interval(("movies",), date(2020, 1, 2))
        (*_, first) = judge_answers(connection, "monitoring", early, 1)
    judged = {key: row.verdict for key, row in rows.items() if not str(row.observed).startswith("not judged")}
    assert judged == {
        ("concept_drift", "movies"): "warn", ("concept_drift", "movies new"): "warn",
        ("concept_drift", "movies light"): "warn", ("concept_drift", "movies heavy"): "warn",
        ("calibration_drift", "movies"): "warn", ("prediction_drift", "movies"): "pass",
    }  # fmt: skip
    assert {subject for _, subject in rows} >= {"books", "books new"}
    assert first.observed == "not judged: too few requests"  # no click had a day to come
