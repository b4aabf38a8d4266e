"""The command on the real warehouse: from impressions to outcome rows."""

from datetime import UTC, date, datetime

import pytest

from experiments.analyse import analyse
from recsys.artifacts import EXPERIMENT_SALT
from recsys.errors import RecsysError
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.warehouse import connect

pytestmark = pytest.mark.services

INTERVAL = Interval(("movies",), date(2020, 2, 1))
SHOWN_AT = datetime(2020, 1, 31, tzinfo=UTC)


@pytest.fixture
def settings(world) -> Settings:
    """Half of the users on each side, and nothing shown yet."""
    settings = world("postgres").model_copy(update={"variant_weights": {"champion": 0.5, "popular": 0.5}})
    with connect(settings) as connection:
        connection.execute(
            """
            truncate monitoring.outcomes;
            drop table if exists marts.fct_impressions;
            create table marts.fct_impressions
                (user_id text, variant text, domain text, shown_at timestamptz, is_clicked boolean)
            """
        )
    return settings


def show(
    settings: Settings, variant: str, users: range, clicks: int, domain: str = "movies", at: datetime = SHOWN_AT
) -> None:
    """Show ten items to each user, who clicks the first `clicks` and one more if their number is odd."""
    rows = [(f"u{u}", variant, domain, at, rank < clicks + u % 2) for u in users for rank in range(10)]
    with connect(settings) as connection, connection.cursor() as cursor:
        cursor.executemany("insert into marts.fct_impressions values (%s, %s, %s, %s, %s)", rows)


def outcomes(settings: Settings) -> dict[tuple[str, str], tuple[str, str]]:
    with connect(settings) as connection:
        rows = connection.execute("select check_name, subject, observed, verdict from monitoring.outcomes")
        return {(check, subject): (observed, verdict) for check, subject, observed, verdict in rows}


def test_more_clicks_are_found_and_told(settings):
    show(settings, "champion", range(100), clicks=3)
    show(settings, "popular", range(100, 200), clicks=1)
    show(settings, "popular", range(1000, 1400), clicks=9, domain="books")
    show(settings, "popular", range(2000, 2400), clicks=9, at=datetime(2020, 2, 1, tzinfo=UTC))  # after the interval
    result = analyse(settings, INTERVAL)

    assert result["users"] == {"champion": 100, "popular": 100}
    assert result["impressions"] == {"champion": 1000, "popular": 1000}
    assert result["ctr"]["champion"]["value"] == 0.35
    assert result["lift"]["champion"]["value"] == pytest.approx(0.35 / 0.15 - 1)
    assert result["lift"]["champion"]["low"] > 0
    assert result["conclusions"]["champion"].startswith("champion is clicked more than popular")
    rows = outcomes(settings)
    assert rows[("sample_ratio", EXPERIMENT_SALT)] == ("p = 1", "pass")
    assert rows[("ctr", "popular")][0].startswith("0.1500 [")
    assert rows[("clicked_users", "champion")][0].startswith("1.0000 [0.96")
    assert rows[("lift", "champion")][1] == "pass"


def test_a_variant_worse_than_the_control_is_a_warning(settings):
    show(settings, "champion", range(100), clicks=1)
    show(settings, "popular", range(100, 200), clicks=3)
    analyse(settings, INTERVAL)
    assert outcomes(settings)[("lift", "champion")][1] == "warn"


def test_a_wrong_split_is_told_before_anything_else(settings):
    show(settings, "champion", range(300), clicks=3)
    show(settings, "popular", range(300, 400), clicks=1)
    result = analyse(settings, INTERVAL)
    assert result["conclusions"]["champion"].startswith("Do not read")
    assert outcomes(settings)[("sample_ratio", EXPERIMENT_SALT)][1] == "fail"


def test_who_saw_both_variants_belongs_to_neither(settings):
    show(settings, "champion", range(100), clicks=3)
    show(settings, "popular", range(90, 190), clicks=1)
    result = analyse(settings, INTERVAL)
    assert result["crossed_users"] == 10
    assert result["users"] == {"champion": 90, "popular": 90}
    assert outcomes(settings)[("crossed_users", EXPERIMENT_SALT)] == ("10", "warn")


def test_nothing_shown_has_an_answer(settings):
    result = analyse(settings, INTERVAL)
    assert result["users"] == {"champion": 0, "popular": 0}
    assert result["sample_ratio_p"] is None
    assert result["conclusions"]["champion"].startswith("Nothing was shown yet")
    assert outcomes(settings)[("ctr", "champion")] == ("no data", "pass")
    assert {verdict for _, verdict in outcomes(settings).values()} == {"pass"}


def test_a_control_that_is_no_variant_is_refused(settings):
    with pytest.raises(RecsysError, match="champion, popular"):
        analyse(settings, INTERVAL, control="shuffle")
