"""The dashboard says what is in the marts, and says plainly what is not."""

import os
import socket
import subprocess
import sys
from datetime import date

import httpx
import psycopg
import pytest
import streamlit
import tenacity
from streamlit.testing.v1 import AppTest

from dashboard import marts
from recsys import artifacts
from recsys.settings import HOME, Settings, load_settings
from recsys.warehouse import Outcome, connect, write_outcomes

MARTS = {
    artifacts.AGG_DAILY_ENGAGEMENT: (
        "activity_date date, domain text, interactions bigint, active_users bigint, new_users bigint, "
        "mean_rating double precision"
    ),
    artifacts.AGG_RECOMMENDATION_FUNNEL: (
        "shown_date date, domain text, variant text, model_version text, rung text, requests bigint, "
        "impressions bigint, clicks bigint, click_through_rate double precision"
    ),
    artifacts.AGG_MODEL_QUALITY: (
        "as_of date, cut_id text, model text, metric text, value double precision, value_over_baseline double precision"
    ),
}  # fmt: skip


@pytest.fixture
def warehouse(world) -> Settings:
    """A warehouse in which dbt has not run."""
    settings = world("postgres")
    with connect(settings) as connection:
        for mart in MARTS:
            connection.execute(f"drop table if exists {mart}")
        connection.execute(f"delete from {artifacts.OUTCOMES}")
    return settings


@pytest.fixture
def empty_marts(warehouse) -> Settings:
    """A warehouse in which dbt has run over nothing."""
    with connect(warehouse) as connection:
        for mart, columns in MARTS.items():
            connection.execute(f"create table {mart} ({columns})")
    return warehouse


@pytest.fixture
def planted(empty_marts) -> Settings:
    """Two days in two domains, two answers' funnels, two models, three judgements."""
    with connect(empty_marts) as connection:
        connection.execute(
            f"""
            insert into {artifacts.AGG_DAILY_ENGAGEMENT} values
                ('2026-11-20', 'movies', 1200, 40, 7, 3.5), ('2026-11-21', 'movies', 1301, 41, 3, 3.6),
                ('2026-11-21', 'books', 17, 5, 5, null)
            """
        )
        connection.execute(
            f"""
            insert into {artifacts.AGG_RECOMMENDATION_FUNNEL} values
                ('2026-11-20', 'movies', 'champion', '2', 'personalised', 9, 90, 9, 0.1),
                ('2026-11-21', 'movies', 'champion', '3', 'personalised', 8, 80, 4, 0.05)
            """
        )
        connection.execute(
            f"""
            insert into {artifacts.AGG_MODEL_QUALITY} values
                ('2026-11-20', 'older', 'ials', 'ndcg_at_10', 0.9, null),
                ('2026-11-22', 'newer', 'popularity', 'ndcg_at_10', 0.11, 1),
                ('2026-11-22', 'newer', 'ials', 'ndcg_at_10', 0.22, 2),
                ('2026-11-22', 'newer', 'ials', 'coverage_at_20', 0.4, null)
            """
        )
        day = date(2026, 11, 21)
        write_outcomes(
            connection,
            [
                Outcome("etl", day, "rows_refused", 3, "at most 1 %", "pass"),
                Outcome("monitoring", day, "psi", 0.4, "below 0.2", "fail", subject="rating"),
                Outcome("monitoring", date(2026, 11, 20), "psi", 0.1, "below 0.2", "pass", subject="rating"),
            ],
        )
    return empty_marts


@pytest.fixture
def app():
    """Return a function that runs the page once, with nothing cached by an earlier test."""

    def run() -> AppTest:
        streamlit.cache_data.clear()
        page = AppTest.from_file(str(HOME / "dashboard" / "app.py"), default_timeout=60).run()
        assert not page.exception
        return page

    return run


def test_overview_shows_the_latest_day_of_the_chosen_domain(planted, app):
    page = app()
    page.selectbox(key="engagement_domain").set_value("movies").run()

    assert {metric.label: metric.value for metric in page.metric} == {
        "Interactions": "1,301", "Active users": "41", "New users": "3",
    }  # fmt: skip
    page.selectbox(key="engagement_domain").set_value("books").run()
    assert page.metric[0].value == "17"


def test_funnel_shows_one_day_latest_first(planted, app):
    page = app()
    days = page.selectbox(key="funnel_day")

    assert days.options[0] == "2026-11-21"
    funnel = page.dataframe[0].value
    assert funnel["model_version"].tolist() == ["3"]
    assert funnel["click_through_rate"].tolist() == [0.05]


def test_models_of_the_latest_cut_stand_best_first(planted, app):
    page = app()

    assert page.selectbox(key="cut").options == ["newer", "older"]
    assert page.selectbox(key="metric").value == "ndcg_at_10"
    ranked, all_metrics = page.dataframe[1].value, page.dataframe[2].value
    assert ranked["value"].to_dict() == {"ials": 0.22, "popularity": 0.11}
    assert ranked.index.tolist() == ["ials", "popularity"]
    assert ranked["value_over_baseline"].tolist() == [2, 1]
    assert all_metrics.loc["ials", "coverage_at_20"] == 0.4


def test_quality_shows_the_latest_judgement_of_each_check_failures_first(planted, app):
    page = app()

    outcomes = page.dataframe[3].value
    assert outcomes["check_name"].tolist() == ["psi", "rows_refused"]
    assert outcomes["observed"].tolist() == ["0.4", "3"]
    assert [error.value for error in page.error] == ["Failed: monitoring · psi"]


def test_empty_marts_are_said_to_be_empty(empty_marts, app):
    page = app()

    assert len(page.info) == 4
    assert "No interaction has reached the marts yet." in [info.value for info in page.info]
    assert not page.error
    assert not page.warning


def test_missing_marts_are_named_with_the_way_out(warehouse, app):
    page = app()

    assert len(page.warning) == 3
    for mart, warning in zip(MARTS, page.warning, strict=True):
        assert mart in warning.value
        assert artifacts.DAG_PIPELINE in warning.value


def test_a_mart_without_a_column_is_named(empty_marts, app):
    with connect(empty_marts) as connection:
        connection.execute(f"alter table {artifacts.AGG_DAILY_ENGAGEMENT} drop column new_users")

    assert "new_users" in app().warning[0].value


def test_a_warehouse_that_is_down_is_said_once(planted, app, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        monkeypatch.setenv("RECSYS_POSTGRES_URL", f"postgresql://recsys@127.0.0.1:{taken.getsockname()[1]}/recsys")
        load_settings.cache_clear()
        try:
            page = app()
        finally:
            monkeypatch.undo()
            load_settings.cache_clear()

    assert len(page.error) == 1
    assert page.error[0].value.startswith("The warehouse is down. PostgreSQL:")
    assert "make up" in page.error[0].value
    assert not page.dataframe


def test_the_dashboard_cannot_write(planted):
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        marts._read(planted, artifacts.OUTCOMES, "for update")


def test_the_command_serves_the_page(planted):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen(
        [sys.executable, "-m", "dashboard"], cwd=HOME, env={**os.environ, "RECSYS_DASHBOARD_URL": url}
    )
    try:
        answer = tenacity.Retrying(
            stop=tenacity.stop_after_delay(60),
            wait=tenacity.wait_fixed(0.2),
            retry=tenacity.retry_if_exception_type(httpx.TransportError),
            reraise=True,
        )(httpx.get, f"{url}/_stcore/health")
    finally:
        process.terminate()
        process.wait(20)

    assert (answer.status_code, answer.text) == (200, "ok")
