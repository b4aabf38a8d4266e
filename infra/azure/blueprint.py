"""What Azure ML needs to serve a release: a managed online endpoint with a deployment a release (blue and green).

    environment       recsys-<release>   the image and its routes; an asset, which Azure archives and never deletes
    endpoint          recsys             an address with a key; costs nothing while nothing is deployed
    deployment        recsys/<release>   machines with the container
    traffic           recsys             the endpoint's percents; with the scaling policy, as a tag
    scaling           recsys/<release>   an autoscale setting of Azure Monitor for one deployment
    compute           recsys-batch       a cluster that is empty while no batch runs
    batch_endpoint    recsys-batch       an address for batches
    batch_deployment  recsys-batch/<release>

Azure drops percents of 0: a release without traffic is none, and is removed by the next change.
"""

from typing import Any

from pydantic import Field

from infra import autoscaling
from infra.blueprint import Read, State, state_of
from infra.prices import price
from infra.targets import Frozen, Key, Release, Resource

KINDS = ("environment", "endpoint", "deployment", "traffic", "scaling", "compute", "batch_endpoint", "batch_deployment")
PREFIX = "recsys"


class AzureConfig(Frozen):
    """Where in Azure. Credentials are the SDK's matter (`DefaultAzureCredential`) and stand nowhere in the project."""

    subscription: str = Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    resource_group: str = Field(min_length=1)
    workspace: str = Field(min_length=1)
    registry: str = Field(description="Container Registry, e.g. recsys.azurecr.io")
    location: str = Field("eastus", pattern=r"^[a-z0-9]+$")
    instance_type: str = Field("Standard_F2s_v2", description="a row of infra/prices.py")
    start_instances: int = Field(1, ge=1, description="of a new deployment, until its scaling takes over")
    endpoint: str = Field(PREFIX, pattern=r"^recsys[a-z0-9-]{0,20}$", description="one of its name in a region")
    batch_code: str = Field("recsys-batch:1", description="code asset with serving/lines.py; registered once by hand")
    wait_seconds: int = Field(1800, ge=1, description="until a deployment counts as stuck")
    poll_seconds: float = Field(5, gt=0, description="between looks at an operation")
    management: str = Field("", description="another address of the management API, as of a sovereign cloud")

    @property
    def workspace_id(self) -> str:
        """The workspace's name for Azure Resource Manager."""
        group = f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
        return f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace}"

    def deployment_id(self, release: str) -> str:
        return f"{self.workspace_id}/onlineEndpoints/{self.endpoint}/deployments/{release}"


class AzureBlueprint:
    """The resources of a state."""

    name, kinds = "azure", KINDS
    free = ("environment", "endpoint", "compute", "batch_endpoint")

    def __init__(self, config: AzureConfig):
        self.config, self.registry = config, config.registry

    def resources(self, state: State) -> list[Resource]:
        served = [release for release in state.releases if state.shares[release.name]]
        if not served:
            return []
        config, batch = self.config, f"{self.config.endpoint}-batch"
        row = price("azure", config.instance_type)
        least = state.policy.min_replicas if state.policy else config.start_instances
        found = [
            Resource(kind="environment", name=f"{PREFIX}-{release.name}", spec={"image": release.image})
            for release in served
        ]
        found.append(Resource(kind="endpoint", name=config.endpoint, spec={"auth_mode": "key"}))
        found += [
            Resource(
                kind="deployment",
                name=f"{config.endpoint}/{release.name}",
                spec=self._machines(release),
                monthly_usd=row.monthly(least),
                priced_by=f"azure {config.instance_type}",
            )
            for release in served
        ]
        note = {"policy": state.policy.told()} if state.policy else {}
        shares = {release.name: state.shares[release.name] for release in served}
        found.append(Resource(kind="traffic", name=config.endpoint, spec={"shares": shares, **note}))
        if state.policy:
            found += [
                Resource(
                    kind="scaling",
                    name=f"{config.endpoint}/{release.name}",
                    spec=autoscaling.azure(state.policy, config.deployment_id(release.name)),
                )
                for release in served
            ]
        cluster = {"instance_type": config.instance_type, "min_instances": 0, "max_instances": 1}
        found.append(Resource(kind="compute", name=batch, spec=cluster))
        found.append(Resource(kind="batch_endpoint", name=batch, spec={}))
        found += [
            Resource(
                kind="batch_deployment",
                name=f"{batch}/{release.name}",
                spec={"environment": f"{PREFIX}-{release.name}", "compute": batch, "code": config.batch_code},
            )
            for release in served
        ]
        return found

    def state(self, read: Read) -> State:
        def release_of(name: str) -> Release | None:
            environment = read(Key("environment", f"{PREFIX}-{name}"))
            deployment = read(Key("deployment", f"{self.config.endpoint}/{name}"))
            if environment is None or deployment is None:
                return None
            return Release(version=deployment["variables"]["RECSYS_RELEASE"], image=environment["image"])

        return state_of(read(Key("traffic", self.config.endpoint)), release_of)

    def _machines(self, release: Release) -> dict[str, Any]:
        return {
            "environment": f"{PREFIX}-{release.name}",
            "instance_type": self.config.instance_type,
            "variables": {"RECSYS_RELEASE": release.version},
        }
