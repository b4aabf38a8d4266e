"""The storefront in a real browser over the real serving process, Kafka, the stream's effects, PostgreSQL and Valkey.

The tests stand in the order of one visit. Feast alone is left out: the page reads the users' state, not its store.
"""

import json
import re
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest
import redis

from infra.local import applications
from recsys import user_state
from recsys.promotion import beside_folder
from recsys.settings import HOME, Settings
from streaming.consumer import Batches, consume
from streaming.health import Health
from tests.browser.chromium import Chromium, Page, executable
from tests.serving.patience import eventually
from tests.worlds.served import EVEN, FILMS, ODD, write_world

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(executable() is None, reason="not installed here (Debian package): chromium"),
]
AXE = HOME / "storefront" / "node_modules" / "axe-core" / "axe.min.js"
SHOTS = HOME / "var" / "screenshots" / "storefront"
HOSTILE = (
    "<img src=x onerror='window.hurt=1'>" * 8,
    "W" * 300,
    "</script><script>window.hurt=1</script>",
    "\u202e\u0627\u0644\u0639\u0631\u0628\u064a\u0629 " * 30,
    "\u6f22" * 200,
    "a\u0300\u0301\u0302" * 60,
    "&nbsp;\u00a0" * 100,
)
EVEN_FILMS = [item for item in FILMS if item in EVEN]
OWN = ".for-you .grid .card:not(.compared *)"
LIST = f"[...document.querySelectorAll('{OWN}')].map(card => card.dataset.id)"
SHOWN = f"document.querySelectorAll('{OWN} .card-main').length > 3"
CHOOSE = """
(choice => {
  const field = document.querySelector('.model select');
  Object.getOwnPropertyDescriptor(HTMLSelectElement.prototype, 'value').set.call(field, choice);
  field.dispatchEvent(new Event('change', {bubbles: true}));
})(%r)
"""
TOO_WIDE = """
[...document.querySelectorAll('body *')]
  .filter(one => one.getBoundingClientRect().right > %d + 0.5 && !one.closest('.row, .chips, .top nav, .skip, svg'))
  .map(one => one.outerHTML.slice(0, 120))
"""
"""What reaches beyond the page, other than what scrolls in a box of its own."""
ARRIVED = "document.querySelectorAll('.stations .reached').length === 3"
OTHER = "[...document.querySelectorAll('.compared .grid .card[data-id]')].map(card => card.dataset.id)"
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
    lived = thread.is_alive()
    stopping.set()
    thread.join(30)
    batches.close()
    assert lived, "the consumer ended by itself"


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
    write_world(beside_folder(settings) / "v2", "popularity", version="2")
    write_world(settings.served_model, version="3")
    visit.wait(SHOWN)
    assert visit.run("document.querySelector('.top .user').innerText").endswith("u:even")
    for _ in range(5):  # on a busy machine the first answer may come without the store, in time and popular
        if "From your 2 interactions" in visit.run("document.querySelector('.for-you .note').innerText"):
            return
        visit.open(f"{settings.serving_url}/demo?domain=movies&user=u:even", SHOWN)
    raise AssertionError("five answers came without the store")


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
    assert "nothing of it is logged" in visit.run("document.querySelector('.compared .outcome').innerText")
    visit.run("document.querySelectorAll('.segments input')[0].click()")
    visit.wait("!document.querySelector('.compared')")


def test_another_model_stands_beside_and_a_click_changes_both_lists(visit):
    """The other model knows popularity alone: all but what the visitor saw, backwards by number."""
    visit.run(CHOOSE % "2")
    visit.wait(f"location.search.includes('model=2') && {OTHER}.length > 3")
    assert "even_popularity 2" in visit.run("document.querySelector('.compared header').innerText")
    own, other = visit.run(LIST), visit.run(OTHER)
    assert sorted(own) == sorted(other)
    assert other == sorted(other, reverse=True) != own
    left, right = visit.run("[...document.querySelectorAll('.pair > div')].map(one => one.getBoundingClientRect().x)")
    assert left < right  # side by side
    assert re.search(r"drawn up in \d+ ms", visit.run("document.querySelector('.compared .outcome').innerText"))

    visit.run(f"document.querySelector('.compared [data-id=\"{other[0]}\"] .card-main').click()")
    visit.wait(f"{SETTLED} && !{LIST}.includes('{other[0]}') && {OTHER}.length && !{OTHER}.includes('{other[0]}')")
    assert visit.run(OTHER) == other[1:]
    visit.run(CHOOSE % "")
    visit.wait(f"!document.querySelector('.compared') && {SHOWN}")


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
        page.open(
            f"{settings.serving_url}/demo/?domain=movies&user=u:even&variant=popular&model=2",
            f"{SHOWN} && {OTHER}.length > 3",
        )
        page.run(f"{AXE.read_text()}; 0")
        assert page.run(SERIOUS) == ""
        check_width(page, width)
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(SHOTS / f"compared-{width}.png", whole=True)


@pytest.fixture(scope="module")
def hostile(settings, visit, tmp_path_factory) -> None:
    """Titles, categories, names of models and of users as long and as strange as the door lets them through: served."""
    for folder, kind, version in (
        (beside_folder(settings) / "v8", "popularity", "8" * 40),
        (settings.served_model, "mean", "9" * 40),
    ):
        made = write_world(tmp_path_factory.mktemp("hostile"), kind, version=version)
        items = json.loads((made / "items.json").read_text())
        items["title"] = [HOSTILE[place % len(HOSTILE)] for place in range(len(items["title"]))]
        items["categories"] = [["W" * 28, HOSTILE[place % len(HOSTILE)]] for place in range(len(items["title"]))]
        (made / "items.json").write_text(json.dumps(items))
        manifest = json.loads((made / "manifest.json").read_text())
        (made / "manifest.json").write_text(json.dumps(manifest | {"model": "model" * 30}))
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(made.iterdir(), key=lambda file: file.name == "manifest.json"):
            shutil.copy(file, folder)  # the manifest, which says the version, comes last

    def is_served() -> None:
        assert httpx.get(f"{settings.serving_url}/readyz").json()["model_version"] == "9" * 40

    eventually(is_served)


@pytest.mark.parametrize("width", [320, 390, 700, 1280])
def test_hostile_titles_neither_widen_the_page_nor_run(chromium, settings, hostile, width):
    with chromium.page(width, 900, dark=True) as page:
        user = "u" * 256
        page.open(f"{settings.serving_url}/demo/?domain=movies&user={user}&model={'8' * 40}", SHOWN)
        page.wait(f"document.body.innerText.includes('{'9' * 40}') && {OTHER}.length > 3")
        check_width(page, width)
        page.run("document.querySelector('.for-you .card-main').click()")
        page.wait(SETTLED)
        page.run("document.querySelector('.for-you .why').click()")
        page.wait("document.querySelector('dialog[open]')")
        check_width(page, width)
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(SHOTS / f"hostile-{width}.png", whole=True)
        assert page.run("window.hurt === undefined && document.querySelectorAll('[onerror], .card script').length") == 0


def check_width(page: Page, width: int) -> None:
    """Nothing is wider than the page, at whatever instant."""
    wide = page.run(TOO_WIDE % width)
    assert wide == [], "\n".join(wide)
    assert page.run("document.documentElement.scrollWidth") <= width
