"""The rehearsal of Azure Container Instances: the management API over HTTPS, real serving processes behind the name.

Runs in the cloud environment only (`make rehearse`); its name keeps it out of the default suite.
"""

import pytest

from infra.aci.target import AciPlane, Blueprint, Config
from infra.targets import CloudFault, Key
from tests.clouds import sdks
from tests.clouds.aci_emulator import AciEmulator
from tests.clouds.arm import SUBSCRIPTION
from tests.clouds.processes import bundles, local, serving
from tests.clouds.rehearsed import Rehearsal
from tests.clouds.rehearsed_azure import RehearsedAzure, Signed, certificate, requests_uri

FIXTURES = (bundles, certificate, local, requests_uri, serving, sdks)


@pytest.fixture(scope="session")
def emulator(serving, certificate, tmp_path_factory):
    emulator = AciEmulator(serving, certificate, tmp_path_factory.mktemp("share"))
    yield emulator
    emulator.close()


def config(emulator, **others) -> Config:
    identities = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rehearsal/providers/Microsoft.ManagedIdentity"
    given = {"subscription": SUBSCRIPTION, "resource_group": "rehearsal", "registry": "recsys.azurecr.io",
             "identity": f"{identities}/userAssignedIdentities/recsys-serving", "wait_seconds": 2,
             "poll_seconds": 0.1, "management": emulator.url, "url": emulator.url}  # fmt: skip
    return Config(**{**given, **others})


@pytest.fixture(scope="session")
def plane_of(emulator):
    return lambda credential, **others: AciPlane(config(emulator, **others), lambda seconds: None, credential)


@pytest.fixture
def cloud(emulator, plane_of, tmp_path):
    waits: list[float] = []
    rehearsal = Rehearsal(Blueprint(config(emulator)), plane_of(Signed()), emulator, tmp_path / "l.jsonl", waits)
    yield rehearsal
    rehearsal.clean()


@pytest.fixture
def elsewhere(cloud, emulator, plane_of):
    return lambda **others: cloud.elsewhere(Blueprint(config(emulator, **others)), plane_of(Signed(), **others))


@pytest.fixture
def folder_uri():
    return "requests"


@pytest.fixture
def answers_uri():
    return "answers.jsonl"


class TestAci(RehearsedAzure):
    def test_what_the_emulator_wants_is_what_azure_wants(self, cloud):
        plane = cloud.plane.plane
        with pytest.raises(CloudFault, match="osType"):
            plane._asked(Key("deployment", "x"), "PUT", plane._url(Key("deployment", "recsys/x")),
                         {"location": "eastus", "properties": {"containers": []}})  # fmt: skip
