"""The serving process keeps the limits that the clouds set to a container, with its stores silent: the worst case.

Sources: SageMaker "Use your own inference code with hosting services" (a ping within 2 s, an answer within 60 s),
Azure ML "Managed online endpoints" (`request_timeout_ms`, 5 s as infra/azure sets it), and the time to stop of each.
What each test measures goes into its report; `python -m bench.container_limits` publishes it.
"""

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from infra.local.applications import python_of
from infra.local.service import NotHealthyYet, poll
from recsys.settings import HOME
from tests.clouds.processes import container_environment
from tests.ports import free_port
from tests.serving.gate import Gate
from tests.worlds.served import write_world

PING_SECONDS, AZURE_SECONDS, DRAIN_SECONDS, LARGEST = 2, 5, 20, 1_500_000
ONE = {"user_id": "tiny:1", "k": 5}
MANY = {
    "instances": [{"user_id": f"tiny:{number}", "k": 1000, "items": ["movielens:00"] * 100} for number in range(100)]
}


class Container(NamedTuple):
    """The serving process as SageMaker starts it: `serve`, and only then asked."""

    process: subprocess.Popen
    url: str
    log: Path


@contextmanager
def container(folder: Path, **environment: str) -> Iterator[Container]:
    """Start it and yield at once, before it is ready."""
    write_world(folder / "model", "popularity", "1", False)
    url = f"http://127.0.0.1:{free_port()}"
    given = {**container_environment(folder / "model", url, folder), **environment}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [python_of("serving"), "-m", "serving", "serve"], cwd=HOME, env=given, stdout=log, stderr=log
        )
    try:
        yield Container(process, url, folder / "log")
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def check_within(record_property) -> Callable[[str, float, float], None]:
    """Write a measure down with its limit, both in seconds, and fail if it is over."""

    def check(measure: str, seconds: float, limit: float) -> None:
        record_property(measure, f"{seconds:.2f} of {limit}")
        assert seconds < limit, measure

    return check


def ready(made: Container) -> None:
    def answers() -> None:
        try:
            httpx.get(f"{made.url}/ping", timeout=PING_SECONDS).raise_for_status()
        except httpx.HTTPError as error:
            raise NotHealthyYet(f"{error!r}; {made.log.read_text()[-1000:]}") from error

    poll(answers, 60)


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """Where connections are taken and nothing is ever said."""
    gate = Gate("127.0.0.1", 1)
    gate.silence()
    yield f"127.0.0.1:{gate.port}"
    gate.close()


@pytest.fixture(scope="module")
def stalled(silent, tmp_path_factory) -> Iterator[Container]:
    """A container whose Redis and Kafka take connections and never answer."""
    addresses = {"RECSYS_REDIS_URL": f"redis://{silent}/0", "RECSYS_KAFKA_BOOTSTRAP": silent}
    with container(tmp_path_factory.mktemp("stalled"), **addresses) as made:
        ready(made)
        yield made


def body_of(size: int, document: dict) -> bytes:
    """Return the document as JSON of exactly so many bytes; blanks count, too."""
    content = json.dumps(document).encode()
    return content + b" " * (size - len(content))


def test_each_ping_from_the_first_on_is_answered_in_two_seconds_and_soon_with_200(tmp_path, check_within):
    with container(tmp_path) as made:
        waits, statuses = [], []
        while 200 not in statuses:
            assert made.process.poll() is None, made.log.read_text()
            started = perf_counter()
            try:
                statuses.append(httpx.get(f"{made.url}/ping", timeout=PING_SECONDS).status_code)
            except httpx.ConnectError:  # the port is not open yet: nobody is kept waiting
                continue
            waits.append(perf_counter() - started)
        check_within("slowest ping from the first on", max(waits), PING_SECONDS)
        check_within("from the open port to 200 at /ping", sum(waits), PING_SECONDS)


def test_a_ping_is_answered_in_two_seconds_while_it_has_the_most_to_do(stalled, check_within):
    stop = threading.Event()

    def ask() -> int:
        done = 0
        with httpx.Client(base_url=stalled.url, timeout=60) as client:
            while not stop.is_set():
                assert client.post("/predict", json=MANY).status_code == 200
                done += 1
        return done

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        waits = []
        for _ in range(8):
            started = perf_counter()
            assert httpx.get(f"{stalled.url}/ping", timeout=PING_SECONDS).status_code == 200
            waits.append(perf_counter() - started)
        stop.set()
        assert sum(each.result() for each in asked) >= 4
    check_within("slowest ping under four clients with the largest requests", max(waits), PING_SECONDS)


@pytest.mark.parametrize(("door", "document"), [("/invocations", ONE), ("/score", ONE), ("/predict", MANY)])
def test_the_largest_request_is_answered_within_azures_five_seconds(stalled, door, document, check_within):
    started = perf_counter()
    answered = httpx.post(f"{stalled.url}{door}", content=body_of(LARGEST, document), timeout=60,
                          headers={"Content-Type": "application/json"})  # fmt: skip
    assert answered.status_code == 200, answered.text[:500]
    check_within(f"a body of {LARGEST} bytes at {door}", perf_counter() - started, AZURE_SECONDS)
    said = answered.json()
    assert all(each["items"] for each in said.get("predictions", [said]))


@pytest.mark.parametrize("door", ["/invocations", "/score", "/predict"])
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "in chunks"])
def test_one_byte_more_is_refused_in_words(stalled, door, declared):
    content = body_of(LARGEST + 1, MANY if door == "/predict" else ONE)
    sent = content if declared else iter([content[:LARGEST], content[LARGEST:]])
    answered = httpx.post(f"{stalled.url}{door}", content=sent, headers={"Content-Type": "application/json"})
    assert (answered.status_code, answered.json()["error"]["code"]) == (413, "body_too_large")


def test_on_sigterm_what_is_begun_is_answered_and_who_hangs_is_not_waited_for(silent, tmp_path, check_within):
    """Twenty seconds are what a cloud waits before it kills; silent stores, and a client that never ends its body."""
    addresses = {"RECSYS_REDIS_URL": f"redis://{silent}/0", "RECSYS_KAFKA_BOOTSTRAP": silent}
    with container(tmp_path, **addresses) as made:
        ready(made)
        children = psutil.Process(made.process.pid).children(recursive=True)
        whole = urlsplit(made.url)
        content = body_of(LARGEST, MANY)
        lines = [
            "POST /predict HTTP/1.1",
            "Host: a",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
        ]
        head = "\r\n".join([*lines, "", ""])
        with (
            socket.create_connection((whole.hostname, whole.port), timeout=DRAIN_SECONDS) as slow,
            socket.create_connection((whole.hostname, whole.port), timeout=DRAIN_SECONDS) as hangs,
        ):
            for each in (slow, hangs):
                each.sendall(head.encode() + content[:1000])
            assert httpx.get(f"{made.url}/ping", timeout=PING_SECONDS).status_code == 200  # both have been taken
            made.process.send_signal(signal.SIGTERM)
            started = perf_counter()
            slow.sendall(content[1000:])
            assert slow.recv(100).startswith(b"HTTP/1.1 200")
            assert made.process.wait(DRAIN_SECONDS) in {0, -signal.SIGTERM}
            check_within("from SIGTERM to its end, a client hanging", perf_counter() - started, DRAIN_SECONDS)
        assert children, "the carrier is a child"
        assert not psutil.wait_procs(children, timeout=5)[1]
