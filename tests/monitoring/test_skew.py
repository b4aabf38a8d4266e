"""Training-serving skew: what the ranker read, as serving keeps it, held against the marts of that instant."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from redis import Redis

from monitoring.check_skew import check_skew
from monitoring.skew import CHECK, MIN_VALUES, Logged, Skew, compare, logged_in, outcomes
from recsys.artifacts import ITEM_FEATURES, USER_FEATURES
from recsys.interval import Interval
from recsys.user_state import record_key
from recsys.warehouse import connect

AT = datetime(2020, 4, 9, 12, tzinfo=UTC)
INTERVAL = Interval(("movies",), date(2020, 4, 10))


def item(value: float | None, feature: str = "item_mean_rating") -> Logged:
    return Logged("item_id", "m1", feature, value, AT)


def test_equal_values_rounded_ones_and_two_unknown_ones_do_not_differ():
    offline = {("item_id", "m1", AT): {"item_mean_rating": 1 / 3, "item_interactions_total": None}}
    logged = [item(1 / 3), item(0.33333334), item(None, "item_interactions_total")]
    assert [(skew.compared, skew.differing) for skew in compare(logged, offline)] == [(1, 0), (2, 0)]


def test_other_values_and_values_on_one_side_only_differ():
    offline = {("item_id", "m1", AT): {"item_mean_rating": 3.0}}
    assert compare([item(3.0), item(3.1), item(None)], offline) == [Skew("item_mean_rating", 3, 2, 1)]


def test_what_the_marts_cannot_tell_is_not_compared():
    offline = {("item_id", "m1", AT): {"item_mean_rating": 3.0}, ("user_id", "u1", AT): None}
    unasked = Logged("user_id", "u1", "user_mean_rating", 9.0, AT)
    unheard = Logged("item_id", "m2", "item_mean_rating", 9.0, AT)
    logged = [item(9.0, "price"), unasked, unheard]
    assert compare(logged, offline) == []


def test_few_values_are_told_and_many_judged():
    few, many, fine = outcomes(
        [Skew("a", MIN_VALUES - 1, 40, 0), Skew("b", MIN_VALUES, 3, 0), Skew("c", MIN_VALUES, 2, 0)], INTERVAL
    )
    assert (few.verdict, many.verdict, fine.verdict) == ("pass", "warn", "pass")
    assert many.observed == "6.0% of 50 values differ"


def record(number: int, item_rating: float, user_total: float | None = 7.0) -> dict:
    return {
        "request_id": f"r{number}",
        "user_id": f"u{number % 2}",
        "answered_at": (AT + timedelta(seconds=number)).isoformat(),
        "ranker": {"model": "dcn_v2", "version": "1", "user_features": {"user_interactions_total": user_total}},
        "items": [{"item_id": "m1", "features": {"item_mean_rating": item_rating, "price": 5.0}}, {"item_id": "m9"}],
    }  # fmt: skip


def test_an_answer_without_a_ranker_logged_nothing():
    assert list(logged_in(record(0, 3.0) | {"ranker": None})) == []
    logged = [one.feature for one in logged_in(record(0, 3.0))]
    assert logged == ["user_interactions_total", "item_mean_rating", "price"]


MARTS = f"""
drop schema marts cascade;
create schema marts;
create table marts.fct_interactions as
    select 'u1' as user_id, timestamptz '2020-04-09 11:00+00' as occurred_at;
create table marts.feat_user_activity as
    select 'u' || n as user_id, timestamptz '2020-04-09 00:00+00' as event_timestamp,
        {", ".join(f"7 as {name}" for name in USER_FEATURES)} from generate_series(0, 1) n;
create table marts.feat_item_popularity as
    select 'm1' as item_id, timestamptz '2020-04-09 00:00+00' + d * interval '1 day' as event_timestamp,
        {", ".join(f"3.0 + d as {name}" for name in ITEM_FEATURES)} from generate_series(-1, 1) d
"""


@pytest.mark.services
def test_logged_features_are_held_against_the_marts_of_their_instant(world):
    settings = world("postgres", "redis")
    store = Redis.from_url(settings.redis_url)
    with connect(settings) as connection:
        connection.execute("truncate raw.impressions, monitoring.outcomes")
        connection.execute(MARTS)
        for number in range(100):  # every tenth answer read the facts of the day before
            logged = record(number, 2.0 if number % 10 == 0 else 3.0, 7.0 if number % 2 == 0 else 8.0)
            store.set(record_key(f"r{number}"), json.dumps(logged))
            connection.execute(
                """
                insert into raw.impressions (event_id, request_id, user_id, item_id, rank, score, domain, variant,
                    model_version, propensity, rung, shown_at)
                values (%s, %s, 'u', 'm1', 1, 0, 'movies', 'champion', '1', 1, 'personal', %s)
                """,
                (f"e{number}", f"r{number}", AT + timedelta(seconds=number)),
            )
    found = check_skew(settings, INTERVAL)
    assert found["differing"] == ["item_mean_rating"]
    assert found["warnings"] == [f"{CHECK} of item_mean_rating: 10.0% of 100 values differ, at most 5%"]
    with connect(settings) as connection:
        rows = connection.execute(
            "select subject, observed, verdict from monitoring.outcomes where check_name = %s order by 1", (CHECK,)
        ).fetchall()
    # u1 acted at eleven: the stream knows of it, the marts of midnight do not, so only u0 is compared
    assert rows == [
        ("item_mean_rating", "10.0% of 100 values differ", "warn"),
        ("user_interactions_total", "0.0% of 50 values differ", "pass"),
    ]
    store.delete(*[record_key(f"r{number}") for number in range(100)])
    assert check_skew(settings, INTERVAL)["compared"] == 0
