"""The rehearsal of Azure: Azure ML's own SDK over HTTPS against the emulator, real serving processes behind.

Runs in the cloud environment only (`make rehearse`); its name keeps it out of the default suite.
"""

import json
import os
import time

import pytest

from infra import rollout
from infra.azure.blueprint import AzureBlueprint, AzureConfig
from infra.targets import CloudFault, Key
from tests.clouds import sdks
from tests.clouds.certificate import self_signed
from tests.clouds.conformance import POLICY, REQUEST
from tests.clouds.processes import bundles, local, serving
from tests.clouds.rehearsed import OLD, Rehearsal, Rehearsed, lines

FIXTURES = (bundles, local, serving, sdks)
STORE = "azureml://datastores/workspaceblobstore/paths"


class Signed:
    """A credential that needs nobody to sign in."""

    def get_token(self, *scopes: str, **_):
        from azure.core.credentials import AccessToken

        return AccessToken("rehearsal", int(time.time()) + 3600)


class SignedOut:
    def get_token(self, *scopes: str, **_):
        from azure.core.exceptions import ClientAuthenticationError

        raise ClientAuthenticationError("no credential in this test")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A self-signed certificate of the loopback address, which the SDK is told to trust."""
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def emulator(serving, certificate, tmp_path_factory):
    from tests.clouds.azure_emulator import AzureEmulator

    emulator = AzureEmulator(serving, certificate, tmp_path_factory.mktemp("datastore"))
    os.environ.update(REQUESTS_CA_BUNDLE=certificate[0], AZUREML_DEV_URL_MFE=emulator.url)
    yield emulator
    emulator.close()


def config(emulator, **others) -> AzureConfig:
    from tests.clouds.azure_emulator import SUBSCRIPTION

    given = {"subscription": SUBSCRIPTION, "resource_group": "rehearsal", "workspace": "recsys",
             "registry": "recsys.azurecr.io", "wait_seconds": 2, "poll_seconds": 0.02,
             "management": emulator.url}  # fmt: skip
    return AzureConfig(**{**given, **others})


@pytest.fixture(scope="session")
def plane(emulator):
    from infra.azure.plane import AzurePlane

    return AzurePlane(config(emulator), lambda seconds: None, Signed())


@pytest.fixture
def cloud(emulator, plane, tmp_path):
    waits: list[float] = []
    rehearsal = Rehearsal(AzureBlueprint(config(emulator)), plane, emulator, tmp_path / "l.jsonl", waits)
    yield rehearsal
    rehearsal.clean()


@pytest.fixture
def requests_uri(emulator):
    folder = emulator.file_at(f"{STORE}/requests/")
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text(lines([REQUEST, {"user_id": "tiny:2", "k": 3}]))
    return f"{STORE}/requests/"


@pytest.fixture
def answers_uri():
    return f"{STORE}/answers.jsonl"


class TestAzure(Rehearsed):
    def test_a_batch_answers_as_the_endpoint_does(self, cloud, local, emulator, requests_uri, answers_uri):
        rollout.canary(cloud.target, OLD, POLICY)
        emulator.jobs.clear()
        cloud.target.batch(OLD, requests_uri, answers_uri)
        first, second = map(json.loads, emulator.file_at(answers_uri).read_text().splitlines())
        assert rollout.normal(first) == rollout.normal(local["1"])
        assert len(second["items"]) == 3

    def test_what_the_emulator_wants_is_what_azure_wants(self, cloud):
        from infra.azure.plane import translated

        plane, key = cloud.plane.plane, Key("compute", "recsys-batch")
        with pytest.raises(CloudFault, match="Required field"), translated(key):
            plane._asked("PUT", f"{plane._config.workspace_id}/computes/{key.name}", {"location": "eastus",
                         "properties": {"properties": {"scaleSettings": {"maxNodeCount": 1}}}})  # fmt: skip

    def test_without_credentials_nothing_is_asked(self, emulator):
        from infra.azure.plane import AzurePlane

        with pytest.raises(CloudFault, match="Sign in"):
            AzurePlane(config(emulator), lambda seconds: None, SignedOut()).owned()
