"""dbt builds the tiny warehouse: known answers, the same answers twice, after a kill, and with a late event.

The tests stand in the order of one story, each on the warehouse that the one before left.
"""

import json
import signal
import subprocess
from dataclasses import replace

import psycopg
import pytest
import tenacity

from expectations.__main__ import judge_door
from infra.local import warehouse_docs
from recsys import artifacts, receipts
from recsys.errors import CheckFailed, RecsysError
from recsys.settings import HOME, Settings
from recsys.task import command_environment, run_task, wanted_fingerprint
from recsys.warehouse import connect
from tests.worlds.warehouse import DBT_BUILD, EPOCH, INTERVAL, LAST_MILLISECOND, LATE_CLICK, insert, instant, land

MARTS = {
    "fct_interactions": "event_id",
    "fct_impressions": "event_id",
    "dim_users": "user_id",
    "dim_items": "item_id",
    "feat_user_activity": "user_id, event_timestamp",
    "feat_item_popularity": "item_id, event_timestamp",
    "feat_user_windows": "user_id, event_timestamp",
    "feat_item_windows": "item_id, event_timestamp",
    "feat_user_category_windows": "user_id, category, event_timestamp",
    "feat_item_prices": "item_id, event_timestamp",
    "agg_daily_engagement": "activity_date, domain",
    "agg_recommendation_funnel": "shown_date, rung",
    "agg_headlines": "domain, headline",
    "agg_daily_outcomes": "outcome_date, domain",
    "agg_sessions": "session_date, domain",
    "agg_cohort_retention": "domain, cohort_month, age_months",
    "agg_recommendation_effectiveness": "domain, variant, window_days",
    "agg_user_behaviour": "domain, user_id",
    "agg_user_categories": "domain, user_id, category",
    "agg_revenue_attribution": "domain, variant",
}

# The pipeline's command leaves dbt's unit tests to this suite, and what only people look at to `recsys_insight`.
LEFT_OUT = ("--exclude-resource-type", "unit_test", "--exclude", "tag:insight")
WITH_UNIT_TESTS = replace(DBT_BUILD, command=tuple(word for word in DBT_BUILD.command if word not in LEFT_OUT))


def rows(settings: Settings, query: str) -> list[tuple]:
    with connect(settings) as connection:
        connection.execute("set time zone 'UTC'")
        return connection.execute(query).fetchall()


def all_marts(settings: Settings) -> dict[str, list[tuple]]:
    return {mart: rows(settings, f"select * from marts.{mart} order by {key}") for mart, key in MARTS.items()}


@pytest.fixture(scope="module")
def built(world) -> Settings:
    """The world after its first build."""
    settings = world("postgres")
    with connect(settings) as connection:
        land(connection)
    assert run_task(settings, WITH_UNIT_TESTS)["unchanged"] is False
    return settings


def test_an_event_counts_once_and_only_before_as_of(built):
    facts = rows(
        built, "select event_id, occurred_at, occurred_date::text, source from marts.fct_interactions order by 1"
    )
    assert facts == [
        ("e1", instant(1, 10, 12), "2020-01-10", "films"),
        ("e2", instant(1, 10, 13), "2020-01-10", "films"),
        ("e3", instant(2, 20), "2020-02-20", "shelf"),
        ("e4", LAST_MILLISECOND, "2020-02-29", "films"),
        ("e6", instant(2, 10), "2020-02-10", "stream"),
    ]
    assert rows(built, "select event_id, source from marts.fct_impressions order by 1") == [
        ("i1", "stream"),
        ("i2", "stream"),
    ]


def test_a_user_of_two_domains_is_one_user(built):
    users = rows(built, "select user_id, domains, interaction_count, attributes from marts.dim_users order by 1")
    assert users == [
        ("u:ann", ["books", "movies"], 3, {"age": "25"}),
        ("u:bob", ["movies"], 2, {}),
        ("u:cyd", ["movies"], 0, {}),
    ]


def test_every_used_item_has_a_place(built):
    items = rows(built, "select item_id, title, interaction_count, is_available from marts.dim_items order by 1")
    assert items == [
        ("b:1", "A Book", 1, True),
        ("m:1", "Alpha", 2, True),
        ("m:2", "Beta", 1, True),
        ("m:3", "Delta", 0, True),
        ("m:9", "m:9", 1, False),
    ]


def test_user_features_cover_only_what_came_before(built):
    assert rows(built, "select * from marts.feat_user_activity order by 1, 2") == [
        ("u:ann", instant(1, 11), 2, 2, 2, 3.0),
        ("u:ann", instant(2, 21), 3, 1, 3, pytest.approx(11 / 3)),
        ("u:bob", instant(2, 11), 1, 1, 1, None),
        ("u:bob", instant(3, 1), 2, 2, 2, 3.0),
    ]


def test_item_features_are_stated_at_month_ends_and_as_of(built):
    assert rows(built, "select * from marts.feat_item_popularity order by 1, 2") == [
        ("b:1", instant(3, 1), 1, 1, 5.0),
        ("m:1", instant(2, 1), 1, 1, 4.0),
        ("m:1", instant(3, 1), 2, 2, 3.5),
        ("m:2", instant(2, 1), 1, 1, 2.0),
        ("m:2", instant(3, 1), 1, 1, 2.0),
        ("m:9", instant(3, 1), 1, 1, None),
    ]


def test_windows_are_stated_when_they_change(built):
    """events of 1, 7, 30 and 90 days, those without a rating, days since the last, sessions, mean rating."""
    assert rows(built, "select * from marts.feat_user_windows where user_id = 'u:bob' order by 2") == [
        ("u:bob", instant(2, 11), 1, 1, 1, 1, 1, 0, 1, None),
        ("u:bob", instant(2, 12), 0, 1, 1, 1, 1, 1, 1, None),
        ("u:bob", instant(2, 18), 0, 0, 1, 1, 1, 7, 1, None),
        ("u:bob", instant(3, 1), 1, 1, 2, 2, 1, 0, 2, 3.0),
    ]
    assert rows(built, "select * from marts.feat_item_windows where item_id = 'b:1' order by 2") == [
        ("b:1", instant(2, 21), 1, 1, 1, 1, 0, 0, pytest.approx(1), 5.0),
        ("b:1", instant(2, 22), 0, 1, 1, 1, 0, 1, pytest.approx(0.5 ** (1 / 30)), 5.0),
        ("b:1", instant(2, 28), 0, 0, 1, 1, 0, 7, pytest.approx(0.5 ** (7 / 30)), 5.0),
    ]


def test_what_people_look_at_is_countable_by_hand(built):
    sessions = rows(built, "select session_date::text, domain, sessions, events from marts.agg_sessions order by 1, 2")
    assert sessions == [
        ("2020-01-10", "movies", 2, 2),
        ("2020-02-10", "movies", 1, 1),
        ("2020-02-20", "books", 1, 1),
        ("2020-02-29", "movies", 1, 1),
    ]
    retention = rows(
        built,
        "select domain, cohort_month::text, age_months, active_users, cohort_users, is_complete"
        " from marts.agg_cohort_retention order by 1, 2, 3",
    )
    assert retention == [
        ("books", "2020-02-01", 0, 1, 1, False),
        ("movies", "2020-01-01", 0, 1, 1, True),
        ("movies", "2020-01-01", 1, 0, 1, True),
        ("movies", "2020-02-01", 0, 1, 1, True),
    ]
    headlines = dict(rows(built, "select headline, value from marts.agg_headlines where domain = 'movies'"))
    assert headlines == {
        "interactions": 2, "active_users": 1, "new_users": 1, "click_through_rate": 0, "conversion_rate": 0,
    }  # fmt: skip
    effect = rows(
        built, "select users, users_clicked, items_shown, coverage from marts.agg_recommendation_effectiveness"
    )
    assert effect == [(1, 0, 2, pytest.approx(2 / 3))] * 3


def test_the_pages_of_the_warehouse_show_every_table_and_who_reads_it(built):
    folder = warehouse_docs.write(built)
    catalogue = json.loads((folder / "catalog.json").read_text())["nodes"]
    assert {f"model.recsys.{mart}" for mart in MARTS} <= set(catalogue)
    assert (folder / "index.html").is_file()
    assert {name.split(".")[-1] for name in json.loads((folder / "manifest.json").read_text())["exposures"]} == {
        "executive_dashboard", "feature_services", "fitted_analytics", "recommender", "experiment_readings",
    }  # fmt: skip


@pytest.mark.usefixtures("great_expectations")
def test_the_doors_of_marts_and_features_let_it_through(built):
    marts = judge_door(built, "marts", INTERVAL)
    features = judge_door(built, "features", INTERVAL)
    assert marts["failed"] == features["failed"] == 0
    assert marts["checks"] > 10
    assert features["checks"] > 10
    verdicts = dict(
        rows(
            built,
            "select check_name || ' ' || subject, verdict from monitoring.outcomes where station = 'expectations'",
        )
    )
    assert verdicts["marts.half_on_available_items books,movies:fct_interactions.is_available"] == "pass"
    assert verdicts["marts.all_on_available_items books,movies:fct_interactions.is_available"] == "warn"
    assert verdicts["marts.made_up_rows_stand_alone books,movies:made_up_rows.is_mixed"] == "pass"
    assert len(verdicts) == marts["checks"] + features["checks"]


@pytest.mark.usefixtures("great_expectations")
def test_the_door_of_analyses_lets_it_through(built):
    """The vectors of the texts, which are none of dbt's, by hand."""
    vector = [1.0, *[0.0] * (artifacts.ITEM_TEXT_SIZE - 1)]
    items = rows(built, "select domain, item_id from marts.dim_items where is_available")
    with connect(built) as connection:
        insert(connection, artifacts.ITEM_TEXTS, [(*item, EPOCH, vector, INTERVAL.as_of) for item in items])
        for task in ("dbt.analytics", "analytics.texts"):
            receipts.record(connection, task, INTERVAL.key, "written by hand", {})
    judged = judge_door(built, "analysis", INTERVAL)
    assert (judged["failed"], judged["warned"]) == (0, 0)


@pytest.mark.usefixtures("great_expectations")
def test_made_up_users_beside_real_ones_are_not_silent(built):
    """One, in a domain: a warning names how many domains are mixed."""
    with connect(built) as connection:
        connection.execute(
            "insert into marts.dim_users select 'synthetic:u1', '{movies}', first_interaction_at, last_interaction_at,"
            " 1, attributes from marts.dim_users where user_id = 'u:ann'"
        )
        connection.execute("delete from monitoring.receipts where task = 'expectations.marts'")
    try:
        assert judge_door(built, "marts", INTERVAL)["failed"] == 0
        query = "select verdict, observed from monitoring.outcomes where check_name = 'marts.made_up_rows_stand_alone'"
        assert rows(built, query) == [("warn", "1 of 2 rows (50.0000%) unexpected")]
    finally:
        with connect(built) as connection:
            connection.execute("delete from marts.dim_users where user_id = 'synthetic:u1'")


@pytest.mark.usefixtures("great_expectations")
@pytest.mark.parametrize(
    ("door", "broken", "mended", "check"),
    [
        ("marts", "update marts.fct_interactions set rating = 9 where event_id = 'e1'",
         "update marts.fct_interactions set rating = 4 where event_id = 'e1'", "rating_in_scale"),
        ("features", "update marts.feat_user_activity set user_interactions_30d = 9 where user_id = 'u:ann'",
         "update marts.feat_user_activity set user_interactions_30d = 2 - user_interactions_total % 2"
         " where user_id = 'u:ann'", "total_covers_30_days"),
        ("features", "update marts.feat_user_windows set user_events_7d = 9 where event_timestamp = '2020-02-11'",
         "update marts.feat_user_windows set user_events_7d = 1 where event_timestamp = '2020-02-11'",
         "windows_hold_each_other"),
    ],
)  # fmt: skip
def test_a_broken_row_stops_the_door_and_leaves_no_receipt(built, door, broken, mended, check):
    task = f"expectations.{door}"
    with connect(built) as connection:
        connection.execute(broken)
        connection.execute("delete from monitoring.receipts where task = %s", (task,))
    pages = built.var_dir / "expectations" / door / "index.html"
    with pytest.raises(CheckFailed, match=rf"{door}\.{check} .*{pages}"):
        judge_door(built, door, INTERVAL)
    assert pages.is_file()
    assert rows(built, f"select from monitoring.receipts where task = '{task}'") == []
    with connect(built) as connection:
        connection.execute(mended)


def test_unchanged_inputs_are_not_built_again(built):
    assert run_task(built, WITH_UNIT_TESTS) == {"task": "dbt.build", "unchanged": True}


def test_killed_in_the_middle_and_run_again_gives_the_same_rows(built):
    undisturbed = all_marts(built)
    assert {mart for mart, found in undisturbed.items() if not found} == {"feat_item_prices"}  # nobody buys
    with psycopg.connect(built.postgres_url) as holder:
        holder.execute("lock table marts.feat_user_activity in access exclusive mode")
        child = subprocess.Popen(
            DBT_BUILD.command, cwd=HOME, env=command_environment(built), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until_blocked(built, child)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert run_task(built, DBT_BUILD)["unchanged"] is False
    assert all_marts(built) == undisturbed


@tenacity.retry(
    stop=tenacity.stop_after_delay(90), wait=tenacity.wait_fixed(0.05), retry=tenacity.retry_if_result(bool)
)
def _not_blocked(settings: Settings, child: subprocess.Popen) -> bool:
    assert child.poll() is None, "dbt ended before it met the lock"
    waiting = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    return not rows(settings, waiting)


def wait_until_blocked(settings: Settings, child: subprocess.Popen) -> None:
    """Return when dbt waits for the lock that the test holds: its build is then in the middle."""
    _not_blocked(settings, child)


def test_a_late_event_moves_the_rows_after_it_and_none_before(built):
    before = all_marts(built)
    with connect(built) as connection:
        insert(connection, "raw.interactions", [LATE_CLICK])
    assert run_task(built, DBT_BUILD)["unchanged"] is False

    assert rows(built, "select state, is_full from intermediate.builds") == [("complete", False)]
    assert rows(built, "select * from marts.feat_user_activity where user_id = 'u:bob' order by 2") == [
        ("u:bob", instant(2, 11), 1, 1, 1, None),
        ("u:bob", instant(2, 16), 2, 2, 2, None),
        ("u:bob", instant(3, 1), 3, 3, 3, 3.0),
    ]
    untouched = [row for row in before["feat_user_activity"] if row[0] == "u:ann" or row[1] < LATE_CLICK[4]]
    assert len(untouched) == 3
    assert set(untouched) <= set(all_marts(built)["feat_user_activity"])

    clicks = rows(built, "select item_id, is_clicked, clicked_at from marts.fct_impressions order by rank")
    assert clicks == [("m:2", True, instant(2, 15, 10)), ("m:1", False, None)]
    assert rows(built, "select impressions, clicks, click_through_rate from marts.agg_recommendation_funnel") == [
        (2, 1, 0.5)
    ]


def test_a_failed_test_ends_red_is_named_and_leaves_no_receipt(built):
    """The row breaks a rule that the raw schema does not hold."""
    with connect(built) as connection:
        insert(connection, "raw.interactions", [("e8", *LATE_CLICK[1:6], "stare", *LATE_CLICK[7:])])
        written = receipts.latest(connection, DBT_BUILD.name, INTERVAL.key)
    with pytest.raises(RecsysError, match="accepted_values_fct_interactions_event_type"):
        run_task(built, DBT_BUILD)
    with connect(built) as connection:
        assert receipts.latest(connection, DBT_BUILD.name, INTERVAL.key) == written
        assert (
            receipts.recall(connection, DBT_BUILD.name, INTERVAL.key, wanted_fingerprint(connection, DBT_BUILD)) is None
        )


def test_a_key_without_its_index_is_found(built):
    """dbt puts the index there with every build of the table; a hand may take it away."""
    ((index,),) = rows(
        built, "select indexrelid::regclass::text from pg_index where indrelid = 'marts.dim_items'::regclass"
    )
    dbt = ["dbt", "--quiet", "test", "--project-dir", "dbt", "--profiles-dir", "dbt", "--select", "key_by_index*"]
    said = ["--vars", '{"as_of": "2020-03-01", "domains": "movies"}']

    def tested() -> subprocess.CompletedProcess:
        return subprocess.run(
            [*dbt, *said], cwd=HOME, env=command_environment(built), check=False, capture_output=True, text=True
        )

    assert tested().returncode == 0
    with connect(built) as connection:
        connection.execute(f"drop index {index}")
    found = tested()
    assert found.returncode == 1
    assert "key_by_index_dim_items_item_id" in found.stdout
    assert "key_by_index_dim_users_user_id" not in found.stdout
