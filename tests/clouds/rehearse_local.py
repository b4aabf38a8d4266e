"""The rehearsal of this machine: real serving processes, one a release; in the cloud environment (`make rehearse`)."""

import json
import time
from pathlib import Path

import pytest

from infra import rollout
from infra.local.target import LocalBlueprint, LocalConfig, LocalPlane, alive
from infra.targets import NotReady
from tests.clouds.conformance import POLICY, REQUEST
from tests.clouds.processes import bundles, container_environment, local, serving
from tests.clouds.rehearsed import OLD, Conforms, Rehearsal, lines

FIXTURES = (bundles, local, serving)


class Machine:
    """Counts what runs; nobody can refuse anything here."""

    faults, outcome = [], "ready"

    def __init__(self, state: Path):
        self._state = state

    def billable(self) -> dict[str, int]:
        found = [(file.stem, json.loads(file.read_text())) for file in self._state.glob("deployment~*.json")]
        return {name: 1 for name, each in found if alive(each["pid"])}


@pytest.fixture
def cloud(bundles, tmp_path, monkeypatch):
    for name, value in container_environment(bundles / "1", "", tmp_path).items():
        monkeypatch.setenv(name, value)
    config = LocalConfig(bundles=f"{bundles}/{{version}}", state=tmp_path / "state")
    plane = LocalPlane(config, time.sleep)
    rehearsal = Rehearsal(LocalBlueprint(config), plane, Machine(config.state), tmp_path / "l.jsonl", [])
    yield rehearsal
    rehearsal.clean()


@pytest.fixture
def requests_uri(tmp_path):
    (tmp_path / "requests.jsonl").write_text(lines([REQUEST, {"user_id": "tiny:2", "k": 3}]))
    return str(tmp_path / "requests.jsonl")


@pytest.fixture
def answers_uri(tmp_path):
    return str(tmp_path / "answers.jsonl")


class TestLocal(Conforms):
    def test_a_batch_answers_as_the_endpoint_does(self, cloud, local, requests_uri, answers_uri):
        rollout.canary(cloud.target, OLD, POLICY)
        cloud.target.batch(OLD, requests_uri, answers_uri)
        first, second = map(json.loads, Path(answers_uri).read_text().splitlines())
        assert rollout.normal(first) == rollout.normal(local["1"])
        assert len(second["items"]) == 3

    def test_a_version_without_a_bundle_is_not_deployed(self, cloud):
        with pytest.raises(NotReady, match="no bundle"):
            cloud.target.deploy(OLD.model_copy(update={"version": "9"}), 10)
        assert cloud.plane.owned() == []
