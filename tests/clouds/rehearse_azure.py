"""The rehearsal of Azure: Azure ML's own SDK over HTTPS against the emulator, real serving processes behind.

Runs in the cloud environment only (`make rehearse`); its name keeps it out of the default suite.
"""

import os

import pytest

from infra.azure.blueprint import AzureBlueprint, AzureConfig
from infra.targets import CloudFault, Key
from tests.clouds import sdks
from tests.clouds.arm import SUBSCRIPTION
from tests.clouds.processes import bundles, local, serving
from tests.clouds.rehearsed import Rehearsal
from tests.clouds.rehearsed_azure import RehearsedAzure, Signed, certificate, requests_uri

FIXTURES = (bundles, certificate, local, requests_uri, serving, sdks)
STORE = "azureml://datastores/workspaceblobstore/paths"


@pytest.fixture(scope="session")
def emulator(serving, certificate, tmp_path_factory):
    from tests.clouds.azure_emulator import AzureEmulator

    emulator = AzureEmulator(serving, certificate, tmp_path_factory.mktemp("datastore"))
    os.environ["AZUREML_DEV_URL_MFE"] = emulator.url
    yield emulator
    emulator.close()


def config(emulator, **others) -> AzureConfig:
    given = {"subscription": SUBSCRIPTION, "resource_group": "rehearsal", "workspace": "recsys",
             "registry": "recsys.azurecr.io", "wait_seconds": 2, "poll_seconds": 0.02,
             "management": emulator.url}  # fmt: skip
    return AzureConfig(**{**given, **others})


@pytest.fixture(scope="session")
def plane_of(emulator):
    from infra.azure.plane import AzurePlane

    return lambda credential, **others: AzurePlane(config(emulator, **others), lambda seconds: None, credential)


@pytest.fixture(scope="session")
def plane(plane_of):
    return plane_of(Signed())


@pytest.fixture
def cloud(emulator, plane, tmp_path):
    waits: list[float] = []
    rehearsal = Rehearsal(AzureBlueprint(config(emulator)), plane, emulator, tmp_path / "l.jsonl", waits)
    yield rehearsal
    rehearsal.clean()


@pytest.fixture
def elsewhere(cloud, emulator, plane_of):
    return lambda **others: cloud.elsewhere(AzureBlueprint(config(emulator, **others)), plane_of(Signed(), **others))


@pytest.fixture
def folder_uri():
    return f"{STORE}/requests/"


@pytest.fixture
def answers_uri():
    return f"{STORE}/answers.jsonl"


class TestAzure(RehearsedAzure):
    def test_what_the_emulator_wants_is_what_azure_wants(self, cloud):
        from infra.azure.plane import translated

        plane, key = cloud.plane.plane, Key("compute", "recsys-batch")
        with pytest.raises(CloudFault, match="Required field"), translated(key):
            plane._asked("PUT", f"{plane._config.workspace_id}/computes/{key.name}", {"location": "eastus",
                         "properties": {"properties": {"scaleSettings": {"maxNodeCount": 1}}}})  # fmt: skip
