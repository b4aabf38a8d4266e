"""Downloads, against a real HTTP server on the loopback address that breaks off, continues, lies and is not there."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import tenacity
from rich.console import Console

from etl import catalogue, download
from etl.catalogue import Provider, Remote
from recsys.errors import RecsysError, ServiceUnavailable, UnusableInput

BODY = bytes(range(256)) * 1000


def archive() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("ml-tiny/ratings.csv", "userId,movieId,rating,timestamp\n1,1,5,978300760\n")
    return packed.getvalue()


@dataclass
class Site:
    """What the server has, and how it behaves; `asked` holds the ranges that clients wanted."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    break_off_after: list[int] = field(default_factory=list)
    honours_ranges: bool = True
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    here = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = here.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            here.asked.append(wanted := self.headers.get("Range"))
            tag = f'"{hashlib.sha256(body).hexdigest()}"'
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            continues = wanted and here.honours_ranges and self.headers.get("If-Range") == tag
            rest = body[start:] if continues else body
            self.send_response(206 if continues else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.send_header("ETag", tag)
            self.end_headers()
            self.wfile.write(rest[: here.break_off_after.pop(0)] if here.break_off_after else rest)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    here.address = f"http://127.0.0.1:{server.server_port}"
    yield here
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def fetch(site, tmp_path, monkeypatch):
    """A function that downloads the test provider's release and returns the report and what was printed."""

    def run(name: str = "tiny") -> tuple[dict, str]:
        with_sum = Remote(f"{site.address}/ml-tiny.zip", md5_url=f"{site.address}/ml-tiny.zip.md5")
        releases = {"tiny": (Remote(f"{site.address}/a.json.gz", "set"),), "ml-tiny": (with_sum,)}
        provider = Provider("Only for tests.", "Put a.json.gz there", releases, "tiny")
        monkeypatch.setitem(catalogue.PROVIDERS, "movielens", provider)
        text = io.StringIO()
        with httpx.Client(timeout=5, trust_env=False) as client:
            console = Console(file=text, width=300)
            report = download.download("movielens", [name], tmp_path, client, console, tenacity.wait_none())
        return report, text.getvalue()

    return run


def test_a_file_that_breaks_off_twice_is_continued_and_whole(site, fetch, tmp_path):
    site.files["/a.json.gz"] = BODY
    site.break_off_after = [100_000, 50_000]
    report, printed = fetch()
    assert (tmp_path / "set" / "a.json.gz").read_bytes() == BODY
    assert site.asked == [None, "bytes=100000-", "bytes=150000-"]
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["a.json.gz"]
    assert "Only for tests." in printed
    assert report["files"] == [{"file": "set/a.json.gz", "fetched": True}]

    assert fetch()[0]["files"] == [{"file": "set/a.json.gz", "fetched": False}]
    assert len(site.asked) == 3


def test_another_file_under_the_same_name_is_begun_anew(site, fetch, tmp_path):
    site.files["/a.json.gz"] = BODY
    site.break_off_after = [100_000] * download.ATTEMPTS
    site.honours_ranges = False
    with pytest.raises(ServiceUnavailable):
        fetch()
    assert not (tmp_path / "set" / "a.json.gz").exists()
    site.files["/a.json.gz"], site.break_off_after, site.honours_ranges = BODY[::-1], [], True
    fetch()
    assert (tmp_path / "set" / "a.json.gz").read_bytes() == BODY[::-1]


def test_an_archive_is_compared_with_the_published_sum_and_unpacked(site, fetch, tmp_path):
    site.files["/ml-tiny.zip"] = archive()
    site.files["/ml-tiny.zip.md5"] = f"MD5 (ml-tiny.zip) = {hashlib.md5(archive()).hexdigest()}\n".encode()
    fetch("ml-tiny")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ml-tiny"]
    assert (tmp_path / "ml-tiny" / "ratings.csv").read_text().startswith("userId")
    assert fetch("ml-tiny")[0]["files"] == [{"file": "ml-tiny.zip", "fetched": False}]


def test_a_file_with_another_sum_does_not_stay(site, fetch, tmp_path):
    site.files["/ml-tiny.zip"] = archive()
    site.files["/ml-tiny.zip.md5"] = b"0" * 32
    with pytest.raises(UnusableInput, match=f"published is {'0' * 32}"):
        fetch("ml-tiny")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_archive_does_not_stay(site, fetch, tmp_path):
    site.files["/ml-tiny.zip"] = BODY
    site.files["/ml-tiny.zip.md5"] = hashlib.md5(BODY).hexdigest().encode()
    with pytest.raises(UnusableInput, match="damaged"):
        fetch("ml-tiny")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_up", [True, False], ids=["no such file", "no such site"])
def test_what_cannot_be_fetched_ends_with_what_to_put_where(site, fetch, tmp_path, is_up):
    if not is_up:
        site.address = "http://127.0.0.1:9"
    with pytest.raises(ServiceUnavailable, match=rf"a\.json\.gz.*Put a\.json\.gz there: {tmp_path}") as error:
        fetch()
    assert "\n" not in str(error.value)


def test_a_source_that_is_not_on_the_web_says_what_to_put_where(tmp_path):
    with pytest.raises(RecsysError, match=rf"torrent.*RC_YYYY-MM\.zst.*{tmp_path}"):
        download.download("reddit", [], tmp_path, httpx.Client(), Console(file=io.StringIO()))
    with pytest.raises(RecsysError, match=r"ml-9m.*ml-25m"):
        download.download("movielens", ["ml-9m"], tmp_path, httpx.Client(), Console(file=io.StringIO()))


@pytest.mark.parametrize("source", sorted(catalogue.PROVIDERS))
def test_every_source_says_what_to_put_where_without_a_network(source, tmp_path):
    def unreachable(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route to the site", request=request)

    said = io.StringIO()
    client = httpx.Client(transport=httpx.MockTransport(unreachable))
    with pytest.raises((RecsysError, ServiceUnavailable)) as stopped:
        download.download(source, [], tmp_path, client, Console(file=said, width=500), tenacity.wait_none())
    assert f"{catalogue.PROVIDERS[source].by_hand}: {tmp_path.resolve()}" in str(stopped.value)
    assert catalogue.PROVIDERS[source].licence in said.getvalue()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_every_release_of_every_provider_is_named_once():
    assert set(catalogue.PROVIDERS) == {"movielens", "amazon", "goodreads", "goodbooks", "reddit"}
    for source, provider in catalogue.PROVIDERS.items():
        assert provider.licence
        assert provider.by_hand
        places = [remote.place for remotes in provider.releases.values() for remote in remotes]
        assert places or source == "reddit"
        for release, remotes in provider.releases.items():
            assert len({remote.place for remote in remotes}) == len(remotes), release
            assert all(remote.url.startswith("https://") for remote in remotes)
