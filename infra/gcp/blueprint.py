"""What Vertex AI needs to serve a release: a container of our own, deployed beside the others on one endpoint.

    endpoint     recsys              an address; costs nothing while nothing is deployed on it
    model        recsys-<release>    the image, its routes and its port
    deployment   recsys/<release>    a model on the endpoint: machines, their number and how it scales (DeployedModel)
    traffic      recsys              the endpoint's split; with the scaling policy, in its description

The split and the note are one field mask of one resource, so they change together or not at all.
"""

import hashlib
from typing import Any

from pydantic import Field

from infra import autoscaling
from infra.autoscaling import ScalingPolicy
from infra.blueprint import Read, State, state_of
from infra.prices import price
from infra.targets import Frozen, Key, Release, Resource

KINDS = ("endpoint", "model", "deployment", "traffic")
PREFIX = "recsys"
PORT = 8080


class GcpConfig(Frozen):
    """Where in Google Cloud. Credentials are the SDK's matter (application default) and stand nowhere here."""

    project: str = Field(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")
    location: str = Field("us-central1", pattern=r"^[a-z]+-[a-z]+\d$")
    registry: str = Field(description="Artifact Registry, e.g. us-central1-docker.pkg.dev/project/recsys")
    service_account: str = Field(
        pattern=r"^[^@]+@[^@]+\.iam\.gserviceaccount\.com$", description="what the containers may do"
    )
    machine_type: str = Field("n1-standard-2", description="a row of infra/prices.py")
    start_replicas: int = Field(1, ge=1, description="of a new deployment, until its scaling takes over")
    endpoint: str = Field(PREFIX, pattern=r"^recsys[a-z0-9-]{0,40}$")
    wait_seconds: int = Field(1800, ge=1, description="until a deployment counts as stuck")
    api_endpoint: str = Field(
        "", description="another address of the API, e.g. of Private Service Connect; over http:// nobody signs in"
    )


def deployed_id(name: str) -> str:
    """Return a release's id on the endpoint: Vertex AI takes one to ten digits."""
    return str(int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10**10)


class GcpBlueprint:
    """The resources of a state."""

    name, kinds, free = "gcp", KINDS, ("endpoint", "model")

    def __init__(self, config: GcpConfig):
        self.config, self.registry = config, config.registry

    def resources(self, state: State) -> list[Resource]:
        if not state.releases:
            return []
        endpoint = self.config.endpoint
        row = price("gcp", self.config.machine_type)
        scaling = self._scaling(state.policy)
        models = [
            Resource(
                kind="model",
                name=f"{PREFIX}-{release.name}",
                spec={"image": release.image, "environment": {"RECSYS_RELEASE": release.version}},
            )
            for release in state.releases
        ]
        deployments = [
            Resource(
                kind="deployment",
                name=f"{endpoint}/{release.name}",
                spec={
                    "model": f"{PREFIX}-{release.name}",
                    "machine_type": self.config.machine_type,
                    "service_account": self.config.service_account,
                    **scaling,
                },
                monthly_usd=row.monthly(scaling["minReplicaCount"]),
                priced_by=f"gcp {self.config.machine_type}",
            )
            for release in state.releases
        ]
        note = {"policy": state.policy.told()} if state.policy else {}
        shares = {release.name: state.shares[release.name] for release in state.releases}
        traffic = Resource(kind="traffic", name=endpoint, spec={"shares": shares, **note})
        return [Resource(kind="endpoint", name=endpoint, spec={}), *models, *deployments, traffic]

    def state(self, read: Read) -> State:
        def release_of(name: str) -> Release | None:
            model = read(Key("model", f"{PREFIX}-{name}"))
            return model and Release(version=model["environment"]["RECSYS_RELEASE"], image=model["image"])

        return state_of(read(Key("traffic", self.config.endpoint)), release_of)

    def _scaling(self, policy: ScalingPolicy | None) -> dict[str, Any]:
        if policy:
            return autoscaling.vertex(policy)
        start = self.config.start_replicas
        return {"minReplicaCount": start, "maxReplicaCount": start, "autoscalingMetricSpecs": []}
