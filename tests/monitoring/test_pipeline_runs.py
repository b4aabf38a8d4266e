"""Runs are read from Airflow's REST API page by page, and written once however often they are read."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from monitoring.pipeline_runs import record_runs
from recsys.artifacts import DAG_INSIGHT, DAG_PIPELINE, PIPELINE_RUNS
from recsys.errors import ServiceUnavailable
from recsys.settings import Settings
from recsys.warehouse import connect
from tests.conftest import free_port

RUNS = {
    DAG_PIPELINE: [("success", "2026-11-20T23:59:30Z")] * 130 + [("failed", "2026-11-21T00:00:30Z")],
    DAG_INSIGHT: [("success", "2026-11-21T08:00:30+00:00")],
}


class Answers(BaseHTTPRequestHandler):
    """Answers as Airflow 3.3 does (docs: dags/{dag_id}/dagRuns); `recsys_deploy` is not there."""

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._say(201 if told == {"username": "admin", "password": "right"} else 401, {"access_token": "t"})

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        dag_id, query = url.path.split("/")[4], parse_qs(url.query)
        if self.headers["Authorization"] != "Bearer t" or dag_id not in RUNS or query["state"] != ["success", "failed"]:
            self._say(404, {"detail": "The DAG was not found"})
            return
        first, count = int(query["offset"][0]), int(query["limit"][0])
        runs = [
            {"dag_id": dag_id, "dag_run_id": f"run {number}", "state": state, "end_date": end,
             "start_date": end.replace(":30", ":00")}
            for number, (state, end) in enumerate(RUNS[dag_id])
        ]  # fmt: skip
        self._say(200, {"dag_runs": runs[first : first + count], "total_entries": len(runs)})

    def _say(self, status: int, told: dict) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def settings(world) -> Iterator[Settings]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    yield world("postgres").model_copy(update={"airflow_url": url, "airflow_password": "right"})
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_ended_run_is_a_row_once(settings):
    with connect(settings) as connection:
        told = record_runs(settings, connection)
        assert record_runs(settings, connection) == told == {"success": 131, "failed": 1, "unchanged": False}
        rows = connection.execute(
            f"select dag_id, run_date::text, state, count(*), min(seconds) from {PIPELINE_RUNS}"
            " group by 1, 2, 3 order by 1, 2"
        ).fetchall()

    assert rows == [
        (DAG_INSIGHT, "2026-11-21", "success", 1, 30.0),
        (DAG_PIPELINE, "2026-11-20", "success", 130, 30.0),
        (DAG_PIPELINE, "2026-11-21", "failed", 1, 30.0),
    ]


@pytest.mark.parametrize("wrong", [{"airflow_password": "wrong"}, {"airflow_url": f"http://127.0.0.1:{free_port()}"}])
def test_an_airflow_that_does_not_answer_is_named(settings, wrong):
    with connect(settings) as connection, pytest.raises(ServiceUnavailable, match="Airflow"):
        record_runs(settings.model_copy(update=wrong), connection)
