"""Back to the former version: a real registry, a real serving process, and what must not be promoted by accident."""

import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from mlflow import MlflowClient

from infra import __main__ as shell
from infra.deployments import log_deployment
from infra.local.applications import serving
from infra.local.deploy import deploy, deployed
from infra.local.rollback import LOCK, rollback
from infra.registry import champion
from recsys.artifacts import ALIAS_CHAMPION, EXPERIMENT_DEPLOYMENTS, REGISTERED_MODEL
from recsys.errors import CheckFailed, MissingArtifact, RecsysError, ServiceUnavailable
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.warehouse import connect
from tests.worlds.served import write_world

pytestmark = pytest.mark.services
AT = datetime(2026, 11, 25, 6, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(world, run_service):
    settings = world("postgres", "redis", "mlflow")
    run_service(serving(settings))
    MlflowClient(settings.mlflow_url).create_registered_model(REGISTERED_MODEL)
    return settings


@pytest.fixture(scope="module")
def two_served(settings, tmp_path_factory) -> list[str]:
    """Two versions, deployed one after the other."""
    client, numbers = MlflowClient(settings.mlflow_url), []
    with pytest.raises(MissingArtifact, match="served model"):
        rollback(settings, "ops", AT)
    for day in (1, 2):
        folder = write_world(tmp_path_factory.mktemp("registered") / "bundle", version=None)
        run = client.create_run("0")
        client.log_artifacts(run.info.run_id, str(folder), "model/artifacts/bundle")
        version = client.create_model_version(REGISTERED_MODEL, f"{run.info.artifact_uri}/model", run.info.run_id)
        client.set_registered_model_alias(REGISTERED_MODEL, ALIAS_CHAMPION, version.version)
        deploy(settings, Interval(("movies",), date(2026, 11, day)))
        numbers.append(str(version.version))
        if day == 1:
            with pytest.raises(MissingArtifact, match="none served before"):
                rollback(settings, "ops", AT)
    return numbers


def state(settings) -> tuple[str, str]:
    return champion(settings.mlflow_url).number, deployed(settings.served_model).number


def test_what_cannot_be_done_changes_nothing(settings, two_served):
    before = state(settings)
    with pytest.raises(MissingArtifact, match="bundle of version 77"):
        rollback(settings, "ops", AT, to="77")
    with pytest.raises(RecsysError, match="serves already"):
        rollback(settings, "ops", AT, to=two_served[1])
    with connect(settings) as connection:
        connection.execute(LOCK)
        with pytest.raises(RecsysError, match="another one is under way"):
            rollback(settings, "ops", AT)
    assert state(settings) == before == (two_served[1], two_served[1])


@contextmanager
def read_only(settings: Settings) -> Iterator[Settings]:
    """Yield settings whose registry answers every question and refuses every change."""

    class ReadOnly(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = httpx.get(f"{settings.mlflow_url}{self.path}")
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def do_POST(self) -> None:
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), ReadOnly) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield settings.model_copy(update={"mlflow_url": f"http://127.0.0.1:{server.server_port}"})
        server.shutdown()


def test_a_registry_that_is_read_only_leaves_everything_as_it_is(settings, two_served):
    before = state(settings)
    with read_only(settings) as closed, pytest.raises(ServiceUnavailable, match="403"):
        rollback(closed, "ops", AT)
    assert state(settings) == before


def test_the_former_version_serves_again_without_a_failed_request_and_the_audit_says_who(settings, two_served):
    statuses, stop = [], threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=settings.serving_url) as client:
            while not stop.is_set():
                statuses.append(client.get("/v1/users/u/recommendations").status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    said = rollback(settings, "ops", AT, why="it is worse")
    stop.set()
    asking.join()

    assert state(settings) == (two_served[0], two_served[0])
    assert statuses
    assert set(statuses) == {200}
    with connect(settings) as connection:
        (detail,) = connection.execute(
            "select detail from monitoring.outcomes where station = 'infra' and check_name = 'rollback'"
        ).fetchone()
    assert detail == {name: value for name, value in said.items() if name != "unchanged"}
    assert (detail["who"], detail["from"], detail["to"]) == ("ops", two_served[1], two_served[0])


def test_a_deployment_is_a_run_with_where_it_came_from_and_is_logged_once(settings, two_served):
    client, version = MlflowClient(settings.mlflow_url), two_served[0]
    client.set_model_version_tag(REGISTERED_MODEL, version, "git_commit", "abc")
    client.set_model_version_tag(REGISTERED_MODEL, version, "cut_id", "cut-a")
    span = AT, AT + timedelta(seconds=2)
    for _ in range(2):
        log_deployment(
            settings, version, "rollback", span, {"from": "2", "seconds": 1.5, "why": "", "unchanged": False}
        )
    experiment = client.get_experiment_by_name(EXPERIMENT_DEPLOYMENTS)
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.end_time - run.info.start_time) == ("FINISHED", 2000)
    told = {name: run.data.params[name] for name in ("version", "way", "target", "from", "cut_id", "git_commit")}
    assert told == {
        "version": version, "way": "rollback", "target": "local", "from": "2", "cut_id": "cut-a", "git_commit": "abc"
    }  # fmt: skip
    assert run.data.metrics["seconds"] == 1.5
    assert run.data.metrics["wall_seconds"] == 2
    assert run.data.metrics["cost_usd"] > 0
    with read_only(settings) as closed, pytest.raises(ServiceUnavailable, match="403"):
        log_deployment(closed, version, "rollback", (AT, AT), {})


def test_a_deployment_to_a_cloud_is_a_run_too_and_one_that_changed_nothing_is_none(settings, two_served, monkeypatch):
    client, version = MlflowClient(settings.mlflow_url), two_served[0]
    said = {"target": "aws", "version": version, "shares": {"v1": 10}, "changes": ["+ model v1"], "monthly_usd": 93.5}
    for unchanged in (False, True):
        monkeypatch.setattr(shell, "_cloud", lambda *_, again=unchanged: {**said, "unchanged": again})
        done = shell.released(settings, Namespace(step="canary", target="aws", dry_run=False))
        assert done["unchanged"] is unchanged
    experiment = client.get_experiment_by_name(EXPERIMENT_DEPLOYMENTS)
    (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = 'version {version} on aws'")
    assert {name: run.data.params[name] for name in ("version", "way", "target")} == {
        "version": version, "way": "canary", "target": "aws"
    }  # fmt: skip
    assert run.data.metrics["monthly_usd"] == 93.5


def test_a_way_back_in_a_cloud_is_a_run_and_stays_red(settings, two_served, monkeypatch):
    client, version = MlflowClient(settings.mlflow_url), two_served[1]
    said = {"target": "gcp", "version": version, "shares": {"v1": 100}, "changes": ["- model v2"], "monthly_usd": 50.0}
    monkeypatch.setattr(shell, "_cloud", lambda *_: {**said, "unchanged": False})
    given = Namespace(step="roll-back", target="gcp", dry_run=False)
    with pytest.raises(CheckFailed, match="rolled back"):
        shell.released(settings, given)
    experiment = client.get_experiment_by_name(EXPERIMENT_DEPLOYMENTS)
    (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = 'version {version} on gcp'")
    assert (run.data.params["way"], run.data.params["shares"]) == ("roll-back", "{'v1': 100}")
    with read_only(settings) as closed, pytest.raises(CheckFailed, match="rolled back"):
        shell.released(closed, given)  # the sentence of the way back, though the run cannot be written
