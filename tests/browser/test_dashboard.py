"""Every page of the dashboard in a real browser over a real Streamlit and a real PostgreSQL, wide, narrow and dark.

Screenshots are kept under var/screenshots/dashboard/, whatever a test finds.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import applications
from recsys import artifacts
from recsys.settings import HOME, Settings
from recsys.warehouse import connect
from tests.browser.chromium import Chromium, Page, executable
from tests.browser.test_storefront import AXE, SERIOUS
from tests.ports import free_port
from tests.worlds import insight_marts

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(executable() is None, reason="not installed here (Debian package): chromium"),
]
SHOTS = HOME / "var" / "screenshots" / "dashboard"
PAGES = {
    "": ("Health", 8), "models": ("From cut", 3), "experiments": ("Day by day", 3),
    "customers": ("Sessions", 6), "data": ("Drift and", 2), "network": ("Who holds", 1),
    "transfer": ("From domain", 3), "clouds": ("What it costs", 2), "lineage": ("From raw data", 0),
}  # fmt: skip
"""Path → a heading of the page, and at least how many charts it draws."""

VIEWS = {"wide": (1280, False), "phone": (390, False), "dark": (1280, True)}
FIGURES = "document.querySelectorAll('[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg').length"
QUIET = "!document.querySelector('[data-testid=stStatusWidget], [data-testid=stSkeleton], [data-stale=true]')"
FAULTS = "[...document.querySelectorAll('[data-testid=stException]')].map(one => one.innerText)"
TALL = "document.querySelector('[data-testid=stMain]').scrollHeight"


@pytest.fixture(scope="module")
def settings(world, run_service) -> Settings:
    """The dashboard's process over a warehouse where all is planted."""
    settings = world("postgres").model_copy(update={"dashboard_url": f"http://127.0.0.1:{free_port()}"})
    with connect(settings) as connection:
        insight_marts.remove(connection)
        insight_marts.create(connection)
        insight_marts.plant(connection)
    run_service(applications.dashboard(settings))
    return settings


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def open_page(page: Page, settings: Settings, path: str, heading: str, charts: int) -> None:
    page.open(
        f"{settings.dashboard_url}/{path}?domain=movies",
        f"document.body.innerText.includes('{heading}') && {FIGURES} >= {charts} && {QUIET}",
    )


def keep(page: Page, name: str, width: int) -> Path:
    """Take the whole page, which scrolls inside of its window."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    tall = min(page.run(TALL) + 80, 6_000)
    page.ask("Emulation.setDeviceMetricsOverride", width=width, height=tall, deviceScaleFactor=1, mobile=width < 600)
    page.wait(QUIET)
    return page.screenshot(SHOTS / f"{name}.png")


def test_every_page_of_the_dashboard_is_looked_at():
    names = {path.stem for path in (HOME / "dashboard" / "views").glob("*.py")}

    assert len(names) > 6
    assert {name or "overview" for name in PAGES} == names


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: `npm ci` in storefront/")
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_drawn_readable_and_without_serious_accessibility_fault(chromium, settings, path, view):
    width, dark = VIEWS[view]
    with chromium.page(width, 900, dark) as page:
        open_page(page, settings, path, *PAGES[path])
        keep(page, f"{path or 'overview'}-{view}", width)

        assert page.run(FAULTS) == []
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run("document.querySelectorAll('script').length") == page.run(
            "[...document.querySelectorAll('script')].filter(one => !one.innerText.includes('alert(1)')).length"
        )
        page.run(f"{AXE.read_text()}; 0")
        assert page.run(SERIOUS) == ""


def test_an_open_page_follows_the_marts_by_itself(chromium, settings):
    with chromium.page() as page:
        open_page(page, settings, "", *PAGES[""])
        assert "424,242" not in page.run("document.body.innerText")
        with connect(settings) as connection:
            connection.execute(
                f"update {artifacts.AGG_HEADLINES} set value = 424242"
                " where (domain, headline) = ('movies', 'interactions')"
            )
        page.wait("document.body.innerText.includes('424,242')")
        assert page.run(FAULTS) == []


def test_csv_and_png_can_be_taken_along(chromium, settings, tmp_path):
    with chromium.page() as page:
        page.keep_downloads(tmp_path)
        open_page(page, settings, "transfer", *PAGES["transfer"])
        for name in ("PNG", "CSV"):
            page.run(
                "[...document.querySelectorAll('[data-testid=stDownloadButton] button')]"
                f".find(button => button.innerText.includes('{name}')).click()"
            )
        files = {path.suffix: path.read_bytes() for path in wait_for_files(page, tmp_path, 2)}

    assert files[".csv"].decode().splitlines()[1].startswith("books,movies,1.0,all,90,")
    assert files[".png"].startswith(b"\x89PNG")
    assert len(files[".png"]) > 5_000


def wait_for_files(page: Page, folder: Path, count: int) -> list[Path]:
    """Return the finished downloads, when there are so many."""
    for _ in range(200):
        done = [path for path in folder.iterdir() if path.suffix in {".csv", ".png"}]
        if len(done) >= count:
            return done
        page.run("new Promise(done => setTimeout(done, 50))")
    raise AssertionError(f"downloaded: {list(folder.iterdir())} {page.complaints()} {page.requested()[-6:]}")
