"""The rehearsal of AWS: SageMaker's own SDK against the emulator, real serving processes behind the endpoint.

Runs in the cloud environment only (`make rehearse`); its name keeps it out of the default suite.
"""

import json
import os

import pytest

from infra import autoscaling, rollout
from infra.autoscaling import ScalingPolicy
from infra.aws.blueprint import AwsBlueprint, AwsConfig
from infra.targets import CloudFault, Key
from tests.clouds import sdks
from tests.clouds.conformance import POLICY, REQUEST
from tests.clouds.processes import bundles, local, serving
from tests.clouds.rehearsed import OLD, Rehearsal, Rehearsed, lines

FIXTURES = (bundles, local, serving, sdks)
CONFIG = AwsConfig(
    role_arn="arn:aws:iam::123456789012:role/recsys-serving", registry="123456789012.dkr.ecr.us-east-1.amazonaws.com",
    wait_seconds=60,
)  # fmt: skip


@pytest.fixture(scope="session")
def emulator(serving):
    os.environ.update(
        AWS_DEFAULT_REGION="us-east-1", AWS_ACCESS_KEY_ID="rehearsal", AWS_SECRET_ACCESS_KEY="rehearsal",
        AWS_MAX_ATTEMPTS="1", AWS_EC2_METADATA_DISABLED="true", SAGEMAKER_TELEMETRY_OPT_OUT="true",
    )  # fmt: skip
    from tests.clouds.aws_emulator import AwsEmulator

    emulator = AwsEmulator(serving)
    os.environ["AWS_ENDPOINT_URL"] = emulator.url
    yield emulator
    emulator.close()


@pytest.fixture(scope="session")
def plane(emulator):
    """One for all: boto3 reads SageMaker's model, seconds of work, for each session anew."""
    from infra.aws.plane import AwsPlane

    return AwsPlane(CONFIG, lambda seconds: None)


@pytest.fixture
def cloud(emulator, plane, tmp_path):
    waits: list[float] = []
    rehearsal = Rehearsal(AwsBlueprint(CONFIG), plane, emulator, tmp_path / "l.jsonl", waits)
    assert plane.owned() == []
    yield rehearsal
    rehearsal.clean()


@pytest.fixture(scope="session")
def storage(emulator):
    import boto3

    client = boto3.client("s3", region_name="us-east-1", config=boto3.session.Config(s3={"addressing_style": "path"}))
    client.create_bucket(Bucket="recsys-batch")
    return client


@pytest.fixture
def requests_uri(storage):
    body = lines([REQUEST, {"user_id": "tiny:2", "k": 3}]).encode()
    storage.put_object(Bucket="recsys-batch", Key="requests/a.jsonl", Body=body)
    return "s3://recsys-batch/requests/"


@pytest.fixture
def answers_uri():
    return "s3://recsys-batch/answers/"


class TestAws(Rehearsed):
    def test_scaling_arrives_as_the_policy_says(self, cloud):
        policy = ScalingPolicy(max_replicas=7, capacity=150.0)
        rollout.canary(cloud.target, OLD, policy)
        wanted = autoscaling.sagemaker(policy, "recsys", OLD.name)
        assert cloud.plane.read(Key("scaling", f"recsys/{OLD.name}")) == wanted

    def test_a_batch_answers_as_the_endpoint_does(self, cloud, local, storage, requests_uri, answers_uri):
        rollout.canary(cloud.target, OLD, POLICY)
        cloud.target.batch(OLD, requests_uri, answers_uri)
        content = storage.get_object(Bucket="recsys-batch", Key="answers/a.jsonl.out")["Body"].read()
        first, second = map(json.loads, content.splitlines())
        assert rollout.normal(first) == rollout.normal(local["1"])
        assert len(second["items"]) == 3

    def test_without_credentials_nothing_is_asked(self, emulator, monkeypatch, tmp_path):
        from infra.aws.plane import AwsPlane

        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(CloudFault, match="Sign in"):
            AwsPlane(CONFIG, lambda seconds: None).owned()

    def test_another_region_has_none_of_it(self, cloud):
        from infra.aws.plane import AwsPlane

        rollout.canary(cloud.target, OLD, POLICY)
        elsewhere = AwsPlane(CONFIG.model_copy(update={"region": "eu-west-1"}), lambda seconds: None)
        assert elsewhere.owned() == []
        assert cloud.target.shares() == {OLD.name: 100}

    def test_a_service_on_ecs_scales_by_the_same_policy(self, cloud):
        """Application Auto Scaling takes the configuration as it is and tells it back."""
        import boto3

        ecs, scaling = boto3.client("ecs"), boto3.client("application-autoscaling")
        ecs.create_cluster(clusterName="recsys")
        ecs.register_task_definition(
            family="recsys", containerDefinitions=[{"name": "serving", "image": "recsys:1", "memory": 1024}]
        )
        ecs.create_service(cluster="recsys", serviceName="serving", taskDefinition="recsys", desiredCount=2)
        balancer, group = "app/recsys/0123456789abcdef", "targetgroup/recsys/fedcba9876543210"
        wanted = autoscaling.ecs(POLICY, "recsys", "serving", balancer, group)
        scaling.register_scalable_target(**wanted["RegisterScalableTarget"])
        for policy in wanted["PutScalingPolicy"]:
            scaling.put_scaling_policy(**policy)
        told = scaling.describe_scaling_policies(ServiceNamespace="ecs")["ScalingPolicies"]
        assert [{name: each[name] for name in policy} for policy, each in
                zip(wanted["PutScalingPolicy"], told, strict=True)] == wanted["PutScalingPolicy"]  # fmt: skip
        (target,) = scaling.describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"]
        assert (target["MinCapacity"], target["MaxCapacity"]) == (POLICY.min_replicas, POLICY.max_replicas)
        boto3.client("cloudwatch").put_metric_alarm(**wanted["PutMetricAlarm"])
