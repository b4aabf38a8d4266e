"""The rehearsal of AWS: SageMaker's own SDK against the emulator, real serving processes behind the endpoint.

Runs in the cloud environment only (`make rehearse`); its name keeps it out of the default suite.
"""

import json
import os
import signal
import subprocess
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from infra import rollout
from infra.local.service import NotHealthyYet, poll
from infra.targets import CloudFault, Key, NotReady, Release, Transient
from recsys.settings import HOME
from tests.clouds.conformance import POLICY, REQUEST, walk

OLD, NEW = Release(version="1", image="recsys:1"), Release(version="2", image="recsys:2")
ROLE = "arn:aws:iam::123456789012:role/recsys-serving"
WORLD = """
import sys
from pathlib import Path
from tests.worlds.served import write_world
for version, backwards in (("1", False), ("2", True)):
    write_world(Path(sys.argv[1]) / version, "popularity", version, backwards)
"""


def answers_ping(url: str, log: Path) -> None:
    """Raise NotHealthyYet, with the last words of the process, unless it serves."""
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=2):
            return
    except OSError as error:
        raise NotHealthyYet(f"{url}: {error!r}; {log.read_text()[-2000:]}") from error


@pytest.fixture(scope="session")
def serving(tmp_path_factory):
    """version → address of a real serving process with that version's bundle, started as SageMaker starts it."""
    import socket

    folder = tmp_path_factory.mktemp("models")
    python = HOME / ".venv" / "platform" / "bin" / "python"
    subprocess.run(
        [python, "-c", WORLD, str(folder)], cwd=HOME, check=True, env={**os.environ, "PYTHONPATH": str(HOME)}
    )
    urls, processes = {}, []
    for version in ("1", "2"):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        urls[version] = f"http://127.0.0.1:{port}"
        environment = {
            **os.environ, "RECSYS_MODEL_DIR": str(folder / version), "RECSYS_SERVING_URL": urls[version],
            "RECSYS_VARIANT_WEIGHTS": '{"champion": 1.0}', "RECSYS_REDIS_URL": "redis://127.0.0.1:1/0",
            "RECSYS_KAFKA_BOOTSTRAP": "127.0.0.1:1", "RECSYS_VAR_DIR": str(folder),
        }  # fmt: skip
        command = [HOME / ".venv" / "serving" / "bin" / "python", "-m", "serving", "serve"]
        log = (folder / f"{version}.log").open("wb")
        processes.append(subprocess.Popen(command, cwd=HOME, env=environment, stdout=log, stderr=log))
    for version, url in urls.items():
        poll(partial(answers_ping, url, folder / f"{version}.log"), 120)
    yield urls
    for process in processes:
        process.terminate()
    # uvicorn drains, then ends by the signal that it was asked with; 20 s are what SageMaker would wait
    assert {process.wait(20) for process in processes} <= {0, -signal.SIGTERM}


@pytest.fixture(scope="session")
def local(serving):
    """version → the answer of this machine's own API to the same request, by another door than the clouds'."""
    query = urllib.parse.urlencode({"k": REQUEST["k"], "items": ",".join(REQUEST["items"])})
    answers = {}
    for version, url in serving.items():
        with urllib.request.urlopen(f"{url}/v1/users/{REQUEST['user_id']}/recommendations?{query}") as answered:
            answers[version] = json.load(answered)
    assert answers["1"]["items"]
    assert answers["1"]["items"] != answers["2"]["items"]
    return answers


@pytest.fixture(scope="session")
def emulator(serving):
    os.environ.update(
        AWS_DEFAULT_REGION="us-east-1", AWS_ACCESS_KEY_ID="rehearsal", AWS_SECRET_ACCESS_KEY="rehearsal",
        AWS_MAX_ATTEMPTS="1", AWS_EC2_METADATA_DISABLED="true", SAGEMAKER_TELEMETRY_OPT_OUT="true",
    )  # fmt: skip
    from tests.clouds.aws_emulator import Emulator

    emulator = Emulator(serving)
    os.environ["AWS_ENDPOINT_URL"] = emulator.url
    yield emulator
    emulator.close()


class Waits(list):
    """Instead of sleeping."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def aws(emulator, tmp_path):
    """A target over an empty account; what is left in it at the end of a test is removed by the target itself."""
    from infra.aws.blueprint import AwsBlueprint, AwsConfig
    from infra.aws.plane import AwsPlane
    from infra.blueprint import BlueprintTarget
    from infra.reconcile import Ledger, Reconciler

    config = AwsConfig(role_arn=ROLE, registry="123456789012.dkr.ecr.us-east-1.amazonaws.com", wait_seconds=60)
    waits = Waits()
    plane = AwsPlane(config, waits)
    target = BlueprintTarget(AwsBlueprint(config), plane, Reconciler("aws", plane, Ledger(tmp_path / "l.jsonl"), waits))
    target.plane, target.waits = plane, waits
    assert plane.owned() == []
    yield target
    emulator.faults.clear()
    target.teardown()
    assert plane.owned() == []


def test_the_whole_way_with_real_answers(aws, local):
    walk(aws, OLD, NEW, local)
    assert aws.plane.owned() == []


def test_the_answer_is_the_local_one_to_the_byte(aws, local):
    rollout.canary(aws, OLD, POLICY)
    assert rollout.normal(aws.invoke(REQUEST)) == rollout.normal(local["1"])


def test_the_traffic_is_split_by_weight(aws, emulator):
    rollout.canary(aws, OLD, POLICY)
    rollout.canary(aws, NEW, POLICY)
    versions = [aws.invoke(REQUEST)["model_version"] for _ in range(100)]
    assert (versions.count("1"), versions.count("2")) == (90, 10)


def test_scaling_arrives_as_the_policy_says(aws):
    from infra import autoscaling

    policy = POLICY.model_copy(update={"max_replicas": 7, "capacity": 150.0})
    rollout.canary(aws, OLD, policy)
    assert aws.plane.state().policy == policy
    wanted = autoscaling.sagemaker(policy, "recsys", OLD.name)
    assert aws.plane.read(Key("scaling", f"recsys/{OLD.name}")) == wanted


def test_a_batch_job_is_created_once_with_the_release_that_was_named(aws, emulator):
    rollout.canary(aws, OLD, POLICY)
    name = aws.batch(OLD, "s3://recsys-batch/requests/", "s3://recsys-batch/answers/")
    job = emulator.backend.transform_jobs[name]
    assert job.model_name == f"recsys-{OLD.name}"
    assert job.transform_input["SplitType"] == "Line"


OPERATIONS = ["CreateModel", "CreateEndpointConfig", "UpdateEndpoint", "UpdateEndpointWeightsAndCapacities",
              "DescribeEndpoint", "PutScalingPolicy", "DeleteEndpointConfig", "DeleteModel"]  # fmt: skip
PASSING = [(429, "ThrottlingException"), (500, "InternalFailure"), (503, "ServiceUnavailable")]
LASTING = [(400, "ResourceLimitExceeded"), (403, "ExpiredTokenException")]


def whole_way(target) -> None:
    rollout.canary(target, NEW, POLICY)
    rollout.shift(target, NEW)
    rollout.promote(target, NEW, POLICY)


@pytest.mark.parametrize(("status", "code"), PASSING)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_passes_is_lived_through(aws, emulator, operation, status, code):
    rollout.canary(aws, OLD, POLICY)
    emulator.faults += [(operation, status, code)] * 2
    whole_way(aws)
    assert emulator.faults == []
    assert len(aws.waits) >= 2
    assert aws.shares() == {NEW.name: 100}
    assert not [key for key in aws.plane.owned() if OLD.name in key.name]


@pytest.mark.parametrize(("status", "code"), LASTING)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_lasts_leaves_somebody_serving(aws, emulator, local, operation, status, code):
    rollout.canary(aws, OLD, POLICY)
    emulator.faults += [(operation, status, code)]
    with pytest.raises(CloudFault) as caught:
        whole_way(aws)
    assert not isinstance(caught.value, Transient)
    answered = aws.invoke(REQUEST)
    assert rollout.normal(answered) == rollout.normal(local[answered["model_version"]])
    whole_way(aws)  # the same step again, when the quota or the credentials are there
    assert aws.shares() == {NEW.name: 100}
    assert not [key for key in aws.plane.owned() if OLD.name in key.name]


def test_a_deployment_that_is_stuck_is_taken_back(aws, emulator, monkeypatch):
    rollout.canary(aws, OLD, POLICY)
    endpoint, variants = emulator.backend.endpoints["recsys"], 2
    plain = type(endpoint).response_object.fget

    def stuck(self):
        document = plain(self)
        updating = len(document["ProductionVariants"]) == variants
        return {**document, "EndpointStatus": "Updating"} if updating else document

    monkeypatch.setattr(type(endpoint), "response_object", property(stuck))
    with pytest.raises(NotReady, match="not in service after"):
        rollout.canary(aws, NEW, POLICY)
    assert aws.shares() == {OLD.name: 100}
    assert not [key for key in aws.plane.owned() if NEW.name in key.name]
