"""Azure's management API over HTTPS on this machine: Azure ML's resources, and Azure Monitor's autoscale settings.

One store of documents, as Azure Resource Manager is one: PUT makes, GET reads, DELETE removes. A document is checked
against the SDK's own message types: a field that they do not know is refused, and so is one that is missing. What takes
time is an asynchronous operation, done at its second look. Deployments count as billable while they stand.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from azure.ai.ml._restclient.arm_ml_service import models

from tests.clouds.arm import GROUP, REGION, ArmEmulator, refused
from tests.clouds.emulation import MAX_BODY_BYTES, Call, Refused, body_of, json_answer

WORKSPACE = f"{GROUP}/providers/Microsoft.MachineLearningServices/workspaces/recsys"
RESOURCE = re.compile(
    r"^(?P<parent>.*)/(?P<kind>onlineEndpoints|batchEndpoints|deployments|environments|versions|computes|codes|"
    r"autoscalesettings)(?:/(?P<name>[^/]+))?(?:/(?P<verb>listKeys))?$"
)
KINDS: dict[str, tuple[type, type, tuple[str, ...]]] = {
    "onlineEndpoints": (models.OnlineEndpoint, models.OnlineEndpointProperties, ("location", "properties.authMode")),
    "onlineEndpoints/deployments": (models.OnlineDeployment, models.ManagedOnlineDeployment, (
        "location", "sku.name", "sku.capacity", "properties.environmentId", "properties.instanceType",
        "properties.endpointComputeType")),
    "batchEndpoints": (models.BatchEndpoint, models.BatchEndpointProperties, ("location", "properties.authMode")),
    "batchEndpoints/deployments": (models.BatchDeployment, models.BatchDeploymentProperties, (
        "location", "properties.environmentId", "properties.codeConfiguration.scoringScript", "properties.compute")),
    "environments": (models.EnvironmentContainer, models.EnvironmentContainerProperties, ()),
    "environments/versions": (models.EnvironmentVersion, models.EnvironmentVersionProperties, ("properties.image",)),
    "computes": (models.ComputeResource, models.AmlCompute, ("location", "properties.properties.vmSize",
                                                             "properties.properties.scaleSettings.maxNodeCount")),
}  # fmt: skip
FAILED = {
    "unhealthy": ("ResourceNotReady", "User container has crashed or terminated: readiness probe failed"),
    "no image": ("BadArgument", "The image registry.example/recsys does not exist or cannot be pulled"),
    "no quota": ("OutOfQuota", "Not enough quota available for Standard_F2s_v2 in SubscriptionId"),
}
INSTANCE_QUOTA = 60
SOON = {"x-ms-retry-after-ms": "2"}
"""When the SDK looks again; by itself it would wait five seconds."""


class AzureEmulator(ArmEmulator):
    """One resource group with one workspace. `files`: the folder that stands for its datastore."""

    quota = (400, "OutOfQuota", "Not enough quota available for Standard_F2s_v2")
    metric = ("RequestsPerMinute", "Average")

    def __init__(self, serving_urls: Mapping[str, str], certificate: tuple[str, str], files: Path):
        self.documents: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self._operations: dict[str, list[Any]] = {}
        super().__init__(serving_urls, certificate, files)

    def billable(self) -> dict[str, int]:
        standing = {path: each for path, each in self.documents.items() if "/onlineEndpoints/" in path}
        return {
            path.rpartition("/")[2]: each["sku"]["capacity"]
            for path, each in standing.items()
            if "/deployments/" in path and each["properties"]["provisioningState"] != "Failed"
        }

    def call_of(self, environ: dict) -> Call:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        found = RESOURCE.match(path)
        reads = method in ("GET", "HEAD") or path.endswith(("/score", "/listKeys")) or "/operations/" in path
        what = found["kind"] if found else path.rpartition("/")[2]
        return Call(f"{method} {what}", not reads)

    def answer(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        body = body_of(environ)
        if "/operations/" in path:
            return json_answer(start_response, 200, self._look(path), SOON)
        if path.endswith("/score"):
            return self._score(environ, path, body, start_response)
        if path.endswith("/jobs") and method == "POST":
            return json_answer(start_response, 201, self._batch(environ, json.loads(body)))
        return self._managed(method, path, environ, body, start_response)

    def _managed(self, method: str, path: str, environ: dict, body: bytes, start_response: Callable) -> Iterable[bytes]:
        """Answer what the resource manager is asked."""
        if not path.startswith(GROUP):
            raise refused(404, "ResourceGroupNotFound", f"no route {path}")
        if path == WORKSPACE:
            return json_answer(start_response, 200, self._workspace())
        if path.endswith("/providers/Microsoft.Insights/metrics"):
            self.document(path.partition("/providers/Microsoft.Insights")[0])
            return json_answer(start_response, 200, self.counted(environ))
        found = RESOURCE.match(path)
        if found is None:
            raise refused(404, "NotFound", f"no route {path}")
        if found["verb"] == "listKeys":
            return json_answer(start_response, 200, {"primaryKey": "rehearsal", "secondaryKey": "rehearsal"})
        if method == "GET" and found["name"] is None:
            return json_answer(start_response, 200, {"value": self._listed(path, environ)})
        if method == "GET":
            return json_answer(start_response, 200, self.document(path))
        if method in ("PUT", "PATCH"):
            return self._put(path, json.loads(body), start_response, merges=method == "PATCH")
        if method == "DELETE":
            return self._delete(path, start_response)
        raise refused(405, "MethodNotAllowed", f"{method} {path}")

    def document(self, path: str) -> dict[str, Any]:
        if path not in self.documents:
            raise refused(404, "ResourceNotFound", f"{path} was not found")
        return self.documents[path]

    def _workspace(self) -> dict[str, Any]:
        return {"id": WORKSPACE, "name": "recsys", "location": REGION, "type": "workspace",
                "properties": {"discoveryUrl": f"{self.url}/discovery", "provisioningState": "Succeeded"}}  # fmt: skip

    def _listed(self, path: str, environ: dict) -> list[dict[str, Any]]:
        """Return what stands right below, without what is archived."""
        return [each for key, each in self.documents.items() if key.rpartition("/")[0] == path
                and not each["properties"].get("isArchived")]  # fmt: skip

    def _put(self, path: str, document: dict[str, Any], start_response: Callable, merges: bool) -> Iterable[bytes]:
        short = re.sub(r"/(onlineEndpoints|batchEndpoints|environments)/[^/]+/", r"\1/", path.removeprefix(WORKSPACE))
        kind = short.strip("/").rpartition("/")[0]
        if merges:
            document = {**self.document(path), **document}
        self._checked(kind, path, document)
        name, existed = path.rpartition("/")[2], path in self.documents
        made = {**document, "id": path, "name": name, "type": kind}
        made["properties"] = {**document["properties"], "provisioningState": "Succeeded"}
        if kind in ("onlineEndpoints", "batchEndpoints"):
            route = "score" if kind == "onlineEndpoints" else "jobs"
            made["properties"]["scoringUri"] = f"{self.url}/{kind}/{name}/{route}"
            made["properties"].setdefault("traffic", {})
            self._check_traffic(path, made["properties"]["traffic"])
        if kind == "onlineEndpoints/deployments":
            return self._deploy(path, made, start_response, existed)
        self.documents[path] = made
        if kind == "environments/versions":  # Azure keeps the asset itself above its versions
            above = path.rpartition("/versions/")[0]
            new = {"id": above, "name": above.rpartition("/")[2], "properties": {"isArchived": False}}
            self.documents.setdefault(above, new)["properties"]["latestVersion"] = name
        if "autoscalesettings" in path or "environments" in kind:
            return json_answer(start_response, 200 if existed else 201, made)
        return self._begun(start_response, 200 if existed else 201, made, lambda: made)

    def _deploy(self, path: str, made: dict, start_response: Callable, existed: bool) -> Iterable[bytes]:
        endpoint = path.partition("/deployments/")[0]
        self.document(endpoint)
        environment = made["properties"]["environmentId"]
        self.document(environment if environment.startswith("/") else f"{WORKSPACE}/{environment}")
        if sum(self.billable().values()) + made["sku"]["capacity"] > INSTANCE_QUOTA:
            raise self.refusal("quota")
        outcome = self.outcome
        made["properties"]["provisioningState"] = "Creating"
        made["properties"].setdefault("scaleSettings", {"scaleType": "Default"})
        self.documents[path] = made

        def finish() -> dict[str, Any]:
            failed = outcome in FAILED
            made["properties"]["provisioningState"] = "Failed" if failed else "Succeeded"
            if failed:
                raise refused(200, *FAILED[outcome])
            return made

        looks = 10**9 if outcome == "stuck" else 2
        return self._begun(start_response, 200 if existed else 201, made, finish, looks)

    def _checked(self, kind: str, path: str, document: dict[str, Any]) -> None:
        if "autoscalesettings" in path:
            kept = document.get("properties", {})
            if not kept.get("targetResourceUri") or not kept.get("profiles") or "location" not in document:
                raise refused(400, "BadRequest", "location, targetResourceUri and profiles are required")
            return
        if kind not in KINDS:
            raise refused(404, "NotFound", f"no resources of kind {kind}")
        outer, inner, needed = KINDS[kind]
        unknown = [
            *(set(document) - rest_names(outer)), *(set(document.get("properties", {})) - rest_names(inner))
        ]  # fmt: skip
        if unknown:
            raise refused(400, "BadRequest", f"Unknown fields {unknown} of {kind}")
        for name in needed:
            value: Any = document
            for part in name.split("."):
                value = (value or {}).get(part)
            if value is None:
                raise refused(400, "BadRequest", f"Required field {name} of {kind} is not set")

    def _check_traffic(self, endpoint: str, traffic: Mapping[str, int]) -> None:
        deployed = {
            path.rpartition("/")[2] for path, each in self.documents.items()
            if path.startswith(f"{endpoint}/deployments/") and each["properties"]["provisioningState"] == "Succeeded"
        }  # fmt: skip
        if traffic and (sum(traffic.values()) != 100 or set(traffic) - deployed):
            raise refused(400, "BadRequest", f"Traffic {dict(traffic)} is not 100 % of what is deployed: {deployed}")

    def _delete(self, path: str, start_response: Callable) -> Iterable[bytes]:
        if path not in self.documents:
            return json_answer(start_response, 204, None)
        endpoint, _, name = path.partition("/deployments/")
        if name and self.documents.get(endpoint, {}).get("properties", {}).get("traffic", {}).get(name):
            raise refused(400, "BadRequest", f"Deployment {name} has traffic")
        for each in [each for each in self.documents if each == path or each.startswith(f"{path}/")]:
            del self.documents[each]
        if "autoscalesettings" in path:
            return json_answer(start_response, 200, {})
        return self._begun(start_response, 202, {}, dict)

    def _begun(
        self, start_response: Callable, status: int, document: dict, finish: Callable[[], dict], looks: int = 2
    ) -> Iterable[bytes]:
        name = str(uuid.uuid4())
        self._operations[name] = [looks, finish]
        url = f"{self.url}{GROUP}/operations/{name}"
        told = {"Azure-AsyncOperation": url, "Location": url, **SOON}
        return json_answer(start_response, status, document, told)

    def _look(self, path: str) -> dict[str, Any]:
        name = path.rpartition("/")[2]
        operation = self._operations[name]
        operation[0] -= 1
        if operation[0] > 0:
            return {"status": "InProgress"}
        try:
            operation[1]()
        except Refused as failure:
            return {"status": "Failed", **failure.document}
        return {"status": "Succeeded"}

    def _score(self, environ: dict, path: str, body: bytes, start_response: Callable) -> Iterable[bytes]:
        if environ.get("HTTP_AUTHORIZATION") != "Bearer rehearsal":
            raise refused(401, "Unauthorized", "no key")
        if len(body) > MAX_BODY_BYTES:
            raise refused(413, "RequestEntityTooLarge", f"more than {MAX_BODY_BYTES} bytes")
        endpoint = f"{WORKSPACE}/onlineEndpoints/{path.split('/')[-2]}"
        traffic = self.document(endpoint)["properties"]["traffic"]
        if not traffic:
            raise refused(404, "NotFound", "no deployment has traffic")
        chosen = self.drawn(traffic)
        status, content = self.ask(self._version_of(endpoint, chosen), "/score", body)
        start_response(f"{status} Emulated", [("Content-Type", "application/json"),
                                              ("azureml-model-deployment", chosen)])  # fmt: skip
        return [content]

    def _version_of(self, endpoint: str, deployment: str) -> str:
        document = self.document(f"{endpoint}/deployments/{deployment}")
        return document["properties"]["environmentVariables"]["RECSYS_RELEASE"]

    def _batch(self, environ: dict, asked: dict[str, Any]) -> dict[str, Any]:
        """Run a batch at once, as its script does: each line of the files is a request, each answer a row."""
        name = asked["properties"].get("name") or str(uuid.uuid4())
        if name in self.jobs:
            raise refused(409, "Conflict", f"job {name} exists")
        release = environ["HTTP_AZUREML_MODEL_DEPLOYMENT"]
        properties = asked["properties"]
        source = next(iter(properties["inputData"].values()))["uri"]
        target = next(iter(properties["outputData"].values()))["uri"]
        version = self._version_of(f"{WORKSPACE}/onlineEndpoints/recsys", release)
        lines = [line for file in sorted(self.file_at(source).iterdir()) for line in file.read_bytes().splitlines()]
        self.file_at(target).write_bytes(b"\n".join(self.ask(version, "/score", line)[1] for line in lines))
        told = {"jobType": "Pipeline", "status": "Completed", "displayName": name}
        self.jobs[name] = {"id": f"{WORKSPACE}/jobs/{name}", "name": name, "properties": told}
        return self.jobs[name]

    def forget_batches(self) -> None:
        """Let the next batch of the same name run."""
        self.jobs.clear()

    def file_at(self, uri: str) -> Path:
        """Return the file or folder that stands for a path of the datastore."""
        return self._files / uri.partition("/paths/")[2].strip("/")


def rest_names(kind: type) -> set[str]:
    """Return the names that fields of this message have on the wire; the SDK lists them with the first instance."""
    kind.__new__(kind)
    return {field._rest_name for each in kind.__mro__ for field in getattr(each, "_attr_to_rest_field", {}).values()}
