"""The rehearsal of Azure Container Instances: the management API over HTTPS, real serving processes behind the name.

Runs in the cloud environment only (`make rehearse`); its name keeps it out of the default suite.
"""

import json
import os
import time

import pytest

from infra import rollout
from infra.aci.target import AciPlane, Blueprint, Config
from infra.targets import CloudFault, Key
from tests.clouds import sdks
from tests.clouds.aci_emulator import SUBSCRIPTION, AciEmulator
from tests.clouds.certificate import self_signed
from tests.clouds.conformance import POLICY, REQUEST
from tests.clouds.processes import bundles, local, serving
from tests.clouds.rehearsed import OLD, Rehearsal, Rehearsed, lines

FIXTURES = (bundles, local, serving, sdks)


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
def emulator(serving, tmp_path_factory):
    certificate = self_signed(tmp_path_factory.mktemp("tls"))
    os.environ["REQUESTS_CA_BUNDLE"] = certificate[0]
    emulator = AciEmulator(serving, certificate, tmp_path_factory.mktemp("share"))
    yield emulator
    emulator.close()


def config(emulator) -> Config:
    identities = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rehearsal/providers/Microsoft.ManagedIdentity"
    return Config(
        subscription=SUBSCRIPTION, resource_group="rehearsal", registry="recsys.azurecr.io", wait_seconds=2,
        identity=f"{identities}/userAssignedIdentities/recsys-serving", poll_seconds=0.1, management=emulator.url,
        url=emulator.url,
    )  # fmt: skip


@pytest.fixture
def cloud(emulator, tmp_path):
    waits: list[float] = []
    plane = AciPlane(config(emulator), lambda seconds: None, Signed())
    rehearsal = Rehearsal(Blueprint(config(emulator)), plane, emulator, tmp_path / "l.jsonl", waits)
    yield rehearsal
    rehearsal.clean()


@pytest.fixture
def requests_uri(emulator):
    folder = emulator.file_at("/batch/requests")
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text(lines([REQUEST, {"user_id": "tiny:2", "k": 3}]))
    return "requests"


@pytest.fixture
def answers_uri():
    return "answers.jsonl"


class TestAci(Rehearsed):
    def test_a_batch_answers_as_the_endpoint_does(self, cloud, local, emulator, requests_uri):
        rollout.canary(cloud.target, OLD, POLICY)
        cloud.target.batch(OLD, requests_uri, "once.jsonl")
        first, second = map(json.loads, emulator.file_at("/batch/once.jsonl").read_text().splitlines())
        assert rollout.normal(first) == rollout.normal(local["1"])
        assert len(second["items"]) == 3

    def test_what_the_emulator_wants_is_what_azure_wants(self, cloud):
        plane = cloud.plane.plane
        with pytest.raises(CloudFault, match="osType"):
            plane._asked(Key("deployment", "x"), "PUT", plane._url(Key("deployment", "recsys/x")),
                         {"location": "eastus", "properties": {"containers": []}})  # fmt: skip

    def test_without_credentials_nothing_is_asked(self, emulator):
        with pytest.raises(CloudFault, match="Sign in"):
            AciPlane(config(emulator), lambda seconds: None, SignedOut()).owned()
