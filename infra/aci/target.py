"""Azure Container Instances behind Traffic Manager: the cheap option beside Azure ML's managed endpoints.

    deployment   recsys/<release>   a container group with one container and a DNS name of its own
    traffic      recsys             a Traffic Manager profile: DNS answers by weight; the scaling policy is its tag

One core and 1 GiB a release, and no second instance. What is given up for the price: shares are those of DNS answers,
which a client keeps for `TTL_S`; nothing scales (the policy is noted, as on one machine); the address is plain HTTP.
For a release that is tried, or traffic that one core carries; put a gateway with TLS before it if users come.
Source: Azure REST API "Container Groups - Create Or Update", "Profiles - Create Or Update", "Metrics - List".
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from pydantic import Field

from infra.blueprint import Read, ServingPlane, State, state_of_deployments, traffic_of
from infra.prices import price
from infra.targets import CloudFault, Frozen, Key, NotReady, Release, Resource, digest_of

KINDS = ("deployment", "traffic")
PREFIX, SHAPE = "recsys", "1 core, 1 GiB"
MANAGEMENT = "https://management.azure.com"
GROUPS, PROFILES, STORAGE, METRICS = "2023-05-01", "2022-04-01", "2023-05-01", "2023-10-01"
"""Versions of the four APIs."""
PORT, TTL_S, RESTARTS = 8080, 30, 3
POLICY_TAG, OURS = "recsys-scaling", {"recsys": "serving"}
EXTERNAL = "Microsoft.Network/trafficManagerProfiles/externalEndpoints"
COMMAND = ["python", "-m", "serving"]
"""A container group's command replaces the image's entry point."""


class Config(Frozen):
    """Where in Azure. Credentials are the SDK's matter (`DefaultAzureCredential`) and stand nowhere in the project."""

    subscription: str = Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    resource_group: str = Field(min_length=1)
    registry: str = Field(description="Container Registry, e.g. recsys.azurecr.io")
    identity: str = Field(pattern=r"^/subscriptions/.+/userAssignedIdentities/.+$", description="that pulls the image")
    location: str = Field("eastus", pattern=r"^[a-z0-9]+$")
    endpoint: str = Field(PREFIX, pattern=r"^recsys[a-z0-9-]{0,20}$", description="DNS name, one in all of Azure")
    url: str = Field("", description="another address of the profile, as of a gateway before it")
    storage_account: str = Field("recsys", description="whose file share holds the batches")
    share: str = Field("recsys-batches", description="file share; its key is asked for when a batch starts")
    wait_seconds: float = Field(900, ge=1, description="until a deployment counts as stuck")
    poll_seconds: float = Field(5, gt=0, description="between looks at a container group")
    management: str = Field("", description="another address of the management API, as of a sovereign cloud")

    @property
    def address(self) -> str:
        return self.url or f"http://{self.endpoint}.trafficmanager.net:{PORT}"


class Blueprint:
    """The resources of a state."""

    name, kinds, free = "aci", KINDS, ()

    def __init__(self, config: Config):
        self.config, self.registry = config, config.registry

    def resources(self, state: State) -> list[Resource]:
        if not state.releases:
            return []
        row = price("aci", SHAPE)
        found = [
            Resource(
                kind="deployment",
                name=f"{PREFIX}/{release.name}",
                spec={"image": release.image, "version": release.version, "cpu": row.cores, "memory": row.memory_gib,
                      "location": self.config.location},
                monthly_usd=row.monthly(),
                priced_by=f"aci {SHAPE}",
            )
            for release in state.releases
        ]  # fmt: skip
        return [*found, traffic_of(state, PREFIX)]

    def state(self, read: Read) -> State:
        return state_of_deployments(read, PREFIX)


class AciPlane:
    """The actual state in one resource group, by the management API itself.

    Args:
        sleep: waits between looks at a container group.
        credential: what signs in; None: whatever `DefaultAzureCredential` finds.
    """

    def __init__(self, config: Config, sleep: Callable[[float], None], credential: Any = None):
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, HeadersPolicy
        from azure.identity import DefaultAzureCredential

        self._config, self._sleep = config, sleep
        self._management = config.management or MANAGEMENT
        signs = BearerTokenCredentialPolicy(credential or DefaultAzureCredential(), f"{self._management}/.default")
        self._arm = PipelineClient(self._management, policies=[HeadersPolicy(), signs])
        self._endpoint = PipelineClient(config.address, policies=[HeadersPolicy()])

    def read(self, key: Key) -> dict[str, Any] | None:
        found = self._found(key)
        if found is None:
            return None
        if key.kind == "traffic":
            endpoints = {each["name"]: each["properties"] for each in found["properties"]["endpoints"]}
            shares = {name: given["weight"] if given["endpointStatus"] == "Enabled" else 0
                      for name, given in endpoints.items()}  # fmt: skip
            policy = found.get("tags", {}).get(POLICY_TAG)
            return {"shares": shares, **({"policy": policy} if policy else {})}
        if not runs(found):
            return None  # begun by a process that did not live to see it, or failed: it is asked for again
        (container,) = (each["properties"] for each in found["properties"]["containers"])
        variables = {each["name"]: each["value"] for each in container["environmentVariables"]}
        asked = container["resources"]["requests"]
        return {"image": container["image"], "version": variables["RECSYS_RELEASE"], "cpu": asked["cpu"],
                "memory": asked["memoryInGB"], "location": found["location"]}  # fmt: skip

    def owned(self) -> list[Key]:
        listed = self._asked(Key("resource group", self._config.resource_group), "GET", self._groups()) or {"value": []}
        names = [each["name"] for each in listed["value"] if each.get("tags", {}).get("recsys") == OURS["recsys"]]
        found = [Key("deployment", f"{PREFIX}/{name.removeprefix(f'{PREFIX}-')}") for name in names]
        traffic = Key("traffic", PREFIX)
        return [*found, *([traffic] if self._found(traffic) else [])]

    def create(self, key: Key, spec: dict[str, Any]) -> None:
        document = self._profile(spec) if key.kind == "traffic" else self._group(key.name.partition("/")[2], spec)
        if self._asked(key, "PUT", self._url(key), document) is None:
            raise CloudFault("resource group", f"no {self._config.resource_group}", "See subscription and "
                             "resource_group in RECSYS_CLOUDS")  # fmt: skip
        if key.kind == "deployment":
            self._settled(key)

    update = create

    def delete(self, key: Key) -> None:
        self._asked(key, "DELETE", self._url(key))

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        from azure.core.rest import HttpRequest

        return self._answered(Key("endpoint", PREFIX), self._endpoint, HttpRequest(
            "POST", f"{self._config.address}/invocations", json=dict(request)
        ))  # fmt: skip

    def requests(self, since: datetime, until: datetime) -> int | None:
        """Container Instances count no requests; where nobody asks for the name, nobody asks the endpoint."""
        profile = self._url(Key("traffic", PREFIX)).partition("?")[0]
        asked = urlencode({
            "api-version": METRICS, "metricnames": "QpsByEndpoint", "aggregation": "Total", "interval": "PT1H",
            "timespan": f"{since:%Y-%m-%dT%H:%M:%SZ}/{until:%Y-%m-%dT%H:%M:%SZ}",
        })  # fmt: skip
        url = f"{profile}/providers/Microsoft.Insights/metrics?{asked}"
        said = self._asked(Key("metric", "QpsByEndpoint"), "GET", url) or {"value": []}
        points = [point for metric in said["value"] for series in metric["timeseries"] for point in series["data"]]
        return round(sum(point.get("total", 0.0) for point in points))

    def batch(self, release: Release, source: str, destination: str) -> str:
        """Start a group that ends with its work, over files of the share; its name is its content."""
        name = f"{PREFIX}-batch-{release.name}-{digest_of([source, destination])}"
        key, spec = Key("batch", name), {"image": release.image, "version": release.version, "cpu": 1, "memory": 1}
        url = f"{self._groups().partition('?')[0]}/{name}?api-version={GROUPS}"
        if self._asked(key, "GET", url) is not None:
            return name
        account = (f"{self._parent()}/Microsoft.Storage/storageAccounts/{self._config.storage_account}"
                   f"/listKeys?api-version={STORAGE}")  # fmt: skip
        keys = self._asked(Key("storage account", self._config.storage_account), "POST", account)
        if keys is None:
            raise CloudFault("storage account", self._config.storage_account, "Make it, with a file share for batches")
        group = self._group(release.name, spec)
        group["tags"] = {"recsys": "batch"}
        properties = group["properties"] | {"restartPolicy": "Never", "volumes": [{"name": "batch", "azureFile": {
            "shareName": self._config.share, "storageAccountName": self._config.storage_account,
            "storageAccountKey": keys["keys"][0]["value"],
        }}]}  # fmt: skip
        properties.pop("ipAddress")
        (container,) = properties["containers"]
        for field in ("ports", "livenessProbe", "readinessProbe"):
            container["properties"].pop(field)
        container["properties"]["command"] = [*COMMAND, "lines", f"/batch/{source}", f"/batch/{destination}"]
        container["properties"]["volumeMounts"] = [{"name": "batch", "mountPath": "/batch"}]
        with suppress(FileExistsError):
            self._asked(key, "PUT", url, group | {"properties": properties})
        return name

    def _group(self, release: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        def probe(path: str) -> dict[str, Any]:
            return {"httpGet": {"path": path, "port": PORT}, "periodSeconds": 5, "failureThreshold": 12}

        ports = [{"protocol": "TCP", "port": PORT}]
        container = {
            "image": spec["image"], "command": [*COMMAND, "serve"], "ports": ports,
            "environmentVariables": [{"name": "RECSYS_RELEASE", "value": spec["version"]}],
            "resources": {"requests": {"cpu": spec["cpu"], "memoryInGB": spec["memory"]}},
            "livenessProbe": probe("/healthz"), "readinessProbe": probe("/readyz"),
        }  # fmt: skip
        properties = {
            "osType": "Linux", "sku": "Standard", "restartPolicy": "Always",
            "containers": [{"name": "serving", "properties": container}],
            "imageRegistryCredentials": [{"server": self._config.registry, "identity": self._config.identity}],
            "ipAddress": {"type": "Public", "dnsNameLabel": f"{self._config.endpoint}-{release}", "ports": ports},
        }  # fmt: skip
        identity = {"type": "UserAssigned", "userAssignedIdentities": {self._config.identity: {}}}
        return {"location": self._config.location, "tags": OURS, "identity": identity, "properties": properties}

    def _profile(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        config = self._config
        endpoints = [
            {"name": name, "type": EXTERNAL, "properties": {
                "target": f"{config.endpoint}-{name}.{config.location}.azurecontainer.io",
                "weight": max(share, 1), "endpointStatus": "Enabled" if share else "Disabled",
            }}
            for name, share in spec["shares"].items()
        ]  # fmt: skip
        properties = {
            "profileStatus": "Enabled", "trafficRoutingMethod": "Weighted", "endpoints": endpoints,
            "dnsConfig": {"relativeName": config.endpoint, "ttl": TTL_S},
            "monitorConfig": {"protocol": "HTTP", "port": PORT, "path": "/readyz"},
        }  # fmt: skip
        tags = OURS | ({POLICY_TAG: spec["policy"]} if "policy" in spec else {})
        return {"location": "global", "tags": tags, "properties": properties}

    def _settled(self, key: Key) -> None:
        """Return when the container runs and is ready.

        Raises:
            NotReady: it is not in time, it failed, or it was started again and again.
        """
        for _ in range(max(1, int(self._config.wait_seconds // self._config.poll_seconds))):
            found = self._found(key) or {"properties": {}}
            if runs(found):
                return
            state, times = found["properties"].get("provisioningState"), restarts(found)
            if state == "Failed" or times >= RESTARTS:
                why = f"{key.name}: {state}, started again {times} times"
                raise NotReady("deployment", why, "See `az container logs` and `az container show`")
            self._sleep(self._config.poll_seconds)
        raise NotReady("deployment", key.name, f"It did not run after {self._config.wait_seconds:g} s")

    def _found(self, key: Key) -> dict[str, Any] | None:
        return self._asked(key, "GET", self._url(key))

    def _parent(self) -> str:
        return f"/subscriptions/{self._config.subscription}/resourceGroups/{self._config.resource_group}/providers"

    def _groups(self) -> str:
        return f"{self._parent()}/Microsoft.ContainerInstance/containerGroups?api-version={GROUPS}"

    def _url(self, key: Key) -> str:
        if key.kind == "traffic":
            return f"{self._parent()}/Microsoft.Network/trafficmanagerprofiles/{key.name}?api-version={PROFILES}"
        return f"{self._groups().partition('?')[0]}/{key.name.replace('/', '-')}?api-version={GROUPS}"

    def _asked(self, key: Key, method: str, url: str, document: Any = None) -> dict[str, Any] | None:
        """Return what the management API says; None where it is not there."""
        from azure.core.rest import HttpRequest

        return self._answered(key, self._arm, HttpRequest(method, f"{self._management}{url}", json=document))

    def _answered(self, key: Key, client: Any, request: Any) -> dict[str, Any] | None:
        from infra.azure.plane import Absent, translated

        try:
            with translated(key):
                answered = client.send_request(request)
                answered.raise_for_status()
                return json.loads(answered.content) if answered.content else {}
        except Absent:
            return None


def runs(group: Mapping[str, Any]) -> bool:
    """Return whether the group is made and its container ready."""
    properties = group["properties"]
    return (properties.get("provisioningState"), properties.get("instanceView", {}).get("state")) == (
        "Succeeded",
        "Running",
    )


def restarts(group: Mapping[str, Any]) -> int:
    views = [each["properties"].get("instanceView", {}) for each in group["properties"].get("containers", ())]
    return max((view.get("restartCount", 0) for view in views), default=0)


def plane(config: Config, sleep: Callable[[float], None]) -> ServingPlane:
    """Return the control plane; the SDK is loaded here."""
    return AciPlane(config, sleep)
