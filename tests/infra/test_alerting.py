"""Alerts by a real Airflow: a red task and a green one that warns reach the webhook and the mail server.

One Airflow for all of it: its API also tells the health of the pipelines that these runs make.
"""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest

from infra.local import airflow, alerting
from infra.local.airflow_client import Airflow
from monitoring.airflow_runs import read_dags
from monitoring.check_pipelines import check_pipelines
from recsys import artifacts
from recsys.errors import RecsysError
from recsys.settings import Settings
from recsys.warehouse import connect
from tests.ports import free_port

CLOUD = Path(".venv/cloud")  # the clouds' SDKs: not on every machine that runs the tests


def settings_of(**said: str) -> Settings:
    return Settings(_env_file=None, **said)


def test_nothing_is_set_up_unless_somebody_is_to_hear():
    assert alerting.connections(settings_of()) == {}
    assert not any(alerting.options(settings_of()).values())


def test_the_webhooks_secret_stays_out_of_what_dags_read():
    settings = settings_of(
        alert_webhook="https://hooks.example/T0/secret", runbook_url="https://wiki.example/runbooks/"
    )
    assert alerting.connections(settings)["recsys_alerts"]["host"] == "https://hooks.example/T0/secret"
    assert "secret" not in str(alerting.options(settings))
    assert alerting.options(settings)["runbook_url"] == "https://wiki.example/runbooks"


@pytest.mark.parametrize(
    ("url", "port", "encryption"),
    [
        ("smtp://127.0.0.1:2525", 2525, (True, True)),
        ("smtp+starttls://ada:p%40ss@mail.example", 587, (False, True)),
        ("smtps://mail.example", 465, (True, False)),
    ],
)
def test_a_mail_servers_address_says_how_it_is_encrypted(url, port, encryption):
    found = alerting.connections(settings_of(alert_emails="a@example.org", smtp_url=url))["recsys_mail"]
    assert (found["port"], found["extra"]["disable_tls"], found["extra"]["disable_ssl"]) == (port, *encryption)
    assert found["password"] == ("p@ss" if "ada" in url else "")


@pytest.mark.parametrize(
    "said", [{"alert_webhook": "hooks.example"}, {"alert_emails": "a@example.org", "smtp_url": "mail.example:25"}]
)
def test_an_address_that_is_none_is_refused(said):
    with pytest.raises(RecsysError, match=r"Begin with|begins with"):
        alerting.connections(settings_of(**said))


@pytest.fixture(scope="module")
def webhook() -> Iterator[tuple[str, Queue[dict[str, Any]]]]:
    """An address, and what was posted there."""
    heard: Queue[dict[str, Any]] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))) | {"path": self.path})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/T0/secret", heard
        server.shutdown()


@pytest.fixture(scope="module")
def mail() -> Iterator[tuple[str, Queue[Message]]]:
    """The address of a mail server, and the letters that it took."""
    taken: Queue[Message] = Queue()

    class Handler(StreamRequestHandler):
        def handle(self):
            self.say("220 here")
            while line := self.rfile.readline().strip().upper():
                if line == b"DATA":
                    self.say("354 go on")
                    taken.put(message_from_bytes(b"".join(iter(self.rfile.readline, b".\r\n"))))
                self.say("221 bye" if line == b"QUIT" else "250 well")

        def say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"smtp://127.0.0.1:{server.server_address[1]}", taken
        server.shutdown()


@pytest.fixture(scope="module")
def platform(world, run_service, webhook, mail) -> Settings:
    """PostgreSQL and Airflow with the platform's own DAGs; alerts go to the webhook and by e-mail."""
    settings = world("postgres").model_copy(
        update={
            "airflow_url": f"http://127.0.0.1:{free_port()}",
            "airflow_password": "of-this-test",
            "alert_webhook": webhook[0],
            "alert_emails": "ada@example.org",
            "alert_sender": "recsys@example.org",
            "smtp_url": mail[0],
            "runbook_url": "https://wiki.example/runbooks",
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("airflow_url", "airflow_password"):
            patch.setenv(f"RECSYS_{name.upper()}", getattr(settings, name))
        for service in airflow.airflow(settings):
            run_service(service)
        yield settings


def heard(queue: Queue[dict[str, Any]], dag_id: str) -> dict[str, Any]:
    """Return the next alert of a DAG; others, whose services this test does not run, alarm rightly: passed over."""
    return next(told for told in iter(lambda: queue.get(timeout=240), None) if told["dag_id"] == dag_id)


def ended(client: Airflow, dag_id: str) -> str:
    """Trigger a run and return its state when it has ended."""
    client.wait_for_dag(dag_id)
    return client.watch(dag_id, client.trigger(dag_id, {}), lambda tasks: None)


@pytest.mark.services
@pytest.mark.soak
def test_a_red_task_is_told_with_its_sentence_and_its_runbook_and_the_dags_health_warns(platform, webhook, mail):
    client = Airflow(platform)
    client.wait_for_dag(artifacts.DAG_DEPLOY)
    run_id = client.trigger(artifacts.DAG_DEPLOY, {"targets": ["nowhere"]})
    told = heard(webhook[1], artifacts.DAG_DEPLOY)
    client.fail(artifacts.DAG_DEPLOY, run_id)  # no need to see roll_back fail three times as well
    assert told["path"] == "/T0/secret"
    assert (told["dag_id"], told["run_id"]) == (artifacts.DAG_DEPLOY, run_id)
    sentence = "invalid choice: 'nowhere'" if CLOUD.exists() else "the environment cloud is not installed here"
    assert sentence in told["text"]
    assert told["text"].endswith("Runbook: https://wiki.example/runbooks/canary.md")
    letter = next(letter for letter in iter(lambda: mail[1].get(timeout=60), None) if run_id in letter["Subject"])
    assert letter["Subject"] == f"recsys: {artifacts.DAG_DEPLOY}.roll_out.canary of run {run_id} is red"
    assert (letter["To"], letter["From"]) == ("ada@example.org", "recsys@example.org")
    assert "runbooks/canary.md" in letter.get_payload()[0].get_payload(decode=True).decode()

    [deploy] = [dag for dag in read_dags(platform) if dag.dag_id == artifacts.DAG_DEPLOY]
    assert [run.state for run in deploy.runs] == ["failed"]
    found = check_pipelines(platform, datetime.now(UTC))
    assert any(artifacts.DAG_DEPLOY in sentence for sentence in found["warnings"])
    assert {artifacts.DAG_PIPELINE, artifacts.DAG_HEALTH, artifacts.DAG_INSIGHT} <= set(found["dags"])
    with connect(platform) as connection:
        rows = connection.execute(
            "select check_name, verdict from monitoring.outcomes where subject = %s order by 1", (artifacts.DAG_DEPLOY,)
        ).fetchall()
    assert rows == [("pipeline_duration", "pass"), ("pipeline_freshness", "pass"), ("pipeline_success", "warn")]


@pytest.mark.services
@pytest.mark.soak
def test_a_green_task_that_warns_is_told_as_well(platform, webhook):
    assert ended(Airflow(platform), artifacts.DAG_HEALTH) == "success"
    told = heard(webhook[1], artifacts.DAG_HEALTH)
    assert f"pipeline_success of {artifacts.DAG_DEPLOY}: 0 of" in told["text"]
    assert told["runbook"] == "https://wiki.example/runbooks/check_pipelines.md"
