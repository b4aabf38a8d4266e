"""The door of the features for analyses, on tables by hand: green, and red for each row that is broken."""

import pytest

from expectations.__main__ import judge_door
from recsys import artifacts, receipts
from recsys.errors import CheckFailed, MissingArtifact
from recsys.settings import Settings
from recsys.warehouse import connect
from tests.worlds.warehouse import EPOCH, FEATURE_TABLES, INTERVAL, insert, instant

pytestmark = pytest.mark.usefixtures("great_expectations")

CORE_TABLES = """
create table marts.dim_users (user_id text, interaction_count bigint);
create table marts.dim_items (
    item_id text, domain text, categories text[], interaction_count bigint, is_available boolean);
create table marts.fct_interactions (user_id text, item_id text)
"""
UNIT = [1.0, *[0.0] * (artifacts.ITEM_TEXT_SIZE - 1)]

# user_id, category, event_timestamp, events of 1, 7, 30, 90 days, implicit, days since, mean rating
SOUND_WINDOWS = [
    ("u:ann", "Drama", instant(1, 11), 1, 1, 1, 1, 0, 0, 4.0),
    ("u:ann", "Drama", instant(1, 12), 0, 1, 1, 1, 0, 1, 4.0),
    ("u:bob", "Drama", instant(1, 11), 1, 1, 1, 1, 1, 0, None),
]
TORN_WINDOWS = [
    ("u:ann", "", instant(1, 13), 0, 1, 1, 1, 0, 2, 4.0),
    ("u:ann", "Drama", instant(1, 14), 0, 2, 1, 1, 0, 3, 4.0),
    ("u:ann", "Drama", instant(1, 15), 0, 1, 1, 1, 0, 4, 7.0),
    ("u:ann", "Drama", instant(1, 16), 0, 1, 1, 1, 0, 5, None),
    ("u:ann", "Drama", instant(3, 2), 0, 0, 0, 1, 0, 50, 4.0),
]
# item_id, event_timestamp, price, price to mean, mean of 90 days, sold
SOUND_PRICES = [("m:1", instant(1, 11), 9.5, 1.0, 9.5, 2.0), ("m:1", instant(2, 11), 10.5, 1.05, 10.0, 4.0)]
BROKEN_PRICES = [
    ("m:2", instant(1, 11), -1.0, 1.0, -1.0, 1.0),
    ("m:2", instant(3, 2), 900.0, 100.0, 450.0, 1.0),
]
# domain, item_id, event_timestamp, vector, as_of
SOUND_TEXTS = [("movies", "m:1", EPOCH, UNIT, INTERVAL.as_of), ("movies", "m:2", EPOCH, UNIT, INTERVAL.as_of)]
BROKEN_TEXTS = [
    ("movies", "m:3", EPOCH, [float("nan"), *UNIT[1:]], INTERVAL.as_of),
    ("movies", "m:4", instant(3, 2), [0.0] * artifacts.ITEM_TEXT_SIZE, INTERVAL.as_of),
    ("movies", "m:5", EPOCH, UNIT[:2], instant(2, 1).date()),
    ("social", "r:1", EPOCH, [9.0], instant(2, 1).date()),  # of a domain that is not judged
]
BREAKS = {
    "windows_known_by_as_of", "category_is_named", "windows_hold_each_other", "mean_rating_in_scale",
    "rated_has_mean_rating", "every_user_of_categories_has_windows", "known_by_as_of", "price_not_negative",
    "mean_price_not_negative", "each_row_sells", "of_this_day", "vector_has_its_size",
    "vector_is_of_unit_length_at_most", "item_is_known", "most_used_items_have_vectors",
}  # fmt: skip


@pytest.fixture(scope="module")
def offered(world) -> Settings:
    settings = world("postgres")
    with connect(settings) as connection:
        connection.execute(FEATURE_TABLES)
        connection.execute(CORE_TABLES)
        insert(connection, artifacts.DIM_USERS, [("u:ann", 1), ("u:bob", 1), ("u:cyd", 0), ("u:dan", 1)])
        items = [("m:1", "movies", ["Drama"], 2, True), ("m:2", "movies", ["Drama"], 0, True)]
        items += [("m:3", "movies", [], 1, True), ("m:9", "movies", [], 1, False), ("r:1", "social", [], 1, True)]
        insert(connection, artifacts.DIM_ITEMS, items)
        events = [("u:ann", "m:1"), ("u:bob", "m:1"), ("u:dan", "m:3")]
        insert(connection, artifacts.FCT_INTERACTIONS, events)
        receipts.record(connection, "dbt.analytics", INTERVAL.key, "built by hand", {})
    return settings


def fill(settings: Settings, windows: list, prices: list, texts: list) -> None:
    with connect(settings) as connection:
        for table, rows in (
            (artifacts.FEAT_USER_CATEGORY_WINDOWS, windows),
            (artifacts.FEAT_ITEM_PRICES, prices),
            (artifacts.ITEM_TEXTS, texts),
        ):
            connection.execute(f"truncate {table}")
            if rows:
                insert(connection, table, rows)
        receipts.record(connection, "analytics.texts", INTERVAL.key, f"{windows}{prices}{texts}", {})


def verdicts(settings: Settings) -> dict[str, set[str]]:
    """Return check → its verdicts on all tables."""
    with connect(settings) as connection:
        found = connection.execute(
            "select check_name, array_agg(verdict) from monitoring.outcomes where check_name like 'analysis.%'"
            " group by check_name"
        ).fetchall()
    return {check.removeprefix("analysis."): set(verdicts) for check, verdicts in found}


def test_the_door_waits_for_what_it_judges(offered):
    with pytest.raises(MissingArtifact, match=r"analytics\.texts"):
        judge_door(offered, "analysis", INTERVAL)


def test_sound_tables_pass_and_are_not_judged_twice(offered):
    texts = [*SOUND_TEXTS, ("movies", "m:3", EPOCH, UNIT, INTERVAL.as_of)]
    fill(offered, SOUND_WINDOWS, SOUND_PRICES, texts)
    judged = judge_door(offered, "analysis", INTERVAL)
    assert (judged["failed"], judged["warned"], judged["unchanged"]) == (0, 0, False)
    assert set().union(*verdicts(offered).values()) == {"pass"}
    assert verdicts(offered).keys() > BREAKS
    assert judge_door(offered, "analysis", INTERVAL)["unchanged"] is True
    fill(offered, SOUND_WINDOWS, [], texts)  # nobody buys
    assert judge_door(offered, "analysis", INTERVAL)["failed"] == 0


def test_every_broken_row_is_found_by_its_expectation(offered):
    windows = [row for row in SOUND_WINDOWS if row[0] != "u:bob"] + TORN_WINDOWS
    fill(offered, windows, SOUND_PRICES + BROKEN_PRICES, SOUND_TEXTS[:1] + BROKEN_TEXTS)
    with pytest.raises(CheckFailed, match=r"analysis/index\.html"):
        judge_door(offered, "analysis", INTERVAL)
    found = verdicts(offered)
    assert {check for check, verdict in found.items() if "fail" in verdict} == BREAKS
    assert found["price_near_its_mean"] == found["vector_says_something"] == {"warn"}
