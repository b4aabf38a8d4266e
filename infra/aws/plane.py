"""SageMaker by its SDK (version 3), Application Auto Scaling and CloudWatch by boto3; loaded when first needed.

The SDK finds region, credentials and, in a rehearsal, the emulator's address in the environment, as AWS defines it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from infra.aws.blueprint import KINDS, PREFIX, AwsConfig
from infra.targets import CloudFault, Key, NotReady, Release, Transient, digest_of
from recsys.artifacts import REGISTERED_MODEL

POLL_SECONDS = 5
SCALING = {"ServiceNamespace": "sagemaker", "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}
POLICY_TAG = "recsys-scaling"
POLICY_FIELDS = (
    "ServiceNamespace", "ResourceId", "ScalableDimension", "PolicyName", "PolicyType",
    "TargetTrackingScalingPolicyConfiguration", "StepScalingPolicyConfiguration",
)  # fmt: skip
ALARM_FIELDS = (
    "AlarmName", "Namespace", "MetricName", "Dimensions", "ExtendedStatistic", "Unit", "Period", "EvaluationPeriods",
    "Threshold", "ComparisonOperator", "TreatMissingData",
)  # fmt: skip
CREDENTIALS = {"ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId",
               "AccessDenied", "AccessDeniedException"}  # fmt: skip
THROTTLING = {"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"}


class Absent(Exception):
    """AWS says that there is none."""


class AwsPlane:
    """The actual state in one account and region.

    Args:
        sleep: waits between looks at a deployment.
    """

    def __init__(self, config: AwsConfig, sleep: Callable[[float], None]):
        import boto3
        from sagemaker.core import resources, shapes

        self._config, self._sleep, self._sdk, self._shapes = config, sleep, resources, shapes
        session = boto3.Session(region_name=config.region)
        self._common = {"session": session, "region": config.region}
        self._sagemaker = session.client("sagemaker")
        self._scaling = session.client("application-autoscaling")
        self._alarms = session.client("cloudwatch")

    def read(self, key: Key) -> dict[str, Any] | None:
        try:
            with translated(key):
                return getattr(self, f"_read_{key.kind}")(key.name)
        except Absent:
            return None

    def owned(self) -> list[Key]:
        with translated(Key("account", self._config.region)):
            pages = {
                "model": self._sdk.Model.get_all(name_contains=PREFIX, **self._common),
                "endpoint_config": self._sdk.EndpointConfig.get_all(name_contains=PREFIX, **self._common),
                "endpoint": self._sdk.Endpoint.get_all(name_contains=self._config.endpoint, **self._common),
                "model_package_group": self._sdk.ModelPackageGroup.get_all(
                    name_contains=REGISTERED_MODEL, **self._common
                ),
            }
            found = [Key(kind, entry.get_name()) for kind, entries in pages.items() for entry in entries]
            targets = self._scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        variants = (target["ResourceId"].split("/") for target in targets)  # endpoint/E/variant/V
        found += [Key("scaling", f"{end}/{name}") for _, end, _, name in variants if end == self._config.endpoint]
        noted = [Key("scaling_note", key.name) for key in found if key.kind == "endpoint"]
        found += [key for key in noted if self.read(key) is not None]
        ours = (PREFIX, REGISTERED_MODEL)
        return sorted((key for key in found if key.name.startswith(ours)), key=lambda key: KINDS.index(key.kind))

    def create(self, key: Key, spec: dict[str, Any]) -> None:
        with translated(key):
            getattr(self, f"_create_{key.kind}")(key.name, spec)

    def update(self, key: Key, spec: dict[str, Any]) -> None:
        with translated(key):
            if key.kind == "endpoint":
                self._update_endpoint(key.name, spec)
            elif key.kind in ("scaling", "scaling_note"):
                getattr(self, f"_create_{key.kind}")(key.name, spec)
            else:
                raise CloudFault(key.kind, key.name, "It is not what its name says; remove it by hand and deploy again")

    def delete(self, key: Key) -> None:
        try:
            with translated(key):
                if key.kind in ("scaling", "scaling_note"):
                    getattr(self, f"_delete_{key.kind}")(key.name)
                else:
                    self._get(key.kind, key.name).delete()
        except Absent:
            return

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with translated(Key("endpoint", self._config.endpoint)):
            answer = self._get("endpoint", self._config.endpoint).invoke(
                body=json.dumps(request), content_type="application/json", accept="application/json"
            )
        return json.loads(answer.body.read())

    def requests(self, since: datetime, until: datetime) -> int | None:
        name = self._config.endpoint
        with translated(Key("endpoint", name)):
            points = [
                point
                for variant in self._get("endpoint", name).production_variants
                for point in self._alarms.get_metric_statistics(
                    Namespace="AWS/SageMaker", MetricName="Invocations", StartTime=since, EndTime=until, Period=3600,
                    Dimensions=[{"Name": "EndpointName", "Value": name},
                                {"Name": "VariantName", "Value": variant.variant_name}], Statistics=["Sum"],
                )["Datapoints"]
            ]  # fmt: skip
        return round(sum(point["Sum"] for point in points))

    def batch(self, release: Release, source: str, destination: str) -> str:
        """Start a batch transform: each line of the objects below `source` becomes one request."""
        shapes, name = self._shapes, f"{PREFIX}-{release.name}-{digest_of([source, destination])}"
        with suppress(FileExistsError), translated(Key("transform_job", name)):  # its name is its content
            self._sdk.TransformJob.create(
                transform_job_name=name,
                model_name=f"{PREFIX}-{release.name}",
                batch_strategy="SingleRecord",
                transform_input=shapes.TransformInput(
                    data_source=shapes.TransformDataSource(
                        s3_data_source=shapes.TransformS3DataSource(s3_data_type="S3Prefix", s3_uri=source)
                    ),
                    content_type="application/json",
                    split_type="Line",
                ),
                transform_output=shapes.TransformOutput(s3_output_path=destination, assemble_with="Line"),
                transform_resources=shapes.TransformResources(
                    instance_type=self._config.instance_type, instance_count=1
                ),
                **self._common,
            )
        return name

    def _get(self, kind: str, name: str) -> Any:
        classes = {"model": "Model", "endpoint_config": "EndpointConfig", "endpoint": "Endpoint",
                   "model_package_group": "ModelPackageGroup"}  # fmt: skip
        return getattr(self._sdk, classes[kind]).get(name, **self._common)

    def _read_model_package_group(self, name: str) -> dict[str, Any]:
        self._get("model_package_group", name)
        return {}

    def _create_model_package_group(self, name: str, spec: dict[str, Any]) -> None:
        self._sdk.ModelPackageGroup.create(model_package_group_name=name, **self._common)

    def _read_model(self, name: str) -> dict[str, Any]:
        model = self._get("model", name)
        container = model.primary_container
        environment = dict(container.environment)
        return {"image": container.image, "environment": environment, "role": model.execution_role_arn}

    def _create_model(self, name: str, spec: dict[str, Any]) -> None:
        container = self._shapes.ContainerDefinition(image=spec["image"], environment=spec["environment"])
        self._sdk.Model.create(
            model_name=name, primary_container=container, execution_role_arn=spec["role"], **self._common
        )

    def _read_endpoint_config(self, name: str) -> dict[str, Any]:
        return {
            "variants": [
                {
                    "name": variant.variant_name,
                    "model": variant.model_name,
                    "instance_type": variant.instance_type,
                    "count": variant.initial_instance_count,
                    "startup_seconds": variant.container_startup_health_check_timeout_in_seconds,
                }
                for variant in self._get("endpoint_config", name).production_variants
            ]
        }

    def _create_endpoint_config(self, name: str, spec: dict[str, Any]) -> None:
        """All traffic goes to the first variant until the endpoint's weights are set: a newcomer starts with none."""
        self._sdk.EndpointConfig.create(
            endpoint_config_name=name,
            production_variants=[
                self._shapes.ProductionVariant(
                    variant_name=variant["name"],
                    model_name=variant["model"],
                    instance_type=variant["instance_type"],
                    initial_instance_count=variant["count"],
                    initial_variant_weight=0.0 if place else 100.0,
                    container_startup_health_check_timeout_in_seconds=variant["startup_seconds"],
                )
                for place, variant in enumerate(spec["variants"])
            ],
            **self._common,
        )

    def _read_endpoint(self, name: str) -> dict[str, Any]:
        endpoint = self._get("endpoint", name)
        if endpoint.endpoint_status == "Failed":
            return {"config": endpoint.endpoint_config_name, "weights": {}}
        weights = {
            variant.variant_name: round(variant.desired_weight) if isinstance(variant.desired_weight, float) else 0
            for variant in endpoint.production_variants
        }
        return {"config": endpoint.endpoint_config_name, "weights": weights}

    def _create_endpoint(self, name: str, spec: dict[str, Any]) -> None:
        self._sdk.Endpoint.create(endpoint_name=name, endpoint_config_name=spec["config"], **self._common)
        self._wait(name)
        self._weigh(name, spec["weights"])

    def _update_endpoint(self, name: str, spec: dict[str, Any]) -> None:
        endpoint = self._get("endpoint", name)
        if endpoint.endpoint_config_name != spec["config"]:
            endpoint.endpoint_config_name = spec["config"]
            endpoint.update()
            self._wait(name)
            served = self._get("endpoint", name)
            if served.endpoint_config_name != spec["config"]:  # SageMaker went back by itself
                raise NotReady("endpoint", f"{name}: {served.failure_reason}", "See its log in CloudWatch")
        self._weigh(name, spec["weights"])

    def _weigh(self, name: str, weights: Mapping[str, int]) -> None:
        wanted = [
            self._shapes.DesiredWeightAndCapacity(variant_name=variant, desired_weight=float(weight))
            for variant, weight in weights.items()
        ]
        self._get("endpoint", name).update_weights_and_capacities(desired_weights_and_capacities=wanted)
        self._wait(name)

    def _wait(self, name: str) -> None:
        for _ in range(max(1, self._config.wait_seconds // POLL_SECONDS)):
            endpoint = self._get("endpoint", name)
            if endpoint.endpoint_status == "InService":
                return
            if endpoint.endpoint_status in ("Failed", "UpdateRollbackFailed", "RollingBack"):
                raise NotReady(
                    "endpoint",
                    f"{name} is {endpoint.endpoint_status}: {endpoint.failure_reason}",
                    "See its log in CloudWatch",
                )
            self._sleep(POLL_SECONDS)
        raise NotReady("endpoint", name, f"It was not in service after {self._config.wait_seconds} s")

    def _read_scaling_note(self, name: str) -> dict[str, Any]:
        tags = self._sagemaker.list_tags(ResourceArn=self._get("endpoint", name).endpoint_arn)["Tags"]
        found = [tag["Value"] for tag in tags if tag["Key"] == POLICY_TAG]
        if not found:
            raise Absent(name)
        return {"policy": found[0]}

    def _create_scaling_note(self, name: str, spec: dict[str, Any]) -> None:
        arn = self._get("endpoint", name).endpoint_arn
        self._sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": POLICY_TAG, "Value": spec["policy"]}])

    def _delete_scaling_note(self, name: str) -> None:
        arn = self._get("endpoint", name).endpoint_arn
        self._sagemaker.delete_tags(ResourceArn=arn, TagKeys=[POLICY_TAG])

    def _read_scaling(self, name: str) -> dict[str, Any]:
        resource = self._resource(name)
        targets = self._scaling.describe_scalable_targets(ResourceIds=[resource["ResourceId"]], **SCALING)
        if not targets["ScalableTargets"]:
            raise Absent(name)
        (target,) = targets["ScalableTargets"]
        policies = self._scaling.describe_scaling_policies(**resource)["ScalingPolicies"]
        alarms = self._alarms.describe_alarms(AlarmNames=[f"{name.replace('/', '-')}-p95"])["MetricAlarms"]
        return {
            "RegisterScalableTarget": {
                **resource, "MinCapacity": target["MinCapacity"], "MaxCapacity": target["MaxCapacity"],
            },
            "PutScalingPolicy": [
                {field: policy[field] for field in POLICY_FIELDS if field in policy}
                for policy in sorted(policies, key=lambda policy: policy["PolicyName"], reverse=True)
            ],
            "PutMetricAlarm": {field: alarm[field] for alarm in alarms for field in ALARM_FIELDS if field in alarm},
        }  # fmt: skip

    def _create_scaling(self, name: str, spec: dict[str, Any]) -> None:
        self._scaling.register_scalable_target(**spec["RegisterScalableTarget"])
        arns = {
            policy["PolicyType"]: self._scaling.put_scaling_policy(**policy)["PolicyARN"]
            for policy in spec["PutScalingPolicy"]
        }
        self._alarms.put_metric_alarm(**spec["PutMetricAlarm"], AlarmActions=[arns["StepScaling"]])

    def _delete_scaling(self, name: str) -> None:
        self._alarms.delete_alarms(AlarmNames=[f"{name.replace('/', '-')}-p95"])
        for policy in self._scaling.describe_scaling_policies(**self._resource(name))["ScalingPolicies"]:
            self._scaling.delete_scaling_policy(PolicyName=policy["PolicyName"], **self._resource(name))
        self._scaling.deregister_scalable_target(**self._resource(name))

    @staticmethod
    def _resource(name: str) -> dict[str, str]:
        endpoint, variant = name.split("/")
        return {**SCALING, "ResourceId": f"endpoint/{endpoint}/variant/{variant}"}


@contextmanager
def translated(key: Key) -> Iterator[None]:
    """Turn AWS's errors into ours; `Absent` and FileExistsError are part of the answer."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    try:
        yield
    except ClientError as error:
        raise fault_of(error.response, key) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise CloudFault("AWS credentials", error, "Sign in, then run the step again") from error
    except HTTPClientError as error:
        raise Transient(key.kind, error, "AWS is not reached; the step may run again") from error
    except BotoCoreError as error:
        raise CloudFault(key.kind, error, "See the AWS configuration of this machine") from error


def fault_of(response: Mapping[str, Any], key: Key) -> Exception:
    """Return what an error response of AWS means for us."""
    error = response["Error"]
    code, message = error["Code"], error.get("Message", "")
    status = response["ResponseMetadata"]["HTTPStatusCode"]
    what = f"{key.name}: {code} {message}"
    if code in THROTTLING or status == 429 or status >= 500:
        return Transient(key.kind, what, "AWS asks for patience; the step may run again")
    if code in CREDENTIALS:
        return CloudFault("AWS credentials", what, "Renew them or extend the role, then run the step again")
    if code == "ResourceLimitExceeded":
        return CloudFault("AWS quota", what, "Ask for more in Service Quotas, or take a smaller instance type")
    lowered = message.lower()
    if code in ("ResourceNotFound", "ResourceNotFoundException", "ObjectNotFoundException") or (
        code == "ValidationException"
        and any(words in lowered for words in ("could not find", "does not exist", "no scalable target"))
    ):
        return Absent(key.name)
    if code == "ResourceInUse" or "already exist" in lowered:
        return FileExistsError(key.name)
    return CloudFault(key.kind, what, "See the message")
