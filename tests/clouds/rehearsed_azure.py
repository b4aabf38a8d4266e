"""What the rehearsals of Azure ML and of Azure Container Instances share: who signs in, and what Azure refuses."""

import json
import os
import time

import pytest

from infra import rollout
from infra.targets import CloudFault
from tests.clouds.arm import REGION
from tests.clouds.certificate import self_signed
from tests.clouds.conformance import POLICY, REQUEST
from tests.clouds.rehearsed import NEW, OLD, Rehearsed, lines

OTHER_REGION = "westeurope"


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
    made = self_signed(tmp_path_factory.mktemp("tls"))
    os.environ["REQUESTS_CA_BUNDLE"] = made[0]
    return made


@pytest.fixture
def requests_uri(emulator, folder_uri):
    folder = emulator.file_at(folder_uri)
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_text(lines([REQUEST, {"user_id": "tiny:2", "k": 3}]))
    return folder_uri


class RehearsedAzure(Rehearsed):
    """What both have beside every cloud's. A module gives the fixtures `plane_of` and `elsewhere`."""

    def test_a_batch_answers_as_the_endpoint_does(self, cloud, local, emulator, requests_uri, answers_uri):
        rollout.canary(cloud.target, OLD, POLICY)
        emulator.forget_batches()
        cloud.target.batch(OLD, requests_uri, answers_uri)
        first, second = map(json.loads, emulator.file_at(answers_uri).read_text().splitlines())
        assert rollout.normal(first) == rollout.normal(local["1"])
        assert len(second["items"]) == 3

    def test_without_credentials_nothing_is_asked(self, plane_of):
        with pytest.raises(CloudFault, match="Sign in"):
            plane_of(SignedOut()).owned()

    def test_another_region_is_refused(self, cloud, local, elsewhere):
        """The same group, and a file that names another region: nothing is changed, what serves goes on."""
        rollout.canary(cloud.target, OLD, POLICY)
        billed = cloud.emulator.billable()
        target = elsewhere(location=OTHER_REGION)
        with pytest.raises(CloudFault, match=f"{REGION}.*{OTHER_REGION}|{OTHER_REGION}.*{REGION}"):
            rollout.canary(target, NEW, POLICY)
        assert cloud.target.shares() == {OLD.name: 100}
        assert cloud.emulator.billable() == billed

    def test_a_group_that_is_not_there_is_told(self, cloud, elsewhere):
        with pytest.raises(CloudFault, match="resource_group"):
            rollout.canary(elsewhere(resource_group="nobodys"), OLD, POLICY)
        assert cloud.emulator.billable() == {}
