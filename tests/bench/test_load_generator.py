"""The load generator against a server that answers at once: its report is JSON, complete, and judged by its plan."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from recsys.settings import HOME


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status = 503 if self.path == "/away" else 200
        body = b'{"rung":"personalised"}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if self.path == "/last":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def report(port: int, **plan) -> dict:
    whole = {"host": "127.0.0.1", "port": port, "requests": [("GET", "/", "")], "connections": 4, "seconds": 0.3} | plan
    done = subprocess.run(
        [sys.executable, "-m", "bench.load_generator"],
        input=json.dumps(whole), capture_output=True, text=True, check=True, cwd=HOME,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize(("objective_ms", "share"), [(0.0001, 1.0), (60_000, 0.0)])
def test_every_request_that_is_due_is_answered_and_timed_against_the_objective(port, objective_ms, share):
    said = report(port, rate=100, objective_ms=objective_ms, expected="personalised")
    assert said["answers"] > 10
    assert said["statuses"] == {"200": said["answers"]}
    assert (said["lost"], said["wrong"], said["cut"]) == (0, 0, 0)
    assert said["late"] == share * said["answers"]
    assert 0 < said["p50_ms"] <= said["p99_ms"] <= said["max_ms"]


@pytest.mark.parametrize("rate", [None, 100])
def test_a_connection_that_the_service_ends_is_made_anew_and_is_no_loss(port, rate):
    said = report(port, requests=[("GET", "/last", "")], expected="personalised", rate=rate)
    assert said["answers"] > 10
    assert said["statuses"] == {"200": said["answers"]}
    assert (said["lost"], said["wrong"], said["cut"]) == (0, 0, 0)


def test_a_failure_and_a_wrong_answer_are_counted_as_such(port):
    said = report(port, requests=[("GET", "/away", "")], expected="popular")
    assert said["statuses"] == {"503": said["answers"]}
    assert said["wrong"] == said["answers"] > 0
