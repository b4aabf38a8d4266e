"""Everything planted, and what can be wrong with it: no prices, one user, one day, a rebuild, markup in names."""

import pytest
import streamlit

from dashboard.figures import png
from recsys import artifacts
from recsys.warehouse import connect
from tests.dashboard.conftest import EMPTY_FIGURES, PAGES, check_figures
from tests.worlds import insight_marts


@pytest.mark.parametrize("domain", ["movies", "books"])
@pytest.mark.parametrize("name", PAGES)
def test_every_figure_is_drawn_with_prices_or_without(everything, app, name, domain):
    page = app(name, domain)

    check_figures(page, EMPTY_FIGURES[name])
    assert "nan" not in " ".join(text.value for text in page.markdown)
    if name == "customers":
        assert any("states no prices" in info.value for info in page.info) == (domain == "books")


def test_every_chart_can_be_taken_along_as_png(everything, app, monkeypatch):
    drawn = []
    monkeypatch.setattr(streamlit, "altair_chart", lambda drawing, **_: drawn.append(drawing))
    for name in PAGES:
        app(name)

    assert len(drawn) > 10
    assert all(png(drawing).startswith(b"\x89PNG") for drawing in drawn)


def test_a_segment_is_kept_apart_and_one_that_has_gone_is_all(everything, app):
    page = app("customers")
    page.session_state["segment"] = "s2"
    page.run()

    assert not page.exception
    assert page.dataframe[0].value["segment"].tolist() == ["s2"]


def test_a_segment_of_one_user_and_one_day_have_no_interval_and_no_line(everything, app):
    with connect(everything) as connection:
        connection.execute(f"delete from {artifacts.SEGMENT_PROFILES} where segment <> 's1' or as_of < '2026-11-22'")
        connection.execute(
            f"update {artifacts.SEGMENT_PROFILES} set users = 1, share = 1, silhouette = null, stability = null"
        )
        connection.execute(f"update {artifacts.SEGMENT_EFFECTIVENESS} set users = 1, low = null, high = null")
        connection.execute(f"delete from {artifacts.AGG_DAILY_ENGAGEMENT} where activity_date < '2026-11-21'")

    check_figures(app("customers"), EMPTY_FIGURES["customers"])
    check_figures(app(), EMPTY_FIGURES["overview"])


def test_a_mart_that_is_being_rebuilt_is_shown_as_it_was(everything, app):
    """dbt builds a table beside the old one and swaps their names: who reads meanwhile waits for the swap alone."""
    with connect(everything) as building:
        building.execute(f"create table marts.beside as select * from {artifacts.AGG_HEADLINES}")
        building.execute("update marts.beside set value = 1")
        page = app()
        assert page.metric[3].value != "1"
        building.execute(f"drop table {artifacts.AGG_HEADLINES}")
        building.execute("alter table marts.beside rename to agg_headlines")
    assert app().metric[3].value == "1"


def test_names_with_markup_stay_text(everything, app):
    with connect(everything) as connection:
        connection.execute(f"update {artifacts.SEGMENT_PROFILES} set description = %s", [insight_marts.MARKUP])
        connection.execute(f"update {artifacts.OUTCOMES} set observed = %s, verdict = 'fail'", [insight_marts.MARKUP])
    told = [text.value for name in ("customers", "overview") for text in app(name).markdown]

    marked = [text for text in told if "alert" in text]
    assert len(marked) > 4
    assert all("\\<script\\>" in text and "\\*\\*bold" in text and "\\$x" in text for text in marked)
    assert not any(text.proto.allow_html for name in ("customers", "overview") for text in app(name).markdown)


def test_two_thousand_experiments_can_be_looked_through(everything, app):
    with connect(everything) as connection:
        connection.execute(
            f"""
            insert into {artifacts.OUTCOMES}
                (station, outcome_date, check_name, subject, observed, expected, verdict, detail)
            select 'experiments', date '2026-11-20' - day, check_name, 'test-' || number || '/new',
                'No difference shown.', 'Which?', 'pass',
                '{{"decision": "go on", "lift": {{"value": 0.1, "low": 0, "high": 0.2}}}}'
            from generate_series(1, 2000) as number, generate_series(0, 2) as day,
                unnest(array['conclusion', 'lift:click_through_rate', 'sample_ratio']) as check_name
            """
        )
    page = app("experiments")
    assert len(page.selectbox(key="experiment").options) == 2_001
    page.selectbox(key="experiment").set_value("test-1234").run()
    assert not page.exception
    assert any("No difference shown" in text.value for text in page.markdown)

    data = app("data")
    assert len(data.dataframe[0].value) <= 2_000


def test_decisions_champions_and_promises_are_said(everything, app):
    experiments, models, overview = (app(name) for name in ("experiments", "models", "overview"))

    assert any("better: roll it out" in text.value for text in experiments.markdown)
    champions = next(table.value for table in models.dataframe if "challenger" in table.value)
    assert champions[["model", "version"]].to_numpy().tolist()[0] == ["slist", "6"]
    told = {metric.label: (metric.value, metric.delta) for metric in overview.metric}
    assert told["pipeline runs succeed · target 95%"] == ("97.8%", "56% of the budget left")
    assert told["checks do not fail · target 99%"] == ("98.5%", "budget overspent")
