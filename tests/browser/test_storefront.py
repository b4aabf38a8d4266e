"""The storefront in a real browser over the real serving process, Kafka, the stream's effects, PostgreSQL and Valkey.

The tests stand in the order of one visit. Feast alone is left out: the page reads the users' state, not its store.
"""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import redis

from infra.local import applications
from recsys import user_state
from recsys.settings import HOME, Settings
from streaming.consumer import Batches, consume
from streaming.health import Health
from tests.browser.chromium import Chromium, Page, executable
from tests.worlds.served import EVEN, FILMS, ODD, write_world

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(executable() is None, reason="not installed here (Debian package): chromium"),
]
AXE = HOME / "storefront" / "node_modules" / "axe-core" / "axe.min.js"
EVEN_FILMS = [item for item in FILMS if item in EVEN]
LIST = "[...document.querySelectorAll('.for-you .grid .card')].map(card => card.dataset.id)"
SHOWN = "document.querySelectorAll('.for-you .grid .card-main').length > 3"
ARRIVED = "document.querySelectorAll('.stations .reached').length === 3"
SETTLED = f"{ARRIVED} && !document.querySelector('.card[aria-busy=\"true\"]')"
SERIOUS = """
axe.run(document, {resultTypes: ['violations']}).then(found => found.violations
  .filter(fault => ['serious', 'critical'].includes(fault.impact))
  .map(fault => `${fault.id}: ${fault.nodes[0].html}`).join('\\n'))
"""


@pytest.fixture(scope="module")
def settings(world, run_service) -> Settings:
    """The serving process, with nothing deployed yet."""
    settings = world("postgres", "redis", "kafka")
    run_service(applications.serving(settings))
    return settings


@pytest.fixture(scope="module")
def stream(settings) -> Iterator[None]:
    """The stream consumer's own loop, in a thread of this process."""
    stopping = threading.Event()
    batches = Batches(settings, push=lambda features: 0, clock=lambda: datetime.now(UTC))
    thread = threading.Thread(target=consume, args=(settings, batches, Health(), stopping))
    thread.start()
    yield
    stopping.set()
    thread.join(30)
    batches.close()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def visit(chromium, settings, stream) -> Iterator[Page]:
    """The visitor's tab, opened before there is anything to see."""
    now = datetime.now(UTC) - timedelta(hours=1)
    with redis.Redis.from_url(settings.redis_url) as store:
        user_state.add_events(store, "u:even", [(item, now) for item in EVEN_FILMS[:2]])
    with chromium.page() as page:
        yield page.open(f"{settings.serving_url}/demo?domain=movies&user=u:even", "document.querySelector('h1')")


def test_before_the_first_deploy_the_page_says_so_and_waits(visit, settings):
    visit.wait("document.body.innerText.includes('No model is deployed yet')")
    write_world(settings.served_model, version="3")
    visit.wait(SHOWN)
    assert visit.run("document.querySelector('.top .user').innerText").endswith("u:even")


def test_each_item_says_why_it_is_there(visit):
    assert visit.run(LIST)[: len(EVEN_FILMS) - 2] == EVEN_FILMS[2:]
    reason = "document.querySelector('.for-you .card-reason span').innerText"
    assert "because of Title of movielens:0" in visit.wait(f"{reason}.includes('because') && {reason}")
    visit.run("document.querySelector('.for-you .why').focus()")
    visit.press("Enter")
    visit.wait("document.querySelectorAll('dialog[open] .drivers tr').length === 3")  # two drivers and the rest
    assert "version 3" in visit.run("document.querySelector('dialog').innerText")
    visit.press("Escape")
    visit.wait("!document.querySelector('dialog')")
    assert visit.run("document.activeElement.className") == "why"


def test_a_click_travels_and_changes_the_list(visit, settings):
    before = visit.run(LIST)
    clicked = before[0]
    visit.run("document.querySelector('.for-you .card-main').focus()")
    visit.press("Enter")  # as a keyboard does it
    visit.wait(SETTLED)
    after = visit.run(LIST)

    assert after != before
    assert clicked not in after
    steps = visit.run(
        "[...document.querySelectorAll('.stations .figure')].map(step => parseInt(step.innerText.slice(1)))"
    )
    assert len(steps) == 3
    assert min(steps) >= 0
    assert "gone" in visit.run("document.querySelector('.outcome').innerText")
    assert visit.run("document.querySelector('.history li').innerText") == f"Title of {clicked}"
    with psycopg.connect(settings.postgres_url) as connection:
        event, request = connection.execute(
            "select i.event_type, count(s.*) from raw.interactions i left join raw.impressions s on"
            " s.request_id = i.context::jsonb ->> 'request_id' and s.item_id = i.item_id"
            " where i.user_id = 'u:even' and i.item_id = %s group by 1",
            (clicked,),
        ).fetchone()
    assert (event, request) == ("click", 1)  # the click names the answer that showed the item


def test_somebody_new_becomes_somebody_by_one_click(visit):
    visit.run("document.querySelector('.top .user').click()")
    visit.wait("[...document.querySelectorAll('.users button')].some(user => user.innerText.includes('u:even'))")
    visit.run("document.querySelector('dialog .primary').click()")
    visit.wait(f"location.search.includes('user=guest') && {SHOWN}")
    assert "Popular in Films" in visit.wait("document.querySelector('.for-you .note').innerText")
    first = visit.wait(f"{LIST}.find(item => {ODD}.includes(item))")
    visit.run(f"document.querySelector('.for-you [data-id=\"{first}\"] .card-main').click()")
    visit.wait(SETTLED)
    assert "From your one interaction" in visit.wait("document.querySelector('.for-you .note').innerText")
    assert set(visit.run(LIST)[:3]) <= set(ODD)


def test_another_variant_can_be_looked_at(visit):
    visit.run("document.querySelectorAll('.segments input')[1].click()")
    assert visit.wait("document.querySelectorAll('.compared .card-main').length") > 3
    assert "nothing of it is logged" in visit.run("document.querySelector('.compared .note').innerText")


def test_search_finds_by_title_and_says_when_nothing_is_found(visit):
    visit.press("/")
    visit.ask("Input.insertText", text="11 title")
    visit.wait(f"{LIST}.length === 1")
    assert visit.run(LIST) == [FILMS[11]]
    visit.ask("Input.insertText", text=" zebra")
    visit.wait("document.querySelector('.empty')?.innerText.includes('Nothing here is called so')")
    visit.press("Escape")
    visit.wait(SHOWN)


def test_the_page_asked_nobody_but_this_server_and_had_nothing_to_complain(visit, settings):
    asked = visit.requested()
    assert len(asked) > 20
    assert [url for url in asked if not url.startswith((settings.serving_url, "data:"))] == []
    complaints = [line for line in visit.complaints() if "503 (Service Unavailable)" not in line]  # before the deploy
    assert [line for line in complaints if "404 (Not Found)" not in line or "/v1/requests/" not in line] == []


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: `npm ci` in storefront/")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_no_serious_accessibility_fault_and_nothing_wider_than_the_page(chromium, settings, visit, width, dark):
    with chromium.page(width, 900, dark) as page:
        page.open(f"{settings.serving_url}/demo/?domain=movies&user=u:even&variant=popular", SHOWN)
        page.run(f"{AXE.read_text()}; 0")
        assert page.run(SERIOUS) == ""
        assert page.run("document.documentElement.scrollWidth") <= width
