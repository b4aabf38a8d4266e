"""What SageMaker needs to serve a release: a container of our own behind a real-time endpoint with production variants.

    model_package_group   recommender            the registry's name in SageMaker
    model                 recsys-<release>       the image (BYOC: `serve`, /ping, /invocations, port 8080)
    endpoint_config       recsys-<digest>        one variant a release; immutable, so its name is its content
    endpoint              recsys                 points at a configuration; holds the weights
    scaling_note          recsys                 the scaling policy, as a tag of the endpoint: what to ask of a newcomer
    scaling               recsys/<release>       Application Auto Scaling of one variant

A shift of traffic changes the endpoint's weights alone; a new release makes a new configuration beside the old one,
which serves until SageMaker has the new variant in service.
"""

from typing import Any

from pydantic import Field

from infra import autoscaling
from infra.autoscaling import ScalingPolicy
from infra.blueprint import Read, State, state_of
from infra.prices import price
from infra.targets import Frozen, Key, Release, Resource, digest_of
from recsys.artifacts import REGISTERED_MODEL

KINDS = ("model_package_group", "model", "endpoint_config", "endpoint", "scaling_note", "scaling")
PREFIX = "recsys"


class AwsConfig(Frozen):
    """Where in AWS. Credentials are the SDK's matter and stand nowhere in the project."""

    region: str = Field("us-east-1", pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    role_arn: str = Field(pattern=r"^arn:aws:iam::\d{12}:role/.+$", description="what the containers may do")
    registry: str = Field(description="ECR registry, e.g. 123456789012.dkr.ecr.us-east-1.amazonaws.com")
    instance_type: str = Field("ml.c5.large", description="a row of infra/prices.py")
    start_instances: int = Field(1, ge=1, description="of a new variant, until its scaling takes over")
    endpoint: str = Field(PREFIX, pattern=r"^recsys[a-z0-9-]{0,40}$")
    startup_seconds: int = Field(120, ge=60, le=3600, description="SageMaker's patience with /ping of a new container")
    wait_seconds: int = Field(1800, ge=1, description="until a deployment counts as stuck")


class AwsBlueprint:
    """The resources of a state."""

    name, kinds, free = "aws", KINDS, ("model_package_group", "model")

    def __init__(self, config: AwsConfig):
        self.config, self.registry = config, config.registry

    def resources(self, state: State) -> list[Resource]:
        if not state.releases:
            return []
        group = Resource(kind="model_package_group", name=REGISTERED_MODEL, spec={})
        models = [
            Resource(
                kind="model",
                name=f"{PREFIX}-{release.name}",
                spec={
                    "image": release.image,
                    "environment": {"RECSYS_RELEASE": release.version},
                    "role": self.config.role_arn,
                },
            )
            for release in state.releases
        ]
        variants = [self._variant(release.name) for release in state.releases]
        name = f"{PREFIX}-{digest_of(variants)}"
        weights = {variant["name"]: state.shares[variant["name"]] for variant in variants}
        row = price("aws", self.config.instance_type)
        least = state.policy.min_replicas if state.policy else self.config.start_instances
        return [
            group,
            *models,
            Resource(kind="endpoint_config", name=name, spec={"variants": variants}),
            Resource(
                kind="endpoint",
                name=self.config.endpoint,
                spec={"config": name, "weights": weights},
                monthly_usd=row.monthly(least * len(variants)),
                priced_by=f"aws {self.config.instance_type}",
            ),
            *self._scaling(state.policy, [variant["name"] for variant in variants]),
        ]

    def state(self, read: Read) -> State:
        def release_of(name: str) -> Release | None:
            model = read(Key("model", f"{PREFIX}-{name}"))
            return model and Release(version=model["environment"]["RECSYS_RELEASE"], image=model["image"])

        endpoint = read(Key("endpoint", self.config.endpoint))
        if endpoint is None:
            return state_of(None, release_of)
        note = read(Key("scaling_note", self.config.endpoint))
        return state_of({"shares": endpoint["weights"], "policy": note and note["policy"]}, release_of)

    def _variant(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "model": f"{PREFIX}-{name}",
            "instance_type": self.config.instance_type,
            "count": self.config.start_instances,
            "startup_seconds": self.config.startup_seconds,
        }

    def _scaling(self, policy: ScalingPolicy | None, variants: list[str]) -> list[Resource]:
        if policy is None:
            return []
        endpoint = self.config.endpoint
        return [
            Resource(kind="scaling_note", name=endpoint, spec={"policy": policy.told()}),
            *(
                Resource(kind="scaling", name=f"{endpoint}/{name}", spec=autoscaling.sagemaker(policy, endpoint, name))
                for name in variants
            ),
        ]
