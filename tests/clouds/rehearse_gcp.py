"""The rehearsal of Google Cloud: Vertex AI's own SDK over REST against the emulator, real serving processes behind.

Runs in the cloud environment only (`make rehearse`); its name keeps it out of the default suite.
"""

import json

import pytest

from infra import rollout
from infra.gcp.blueprint import GcpBlueprint, GcpConfig
from infra.gcp.plane import GcpPlane
from infra.targets import CloudFault, Key
from tests.clouds import sdks
from tests.clouds.conformance import POLICY, REQUEST
from tests.clouds.gcp_emulator import GcpEmulator
from tests.clouds.processes import bundles, local, serving
from tests.clouds.rehearsed import OLD, Rehearsal, Rehearsed, lines

FIXTURES = (bundles, local, serving, sdks)


def config(url: str, **others) -> GcpConfig:
    given = {"project": "recsys-rehearsal", "registry": "us-central1-docker.pkg.dev/recsys-rehearsal/recsys",
             "service_account": "serving@recsys-rehearsal.iam.gserviceaccount.com", "wait_seconds": 60}  # fmt: skip
    return GcpConfig(**{**given, "api_endpoint": url, **others})


@pytest.fixture(scope="session")
def emulator(serving, tmp_path_factory):
    emulator = GcpEmulator(serving, tmp_path_factory.mktemp("buckets"))
    yield emulator
    emulator.close()


@pytest.fixture
def cloud(emulator, tmp_path):
    waits: list[float] = []
    given = config(emulator.url)
    rehearsal = Rehearsal(GcpBlueprint(given), GcpPlane(given, waits.append), emulator, tmp_path / "l.jsonl", waits)
    yield rehearsal
    rehearsal.clean()


@pytest.fixture
def requests_uri(emulator):
    file = emulator.object_at("gs://recsys-batch/requests.jsonl")
    file.parent.mkdir(exist_ok=True)
    file.write_text(lines([REQUEST, {"user_id": "tiny:2", "k": 3}]))
    return "gs://recsys-batch/requests.jsonl"


@pytest.fixture
def answers_uri():
    return "gs://recsys-batch/answers"


class TestGcp(Rehearsed):
    def test_a_batch_answers_as_the_endpoint_does(self, cloud, local, requests_uri, answers_uri):
        rollout.canary(cloud.target, OLD, POLICY)
        cloud.target.batch(OLD, requests_uri, answers_uri)
        (file,) = cloud.emulator.object_at(answers_uri).iterdir()
        first = json.loads(file.read_text().splitlines()[0])
        assert first["instance"] == REQUEST
        assert rollout.normal(first["prediction"]) == rollout.normal(local["1"])

    def test_what_the_emulator_wants_is_what_vertex_wants(self, cloud):
        with pytest.raises(CloudFault, match=r"container_spec\.image_uri of Model is not set"):
            cloud.plane.create(Key("model", "recsys-x"), {"image": "", "environment": {}})

    def test_another_region_is_refused(self, emulator):
        plane = GcpPlane(config(emulator.url, location="europe-west4"), lambda seconds: None)
        with pytest.raises(CloudFault, match="Google credentials"):
            plane.owned()

    def test_without_credentials_nothing_is_asked(self, monkeypatch, tmp_path):
        for name, value in {"NO_GCE_CHECK": "true", "HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        with pytest.raises(CloudFault, match="Sign in"):
            GcpPlane(config(""), lambda seconds: None)
