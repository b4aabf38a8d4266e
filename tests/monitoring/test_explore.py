"""The exploration pages of a warehouse that can be counted by hand."""

import re

import pytest

from monitoring.explore import explore, gini
from recsys.errors import CheckFailed, MissingArtifact
from recsys.settings import Settings
from recsys.warehouse import connect

pytestmark = pytest.mark.services

# movies: 4 users × 8 items, user n uses items 0…2n+1 once each, on four Mondays at 20:00 and in two months;
# books: one user of the movies and one of its own, both at one instant; a category that is markup and no text
MARTS = """
create table marts.fct_interactions as
    select 'e' || u || '-' || i as event_id, 'u' || u as user_id, 'm' || i as item_id, 'movies' as domain,
        case when i = 0 then 'view' else 'rate' end as event_type, case when i > 0 then 4.0 end::float8 as rating,
        timestamptz '2020-01-06 20:00+00' + u * interval '14 days' as occurred_at, 'films' as source
    from generate_series(0, 3) as u, generate_series(0, 2 * u + 1) as i
    union all
    select 'b' || u, u, 'b1', 'books', 'click', null, timestamptz '2017-12-31 23:59:59+00', 'synthetic'
    from unnest(array['u0', 'v']) as u;
create table marts.dim_items as
    select 'm' || i as item_id, 'movies' as domain, array['Drama', '<b>$5 & x</b>'] as categories,
        case when i < 3 then i + 1.0 end::float8 as price, true as is_available,
        (select count(*) from marts.fct_interactions as e where e.item_id = 'm' || i) as interaction_count
    from generate_series(0, 9) as i
    union all select 'b1', 'books', '{}', null, true, 2
"""


@pytest.fixture(scope="module")
def settings(world) -> Settings:
    settings = world("postgres")
    with pytest.raises(MissingArtifact, match="marts"):
        explore(settings)
    with connect(settings) as connection:
        connection.execute("drop schema if exists marts cascade; create schema marts")
        connection.execute(MARTS)
    return settings


@pytest.fixture(scope="module")
def result(settings) -> dict:
    return explore(settings)


def page(settings: Settings, domain: str) -> str:
    return (settings.var_dir / "reports" / "eda" / f"{domain}.html").read_text()


def test_the_figures_are_those_that_one_counts(result):
    movies = result["domains"]["movies"]
    assert (movies["events"], movies["users"], movies["items used"], movies["items known"]) == (20, 4, 8, 10)
    assert movies["items never used"] == 2
    assert movies["sparsity"] == 1 - 20 / 32
    assert movies["share of explicit ratings"] == 16 / 20
    assert movies["mean rating"] == 4.0
    assert movies["median price"] == 2.0
    assert movies["gini of the items' popularity"] == pytest.approx(gini([4, 4, 3, 3, 2, 2, 1, 1]))
    assert movies["users also in books"] == result["domains"]["books"]["users also in movies"] == 1
    assert set(result["domains"]) == {"movies", "books"}


def test_gini_of_equals_is_nothing_and_of_one_owner_nearly_all():
    assert gini([5, 5, 5, 5]) == pytest.approx(0)
    assert gini([100, *[0] * 99]) == pytest.approx(0.99)


def test_a_page_is_whole_by_itself_and_the_same_again(settings, result):
    first = page(settings, "movies")
    assert first.count("<svg") == first.count("</svg>") == 8
    assert not re.search(r"(?:src|href)\s*=\s*[\"']https?:|<script|@import|url\(https?:", first)
    for heading in ("Events a user", "The long tail", "Ratings", "Categories", "Over the months", "Over the week"):
        assert f"<h2>{heading}</h2>" in first
    assert "2020-01" in first
    explore(settings, ["movies"])
    assert page(settings, "movies") == first


def test_names_from_the_data_are_text_and_no_markup(settings, result):
    assert "<b>$5" not in page(settings, "movies")
    assert "&lt;b&gt;" in page(settings, "movies")


def test_made_up_rows_are_called_so_and_seasons_are_not_drawn_from_one_instant(settings, result):
    books = page(settings, "books")
    assert "every user, item and event is made up" in books
    assert "made up" not in page(settings, "movies")
    assert "100% of the events share one instant" in books
    assert "Over the week" not in books


def test_a_domain_without_events_is_red(settings):
    with pytest.raises(CheckFailed, match=r"social: no events"):
        explore(settings, ["social"])
