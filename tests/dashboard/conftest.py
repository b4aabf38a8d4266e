"""The dashboard over a warehouse of this module's own: without marts, with empty ones, with everything planted."""

import pytest
import streamlit
from streamlit.testing.v1 import AppTest

from dashboard import filters
from recsys.settings import HOME, Settings
from recsys.warehouse import connect
from tests.worlds import insight_marts

PAGES = ("overview", "models", "experiments", "customers", "data", "network", "transfer", "clouds")
EMPTY_FIGURES = {
    "overview": 5, "models": 4, "experiments": 7, "customers": 6, "data": 3, "network": 3, "transfer": 3, "clouds": 2,
}  # fmt: skip


@pytest.fixture
def warehouse(world) -> Settings:
    """A warehouse in which dbt has not run."""
    settings = world("postgres")
    with connect(settings) as connection:
        insight_marts.remove(connection)
    return settings


@pytest.fixture
def empty_marts(warehouse) -> Settings:
    """A warehouse in which dbt has run over nothing."""
    with connect(warehouse) as connection:
        insight_marts.create(connection)
    return warehouse


@pytest.fixture
def everything(empty_marts) -> Settings:
    """Two domains with all that the marts, the analytics and the judgements can hold."""
    with connect(empty_marts) as connection:
        insight_marts.plant(connection)
    return empty_marts


@pytest.fixture
def app():
    """Return a function that runs a page once, with nothing cached by an earlier test.

    The overview runs inside of the whole application, at an address with this query; the others alone, which is faster.
    """

    def run(name: str = "overview", domain: str = "movies", **query: str) -> AppTest:
        streamlit.cache_data.clear()
        script = "app.py" if name == "overview" else f"views/{name}.py"
        page = AppTest.from_file(str(HOME / "dashboard" / script), default_timeout=60)
        if name == "overview":
            for key, value in (query | {"domain": domain}).items():
                page.query_params[key] = value
        else:
            page.session_state["domain"], page.session_state["days"] = domain, 28
            page.session_state["segment"] = filters.ALL
        page.run()
        assert not page.exception
        return page

    return run


def check_figures(page: AppTest, number: int) -> None:
    """Each figure is drawn, with its source and its rows beside it."""
    assert len(page.subheader) == number
    assert not page.warning
    labels = [button.proto.label for button in page.get("download_button")]
    assert labels.count("CSV") == len(page.code) == number
