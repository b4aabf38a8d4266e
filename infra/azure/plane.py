"""Azure ML by its SDK, Azure Monitor's autoscale settings by the management API itself; loaded when first needed."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from infra.azure.blueprint import KINDS, PREFIX, AzureConfig
from infra.targets import CloudFault, Key, NotReady, Release, Transient, digest_of

POLICY_TAG = "recsys-scaling"
MANAGEMENT = "https://management.azure.com"
AUTOSCALE = "2022-10-01"
"""Version of Azure Monitor's autoscale API."""
METRICS = "2023-10-01"
"""Of its metrics."""
WORKSPACES = "2024-04-01"
"""Of Azure ML's workspaces."""
VERSION = "1"
"""Of our environments: their names are their content."""
REQUEST_SECONDS, PROBE_SECONDS = 5, 2


class Absent(Exception):
    """Azure says that there is none."""


class AzurePlane:
    """The actual state in one workspace.

    Args:
        sleep: not used; Azure's SDK waits by itself, `poll_seconds` at a time.
        credential: what signs in; None: whatever `DefaultAzureCredential` finds.
    """

    def __init__(self, config: AzureConfig, sleep: Callable[[float], None], credential: Any = None):
        from azure.ai.ml import MLClient, entities
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, HeadersPolicy
        from azure.identity import DefaultAzureCredential

        self._config, self._entities = config, entities
        management = config.management or MANAGEMENT
        credential = credential or DefaultAzureCredential()
        elsewhere = {
            "cloud": f"at {management}",
            "cloud_metadata": {
                name: management
                for name in ("resource_manager", "active_directory", "aml_resource_id", "azure_portal")
            } | {"storage_endpoint": "core.windows.net", "registry_discovery_endpoint": management},
        } if config.management else {}  # fmt: skip
        self._ml = MLClient(
            credential, config.subscription, config.resource_group, config.workspace,
            enable_telemetry=False, show_progress=False, retry_total=0, polling_interval=config.poll_seconds,
            **elsewhere,
        )  # fmt: skip
        signs = BearerTokenCredentialPolicy(credential, f"{management}/.default")
        self._management, self._arm = management, PipelineClient(management, policies=[HeadersPolicy(), signs])

    def read(self, key: Key) -> dict[str, Any] | None:
        try:
            with translated(key):
                return getattr(self, f"_read_{key.kind}")(key.name)
        except Absent:
            return None

    def check_place(self) -> None:
        """Return if the workspace is there, in the region that the file names.

        Raises:
            CloudFault: it is not.
        """
        config, where = self._config, "See subscription, resource_group, workspace and location in RECSYS_CLOUDS"
        try:
            with translated(Key("workspace", config.workspace)):
                there = self._asked("GET", f"{config.workspace_id}?api-version={WORKSPACES}")["location"]
        except Absent as absent:
            raise CloudFault("workspace", f"{config.workspace} is not in {config.resource_group}", where) from absent
        if there != config.location:
            raise CloudFault("region", f"{config.workspace} is in {there}, not in {config.location}", where)

    def owned(self) -> list[Key]:
        self.check_place()
        config, ml, batch = self._config, self._ml, f"{self._config.endpoint}-batch"
        found: list[Key] = []
        with translated(Key("workspace", config.workspace)):
            found += [Key("environment", each.name) for each in ml.environments.list() if each.name.startswith(PREFIX)]
            if any(each.name == config.endpoint for each in ml.online_endpoints.list()):
                found.append(Key("endpoint", config.endpoint))
                deployments = [each.name for each in ml.online_deployments.list(config.endpoint)]
                found += [Key("deployment", f"{config.endpoint}/{name}") for name in deployments]
                found += [Key("scaling", name) for name in self._settings()]
            found += [Key("compute", each.name) for each in ml.compute.list() if each.name == batch]
            if any(each.name == batch for each in ml.batch_endpoints.list()):
                found.append(Key("batch_endpoint", batch))
                found += [Key("batch_deployment", f"{batch}/{each.name}") for each in ml.batch_deployments.list(batch)]
        if self.read(Key("traffic", config.endpoint)) is not None:
            found.append(Key("traffic", config.endpoint))
        return sorted(found, key=lambda key: KINDS.index(key.kind))

    def create(self, key: Key, spec: dict[str, Any]) -> None:
        with translated(key):
            getattr(self, f"_put_{key.kind}")(key.name, spec)

    def update(self, key: Key, spec: dict[str, Any]) -> None:
        if key.kind == "environment":
            raise CloudFault(key.kind, key.name, "It is not what its name says; archive it by hand and deploy again")
        self.create(key, spec)

    def delete(self, key: Key) -> None:
        try:
            with translated(key):
                getattr(self, f"_delete_{key.kind}")(key.name)
        except Absent:
            return

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder, translated(Key("endpoint", self._config.endpoint)):
            file = Path(folder) / "request.json"  # the SDK takes a file only
            file.write_text(json.dumps(request))
            return json.loads(self._ml.online_endpoints.invoke(self._config.endpoint, request_file=str(file)))

    def requests(self, since: datetime, until: datetime) -> int | None:
        """Azure counts requests a minute; the mean of an hour is a sixtieth of the hour's."""
        endpoint = f"{self._config.workspace_id}/onlineEndpoints/{self._config.endpoint}"
        asked = urlencode({
            "api-version": METRICS, "metricnames": "RequestsPerMinute", "aggregation": "Average", "interval": "PT1H",
            "timespan": f"{since:%Y-%m-%dT%H:%M:%SZ}/{until:%Y-%m-%dT%H:%M:%SZ}",
        })  # fmt: skip
        with translated(Key("endpoint", self._config.endpoint)):
            said = self._asked("GET", f"{endpoint}/providers/Microsoft.Insights/metrics?{asked}")
        points = [point for metric in said["value"] for series in metric["timeseries"] for point in series["data"]]
        return round(sum(60 * point.get("average", 0.0) for point in points))

    def batch(self, release: Release, source: str, destination: str) -> str:
        """Start a batch over the files at `source`; a job of the same release, source and destination is found again.

        Args:
            destination: a path of the workspace's datastore (azureml://datastores/…/paths/…).
        """
        from azure.ai.ml import Input, Output

        endpoint = f"{self._config.endpoint}-batch"
        name = f"{PREFIX}-{release.name}-{digest_of([source, destination])}"
        with suppress(FileExistsError), translated(Key("batch_job", name)):  # its name is its content
            self._ml.batch_endpoints.invoke(
                endpoint_name=endpoint,
                deployment_name=release.name,
                inputs={"requests": Input(type="uri_folder", path=source)},
                outputs={"answers": Output(type="uri_file", path=destination)},
                job_name=name,
            )
        return name

    def _done(self, poller: Any, what: str) -> Any:
        poller.wait(self._config.wait_seconds)
        if not poller.done():
            raise NotReady("operation", what, f"It was not done after {self._config.wait_seconds} s")
        return poller.result()

    def _read_environment(self, name: str) -> dict[str, Any]:
        return {"image": self._ml.environments.get(name, VERSION).image}

    def _put_environment(self, name: str, spec: dict[str, Any]) -> None:
        route = {"port": 8080}
        environment = self._entities.Environment(
            name=name,
            version=VERSION,
            image=spec["image"],
            inference_config={
                "liveness_route": {**route, "path": "/healthz"},
                "readiness_route": {**route, "path": "/readyz"},
                "scoring_route": {**route, "path": "/score"},
            },
        )
        self._ml.environments.create_or_update(environment)
        self._ml.environments.restore(name)

    def _delete_environment(self, name: str) -> None:
        self._ml.environments.archive(name)

    def _endpoint(self, name: str) -> Any:
        endpoint = self._ml.online_endpoints.get(name)
        if endpoint.provisioning_state == "Failed":
            raise NotReady("endpoint", name, "Azure says that it failed; see its activity log")
        return endpoint

    def _read_endpoint(self, name: str) -> dict[str, Any]:
        return {"auth_mode": self._endpoint(name).auth_mode}

    def _put_endpoint(self, name: str, spec: dict[str, Any]) -> None:
        endpoint = self._entities.ManagedOnlineEndpoint(name=name, auth_mode=spec["auth_mode"])
        self._done(self._ml.online_endpoints.begin_create_or_update(endpoint), name)

    def _delete_endpoint(self, name: str) -> None:
        self._done(self._ml.online_endpoints.begin_delete(name), name)

    def _read_deployment(self, name: str) -> dict[str, Any]:
        endpoint, _, release = name.partition("/")
        deployment = self._ml.online_deployments.get(release, endpoint)
        if deployment.provisioning_state != "Succeeded":
            raise Absent(name)
        return {
            "environment": str(deployment.environment).split("/environments/")[-1].partition("/")[0].partition(":")[0],
            "instance_type": deployment.instance_type,
            "variables": dict(deployment.environment_variables),
        }

    def _put_deployment(self, name: str, spec: dict[str, Any]) -> None:
        endpoint, _, release = name.partition("/")
        entities = self._entities
        probe = entities.ProbeSettings(
            initial_delay=PROBE_SECONDS, period=PROBE_SECONDS, timeout=PROBE_SECONDS, failure_threshold=30
        )
        deployment = entities.ManagedOnlineDeployment(
            name=release,
            endpoint_name=endpoint,
            environment=f"{spec['environment']}:{VERSION}",
            instance_type=spec["instance_type"],
            instance_count=self._config.start_instances,
            environment_variables=spec["variables"],
            request_settings=entities.OnlineRequestSettings(request_timeout_ms=REQUEST_SECONDS * 1000),
            liveness_probe=probe,
            readiness_probe=probe,
        )
        self._done(self._ml.online_deployments.begin_create_or_update(deployment), name)

    def _delete_deployment(self, name: str) -> None:
        endpoint, _, release = name.partition("/")
        self._done(self._ml.online_deployments.begin_delete(release, endpoint), name)

    def _read_traffic(self, name: str) -> dict[str, Any]:
        endpoint = self._endpoint(name)
        shares = {release: share for release, share in (endpoint.traffic or {}).items() if share}
        if not shares:  # the SDK adds a 0 for each deployment that stands without traffic: it is none of ours yet
            raise Absent(name)
        policy = (endpoint.tags or {}).get(POLICY_TAG)
        return {"shares": shares, **({"policy": policy} if policy else {})}

    def _put_traffic(self, name: str, spec: dict[str, Any]) -> None:
        endpoint = self._endpoint(name)
        endpoint.traffic = spec["shares"]
        kept = {tag: value for tag, value in (endpoint.tags or {}).items() if tag != POLICY_TAG}
        endpoint.tags = kept | ({POLICY_TAG: spec["policy"]} if "policy" in spec else {})
        self._done(self._ml.online_endpoints.begin_create_or_update(endpoint), name)

    def _delete_traffic(self, name: str) -> None:
        self._put_traffic(name, {"shares": {}})

    def _setting(self, name: str = "") -> str:
        """Return an autoscale setting's address; without a name that of all in the group."""
        config = self._config
        group = f"/subscriptions/{config.subscription}/resourceGroups/{config.resource_group}"
        setting = f"/{name.replace('/', '-')}" if name else ""
        return f"{group}/providers/Microsoft.Insights/autoscalesettings{setting}?api-version={AUTOSCALE}"

    def _asked(self, method: str, url: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
        from azure.core.rest import HttpRequest

        answered = self._arm.send_request(HttpRequest(method, f"{self._management}{url}", json=document))
        answered.raise_for_status()
        return answered.json() if answered.content else {}

    def _settings(self) -> list[str]:
        """Return the releases that have a setting of ours, as `<endpoint>/<release>`."""
        uris = [each["properties"]["targetResourceUri"] for each in self._asked("GET", self._setting())["value"]]
        begins = f"{self._config.workspace_id}/onlineEndpoints/{self._config.endpoint}/deployments/"
        return [f"{self._config.endpoint}/{uri.removeprefix(begins)}" for uri in uris if uri.startswith(begins)]

    def _read_scaling(self, name: str) -> dict[str, Any]:
        return self._asked("GET", self._setting(name))["properties"]["profiles"][0]

    def _put_scaling(self, name: str, spec: dict[str, Any]) -> None:
        target = self._config.deployment_id(name.partition("/")[2])
        properties = {"enabled": True, "targetResourceUri": target, "profiles": [spec]}
        self._asked("PUT", self._setting(name), {"location": self._config.location, "properties": properties})

    def _delete_scaling(self, name: str) -> None:
        self._asked("DELETE", self._setting(name))

    def _read_compute(self, name: str) -> dict[str, Any]:
        cluster = self._ml.compute.get(name)
        return {
            "instance_type": cluster.size,
            "min_instances": cluster.min_instances,
            "max_instances": cluster.max_instances,
        }

    def _put_compute(self, name: str, spec: dict[str, Any]) -> None:
        cluster = self._entities.AmlCompute(
            name=name, size=spec["instance_type"], min_instances=spec["min_instances"],
            max_instances=spec["max_instances"], idle_time_before_scale_down=120,
        )  # fmt: skip
        self._done(self._ml.compute.begin_create_or_update(cluster), name)

    def _delete_compute(self, name: str) -> None:
        self._done(self._ml.compute.begin_delete(name), name)

    def _read_batch_endpoint(self, name: str) -> dict[str, Any]:
        self._ml.batch_endpoints.get(name)
        return {}

    def _put_batch_endpoint(self, name: str, spec: dict[str, Any]) -> None:
        self._done(self._ml.batch_endpoints.begin_create_or_update(self._entities.BatchEndpoint(name=name)), name)

    def _delete_batch_endpoint(self, name: str) -> None:
        self._done(self._ml.batch_endpoints.begin_delete(name), name)

    def _read_batch_deployment(self, name: str) -> dict[str, Any]:
        endpoint, _, release = name.partition("/")
        deployment = self._ml.batch_deployments.get(release, endpoint)
        code = deployment.code_configuration.code.split("/codes/")[-1].replace("/versions/", ":")
        return {
            "environment": str(deployment.environment).split("/environments/")[-1].partition("/")[0].partition(":")[0],
            "compute": deployment.compute.rpartition("/")[2],
            "code": code,
        }

    def _put_batch_deployment(self, name: str, spec: dict[str, Any]) -> None:
        endpoint, _, release = name.partition("/")
        entities = self._entities
        code = f"{self._config.workspace_id}/codes/{spec['code'].replace(':', '/versions/')}"
        deployment = entities.ModelBatchDeployment(
            name=release,
            endpoint_name=endpoint,
            environment=f"{spec['environment']}:{VERSION}",
            compute=spec["compute"],
            code_configuration=entities.CodeConfiguration(code=code, scoring_script="lines.py"),
            settings=entities.ModelBatchDeploymentSettings(
                mini_batch_size=1, instance_count=1, output_action="append_row", output_file_name="answers.jsonl"
            ),
        )
        self._done(self._ml.batch_deployments.begin_create_or_update(deployment, skip_script_validation=True), name)

    def _delete_batch_deployment(self, name: str) -> None:
        endpoint, _, release = name.partition("/")
        self._done(self._ml.batch_deployments.begin_delete(release, endpoint), name)


@contextmanager
def translated(key: Key) -> Iterator[None]:
    """Turn Azure's errors into ours; `Absent` and FileExistsError are part of the answer."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import (
        ClientAuthenticationError,
        HttpResponseError,
        ServiceRequestError,
        ServiceResponseError,
    )

    try:
        yield
    except ClientAuthenticationError as error:  # an HttpResponseError too: that of a refusal has its status
        raise (fault_of(error, key) if error.status_code else no_credentials(error)) from error
    except HttpResponseError as error:
        raise fault_of(error, key) from error
    except (ServiceRequestError, ServiceResponseError) as error:
        raise Transient(key.kind, error, "Azure is not reached; the step may run again") from error
    except MlException as error:
        raise CloudFault(key.kind, error, "See the message") from error


def no_credentials(error: Exception) -> CloudFault:
    return CloudFault("Azure credentials", error, "Sign in (`az login`)")


def fault_of(error: Any, key: Key) -> Exception:
    """Return what an API error of Azure means for us. A failed operation carries the status of its last look: 200."""
    status, code = error.status_code or 0, getattr(error.error, "code", None) or ""
    what = f"{key.name}: {status} {code} {error.message}"
    if "quota" in code.lower() or "OutOfQuota" in str(error.message):
        return CloudFault("Azure quota", what, "Ask for more in the subscription's quotas, or take a smaller machine")
    if status == 429 or status >= 500:
        return Transient(key.kind, what, "Azure asks for patience; the step may run again")
    if status in (401, 403):
        return CloudFault("Azure credentials", what, "Renew them or extend the role, then run the step again")
    if status == 404:
        return Absent(key.name)
    if code == "InvalidResourceLocation":
        return CloudFault("region", what, "Name the region in which it stands, or tear it down there first")
    if status == 409:
        return FileExistsError(key.name)
    if key.kind == "deployment":
        return NotReady(key.kind, what, "See the deployment's log in Azure ML studio")
    return CloudFault(key.kind, what, "See the message")
