"""The dashboard says what is in the marts, page by page, and says plainly what is not."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import date

import httpx
import psycopg
import pytest
import tenacity
from mlflow import MlflowClient

from dashboard import marts
from dashboard.figures import source
from recsys import artifacts, receipts
from recsys.settings import HOME, Settings, load_settings
from recsys.warehouse import Outcome, connect, write_outcomes
from tests.browser.chromium import Chromium, executable
from tests.dashboard.conftest import EMPTY_FIGURES, PAGES
from tests.worlds.insight_marts import MARTS


@pytest.fixture
def planted(empty_marts) -> Settings:
    """Two domains, two days of a funnel, one variant, one cohort, two models, four judgements."""
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
                ('2026-11-22', 'newer', 'popularity', 'inference_p50_ms', 0.1, 1),
                ('2026-11-22', 'newer', 'ials', 'inference_p50_ms', 0.4, 4)
            """
        )
        connection.execute(
            f"""
            insert into {artifacts.AGG_HEADLINES} values
                ('books', 'interactions', '2026-11-21', 17, null, null),
                ('movies', 'active_users', '2026-11-21', 60, 0, null),
                ('movies', 'click_through_rate', '2026-11-21', 0.0765, 0.085, -0.1),
                ('movies', 'interactions', '2026-11-21', 2501, 2001, 0.25)
            """
        )
        connection.execute(
            f"""
            insert into {artifacts.AGG_RECOMMENDATION_EFFECTIVENESS}
            select 'movies', 'champion', days, date '2026-11-22' - days, '2026-11-21',
                170, 13, 2, 13 / 170.0, 2 / 170.0, 12, 9, 2, 80, 0.4, 7.5, 0.9
            from unnest(array[7, 28, 365]) as days
            """
        )
        connection.execute(
            f"insert into {artifacts.AGG_SESSIONS} values ('2026-11-21', 'movies', 50, 41, 1301, 3, 12, 4.5)"
        )
        connection.execute(
            f"""
            insert into {artifacts.AGG_COHORT_RETENTION} values
                ('movies', '2026-10-01', 0, 40, 40, 1, true, false),
                ('movies', '2026-10-01', 1, 40, 10, 0.25, false, false)
            """
        )
        day = date(2026, 11, 21)
        write_outcomes(
            connection,
            [
                Outcome("etl", day, "rows_refused", 3, "at most 1 %", "pass"),
                Outcome("monitoring", day, "psi", 0.4, "below 0.2", "fail", subject="rating"),
                Outcome(
                    "experiments",
                    day,
                    "conclusion",
                    "More users are needed.",
                    "Which is better?",
                    "pass",
                    "lists/champion",
                    {"decision": "go on"},
                ),
                Outcome("monitoring", date(2026, 11, 20), "psi", 0.1, "below 0.2", "pass", subject="rating"),
            ],
        )
    return empty_marts


def test_every_page_is_under_test():
    views = {path.stem for path in (HOME / "dashboard" / "views").glob("*.py")}
    assert {*PAGES, "lineage"} == views == {*EMPTY_FIGURES, "lineage"}


def test_overview_compares_with_the_time_before(planted, app):
    page = app()

    told = {metric.label: (metric.value, metric.delta) for metric in page.metric}
    assert told == {
        "Click-through rate": ("7.65%", "-10.0%"), "Conversion rate": ("—", ""), "Revenue": ("—", ""),
        "Interactions": ("2,501", "+25.0%"), "Active users": ("60", ""), "New users": ("—", ""),
    }  # fmt: skip


def test_the_filters_are_those_of_the_address(planted, app):
    page = app(domain="books", days="365")

    assert page.selectbox(key="domain").value == "books"
    assert page.session_state["days"] == 365
    assert page.metric[3].value == "17"
    page.selectbox(key="domain").set_value("movies").run()
    assert page.metric[3].value == "2,501"


def test_an_address_that_makes_no_sense_shows_what_there_is(planted, app):
    page = app(domain="<b>none</b>", days="9999")

    assert page.selectbox(key="domain").value == "books"
    assert page.session_state["days"] == 28


def test_experiments_tell_the_conclusion_and_one_day_latest_first(planted, app):
    page = app("experiments")

    assert any("More users are needed" in text.value for text in page.markdown)
    assert page.selectbox(key="day").options[0] == "2026-11-21"
    reach, funnel = page.dataframe[0].value, page.dataframe[1].value
    assert funnel["model_version"].tolist() == ["3"]
    assert reach[["variant", "coverage"]].to_numpy().tolist() == [["champion", 0.4]]


def test_models_of_the_latest_cut_stand_best_first(planted, app):
    page = app("models")

    assert page.selectbox(key="cut").options == ["newer", "older"]
    assert page.selectbox(key="metric").value == "ndcg_at_10"
    ranked = page.dataframe[0].value
    assert ranked["model"].tolist() == ["ials", "popularity"]
    assert ranked["value"].tolist() == [0.22, 0.11]
    assert ranked["value_over_baseline"].tolist() == [2, 1]


def test_customers_stay_or_do_not(planted, app):
    page = app("customers")

    assert page.dataframe[0].value.to_numpy().tolist() == [[1.0, 0.25]]
    page.toggle[0].set_value(False).run()
    assert page.dataframe[0].value.to_numpy().tolist() == [[40, 10]]


def test_data_shows_the_latest_judgement_of_each_check_failures_first(planted, app):
    page = app("data")

    outcomes = page.dataframe[0].value
    assert outcomes["check_name"].tolist() == ["psi", "rows_refused", "conclusion"]
    assert outcomes["observed"].tolist() == ["0.4", "3", "More users are needed."]
    assert [error.value for error in page.error] == ["Failed: monitoring · psi"]


@pytest.mark.parametrize("name", PAGES)
def test_empty_marts_are_said_to_be_empty(empty_marts, app, name):
    page = app(name)

    assert len(page.info) == len(page.subheader) == EMPTY_FIGURES[name]
    assert not page.error
    assert not page.warning


def test_missing_marts_are_named_with_the_way_out(warehouse, app):
    said = [warning.value for warning in app().warning]

    assert [mart for mart in MARTS for text in said if mart in text] == [
        artifacts.AGG_HEADLINES, artifacts.AGG_DAILY_ENGAGEMENT, artifacts.AGG_RECOMMENDATION_EFFECTIVENESS,
        artifacts.AGG_SERVICE_LEVELS,
    ]  # fmt: skip
    assert all(artifacts.DAG_PIPELINE in text for text in said)


def test_a_mart_without_a_column_is_named_and_the_rest_works(planted, app):
    with connect(planted) as connection:
        connection.execute(f"alter table {artifacts.AGG_DAILY_ENGAGEMENT} drop column new_users")
    page = app()

    assert ["new_users" in warning.value for warning in page.warning] == [True]
    assert page.metric[3].value == "2,501"


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


def test_lineage_asks_for_an_id_leads_both_ways_and_says_what_is_not_there(world, app):
    settings = world("postgres", "redis", "mlflow")
    client = MlflowClient(settings.mlflow_url)
    client.create_registered_model(artifacts.REGISTERED_MODEL)
    run = client.create_run("0")
    tags = {"cut_id": "cut-a", "as_of": "2026-11-02T00:00:00+00:00", "domains": "movies", "model": "ials"}
    client.create_model_version(artifacts.REGISTERED_MODEL, run.info.artifact_uri, run.info.run_id, tags=tags)
    with connect(settings) as connection:
        receipts.record(connection, "etl.load", "history/movies@2026-11-02", "f", {"rows": {"interactions": 7}})

    page = app("lineage")
    assert "Enter an id" in page.info[0].value
    page.text_input(key="id").set_value("cut-a").run()
    partitions, cuts, versions = (table.value for table in page.dataframe)
    assert partitions[["key", "rows.interactions"]].to_numpy().tolist() == [["history/movies@2026-11-02", 7]]
    assert cuts["cut_id"].tolist() == ["cut-a"]
    assert versions[["version", "run_id"]].to_numpy().tolist() == [["1", run.info.run_id]]
    seconds = float(re.search(r"in ([\d.]+) s", page.caption[-1].value)[1])
    assert seconds < 2
    page.text_input(key="id").set_value("nobody").run()
    assert "no raw partition, data cut or model version" in page.warning[0].value


def test_every_table_has_a_source_to_look_at():
    sources = {table: source(table) for table in marts.COLUMNS}

    assert len(sources) > 5
    for table, (path, text) in sources.items():
        assert text in (HOME / path).read_text()
        assert table.split(".")[1] in text or f"{table.split('.')[1]}.sql" in path
        assert table in MARTS or path == "recsys/schema.sql"


def test_the_dashboard_cannot_write(planted):
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        marts.select(planted, artifacts.OUTCOMES, "for update")


@pytest.fixture(scope="module")
def served(world) -> Iterator[str]:
    """The address of the dashboard's own process."""
    world("postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen(
        [sys.executable, "-m", "dashboard"], cwd=HOME, env={**os.environ, "RECSYS_DASHBOARD_URL": url}
    )
    yield url
    process.terminate()
    process.wait(20)


def test_the_command_serves_the_page(served):
    answer = tenacity.Retrying(
        stop=tenacity.stop_after_delay(60),
        wait=tenacity.wait_fixed(0.2),
        retry=tenacity.retry_if_exception_type(httpx.TransportError),
        reraise=True,
    )(httpx.get, f"{served}/_stcore/health")

    assert (answer.status_code, answer.text) == (200, "ok")


@pytest.mark.skipif(executable() is None, reason="not installed here (Debian package): chromium")
def test_in_a_browser_filters_go_along_and_nothing_is_loaded_from_elsewhere(planted, served, tmp_path):
    browser = Chromium(tmp_path / "profile")
    try:
        with browser.page() as page:
            page.open(f"{served}/?domain=movies", "document.body.innerText.includes('2,501')")
            longest = (
                "[...document.querySelectorAll('[role=radio], button')].find(one => one.innerText.trim() === '365')"
            )
            page.wait(f"{longest} !== undefined")
            page.run(f"{longest}.click()")
            page.wait("location.search.includes('days=365')")
            page.run("[...document.querySelectorAll('a')].find(link => link.innerText.includes('Customers')).click()")
            page.wait("document.body.innerText.includes('Retention')")
            address = page.run("location.pathname + location.search")
            asked = page.requested()
    finally:
        browser.close()

    assert address.startswith("/customers?")
    assert {"domain=movies", "days=365"} <= set(address.split("?")[1].split("&"))
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((served, "data:", "blob:"))] == []
