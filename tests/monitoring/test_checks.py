"""The drift and freshness checks on the real warehouse: outcome rows, report, receipt, and red on nothing."""

import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from monitoring.check_drift import check_drift
from monitoring.freshness import check_freshness
from monitoring.keep_reference import keep_reference
from recsys import receipts
from recsys.artifacts import FCT_INTERACTIONS, FEAT_ITEM_POPULARITY, FEAT_USER_ACTIVITY
from recsys.errors import CheckFailed, MissingArtifact
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.warehouse import connect
from tests.worlds.served import write_world

pytestmark = pytest.mark.services

AS_OF = date(2020, 4, 10)
INTERVAL = Interval(("movies",), AS_OF)
NOW = datetime(2020, 4, 12, tzinfo=UTC)

# 10 000 events, one every 14.4 minutes from 1 January, 100 days; every user and item has a feature row each day.
MARTS = """
drop schema marts cascade;
create schema marts;
create table marts.fct_interactions as
    select 'e' || n as event_id, 'u' || n % 50 as user_id, 'm' || n % 50 as item_id, 'movies' as domain,
        case when n % 2 = 0 then 'view' else 'click' end as event_type,
        case when n % 3 = 0 then null else (n * 7919 % 10) / 2.0 end as rating,
        timestamptz '2020-01-01 00:00+00' + n * interval '864 seconds' as occurred_at
    from generate_series(0, 9999) n;
create table marts.dim_users as select 'u' || n as user_id, array['movies'] as domains from generate_series(0, 49) n;
create table marts.dim_items as
    select 'm' || n as item_id, 'movies' as domain, array['c' || n % 5] as categories from generate_series(0, 49) n;
create table marts.feat_user_activity as
    select 'u' || n as user_id, timestamptz '2020-01-02 00:00+00' + d * interval '24 hours' as event_timestamp,
        (n * 31 + d * 17) % 40 as user_interactions_total, (n * 31 + d * 17) % 20 as user_interactions_30d,
        (n * 31 + d * 17) % 30 as user_distinct_items, ((n * 31 + d * 17) % 10) / 2.0 as user_mean_rating
    from generate_series(0, 49) n, generate_series(0, 99) d;
create table marts.feat_item_popularity as
    select 'm' || n as item_id, timestamptz '2020-01-02 00:00+00' + d * interval '24 hours' as event_timestamp,
        (n * 31 + d * 17) % 40 as item_interactions_total, (n * 31 + d * 17) % 20 as item_interactions_90d,
        null::float8 as item_mean_rating
    from generate_series(0, 49) n, generate_series(0, 99) d
"""


@pytest.fixture
def settings(world) -> Settings:
    settings = world("postgres")
    with connect(settings) as connection:
        connection.execute("truncate raw.interactions, raw.impressions, monitoring.outcomes, monitoring.receipts")
        connection.execute(MARTS)
        receipts.record(connection, "dbt.build", INTERVAL.key, "built by hand", {})
    return settings


def outcomes(settings: Settings, check: str) -> dict[str, tuple[str, str, str]]:
    with connect(settings) as connection:
        query = "select subject, observed, expected, verdict from monitoring.outcomes where check_name = %s"
        return {subject: tuple(rest) for subject, *rest in connection.execute(query, (check,))}


def test_a_steady_world_has_no_drift_and_is_checked_once(settings):
    result = check_drift(settings, INTERVAL)
    assert result["drifted"] == []
    assert (result["columns"], result["judged"], result["unchanged"]) == (10, 9, False)  # no item has a mean rating
    assert result["cut"] == (datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=0.8 * 9999 * 864)).isoformat()
    assert {verdict for *_, verdict in outcomes(settings, "drift").values()} == {"pass"}
    assert outcomes(settings, "drift")["marts.feat_item_popularity.item_mean_rating"][0].startswith("not judged")

    write_world(settings.served_model)  # what the run's own deployment does after the check
    assert check_drift(settings, INTERVAL) == result | {"unchanged": True}
    shutil.rmtree(settings.served_model)
    Path(result["report"]).unlink()
    assert check_drift(settings, INTERVAL) == result


def test_planted_drift_is_found_where_it_was_planted(settings):
    with connect(settings) as connection:
        connection.execute("update marts.fct_interactions set event_type = 'view' where occurred_at >= '2020-03-25'")
        connection.execute(
            """
            update marts.feat_user_activity set user_interactions_30d = user_interactions_30d + 3
            where event_timestamp >= '2020-03-22'
            """
        )
    result = check_drift(settings, INTERVAL)
    expected = {f"{FCT_INTERACTIONS}.event_type", f"{FEAT_USER_ACTIVITY}.user_interactions_30d"}
    assert set(result["drifted"]) == expected
    assert {subject for subject, (*_, verdict) in outcomes(settings, "drift").items() if verdict == "warn"} == expected


def test_what_came_since_the_training_is_held_against_the_histograms_of_registration(settings):
    """The reference is kept on 20 February. It lacks mean ratings of items, and knows one domain only."""
    earlier = Interval(("movies",), date(2020, 2, 20))
    with pytest.raises(MissingArtifact, match=r"training\.register"):
        keep_reference(settings, earlier)
    with connect(settings) as connection:
        receipts.record(connection, "training.register", earlier.key, "f", {"cut_id": "cut-even"})
    assert keep_reference(settings, earlier) == {"unchanged": False, "cut_id": "cut-even", "columns": 10}
    assert keep_reference(settings, earlier)["unchanged"]
    assert check_drift(settings, INTERVAL)["drifted_since_training"] == []  # nothing is served
    assert outcomes(settings, "drift_since_training") == {}

    write_world(settings.served_model)
    again(settings)
    assert check_drift(settings, INTERVAL)["drifted_since_training"] == []
    told = outcomes(settings, "drift_since_training")
    assert len(told) == 10
    assert {verdict for *_, verdict in told.values()} == {"pass"}

    with connect(settings) as connection:
        connection.execute("update marts.fct_interactions set event_type = 'share' where occurred_at >= '2020-03-25'")
        connection.execute(
            "update marts.feat_item_popularity set item_mean_rating = 3 where event_timestamp > '2020-03-01'"
        )
    again(settings)
    drifted = {f"{FCT_INTERACTIONS}.event_type", f"{FEAT_ITEM_POPULARITY}.item_mean_rating"}
    assert set(check_drift(settings, INTERVAL)["drifted_since_training"]) == drifted
    shutil.rmtree(settings.served_model)


def again(settings: Settings) -> None:
    with connect(settings) as connection:
        connection.execute("delete from monitoring.receipts where task = 'monitoring.drift'")


def test_no_events_are_red_and_so_are_marts_that_were_not_built(settings):
    with connect(settings) as connection:
        connection.execute("delete from marts.fct_interactions")
    with pytest.raises(CheckFailed, match="no events"):
        check_drift(settings, INTERVAL)
    with pytest.raises(MissingArtifact, match=r"dbt\.build"):
        check_drift(settings, Interval(("books",), AS_OF))


def test_other_domains_and_later_events_are_not_looked_at(settings):
    with connect(settings) as connection:
        connection.execute(
            """
            insert into marts.fct_interactions
            select 'x' || n || domain, 'u1', 'm1', domain, 'share', 5, at
            from
                generate_series(1, 9000) n,
                (values ('books', timestamptz '2020-04-01 00:00+00'), ('movies', '2020-04-11 00:00+00')) t (domain, at)
            """
        )
    assert check_drift(settings, INTERVAL)["drifted"] == []


def test_a_mart_that_does_not_follow_its_raw_table_is_stale(settings):
    newest = datetime(2020, 4, 9, 23, 45, 36, tzinfo=UTC)
    with connect(settings) as connection:
        insert = """
            insert into raw.interactions
                (event_id, user_id, item_id, occurred_at, domain, event_type, source, landed_partition)
            values (%s, 'u1', 'm1', %s, %s, 'view', 'films', 'history')"""
        connection.execute(insert, ("e1", newest, "movies"))
        connection.execute(insert, ("e2", NOW, "movies"))  # after the interval: no mart of it should hold this
        connection.execute(insert, ("e3", newest, "books"))
        result = check_freshness(connection, INTERVAL, NOW)
    assert result["stale"] == []
    assert result["age_seconds"]["raw.interactions"] == 0
    assert result["age_seconds"][FCT_INTERACTIONS] == (NOW - newest).total_seconds()
    assert result["age_seconds"]["marts.fct_impressions"] is None
    assert outcomes(settings, "freshness")["raw.interactions"] == ("0.0 h old", "told, not judged", "pass")

    with connect(settings) as connection:
        late = newest - timedelta(days=1, hours=1)
        connection.execute("delete from marts.fct_interactions where occurred_at > %s", (late,))
        result = check_freshness(connection, INTERVAL, NOW)
    assert result["stale"] == [FCT_INTERACTIONS]
    assert outcomes(settings, "freshness")[FCT_INTERACTIONS][1:] == ("at most 1 day behind raw.interactions", "warn")
