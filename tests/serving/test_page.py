"""The page under /demo as files: what is handed out, how, and that it was built from the sources that are here."""

import hashlib
import re

import pytest
from starlette.testclient import TestClient

from recsys.settings import HOME
from serving.page import FILES, read_files
from tests.serving.ports import assemble

MAX_BYTES = 400_000
SOURCES = (
    "index.html",
    "package-lock.json",
    "package.json",
    "tsconfig.json",
    "vite.config.ts",
    "public/**/*",
    "src/**/*",
)


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(assemble(None).app, follow_redirects=False)


def test_the_page_comes_with_a_strict_policy(client):
    page = client.get("/demo/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-cache"


def test_the_address_without_a_slash_leads_there(client):
    answer = client.get("/demo?user=u")
    assert (answer.status_code, answer.headers["location"]) == (307, "demo/?user=u")


def test_every_file_that_the_page_names_is_there_and_may_be_kept(client):
    named = re.findall(r'(?:src|href)="\./([^"]+)"', client.get("/demo/").text)
    assets = [name for name in named if name.startswith("assets/")]
    assert {name.rsplit(".", 1)[1] for name in assets} == {"js", "css"}
    for name in named:
        assert client.get(f"/demo/{name}").status_code == 200, name
    for name in assets:
        assert "immutable" in client.get(f"/demo/{name}").headers["cache-control"]


def test_nothing_is_loaded_from_elsewhere(client):
    files = read_files()
    assert sum(len(file.content) for file in files.values()) < MAX_BYTES
    for name, file in files.items():
        text = file.content.decode()
        assert not re.search(r"@import|url\(|<link[^>]+https?:|<script[^>]+https?:", text), name


def test_head_is_answered(client):
    answer = client.head("/demo/")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "path",
    ["nothing", "../page.py", "%2e%2e/page.py", "assets/", "assets/../index.html", "/index.html", "index.html%00"],
)
def test_nothing_else_can_be_asked_for(client, path):
    answer = client.get(f"/demo/{path}")
    if answer.status_code == 200:  # the client itself has resolved the dots, within the page
        assert answer.content == (FILES / "index.html").read_bytes()
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_the_built_page_is_that_of_these_sources():
    """To mend: `npm ci && npm run build` in storefront/."""
    home = HOME / "storefront"
    names = sorted(
        {path.relative_to(home).as_posix() for glob in SOURCES for path in home.glob(glob) if path.is_file()}
    )
    assert len(names) > 15
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0".encode() + (home / name).read_bytes() + b"\0")
    assert (FILES / "built_from.txt").read_text().strip() == digest.hexdigest()
