"""Azure Container Instances and Traffic Manager over HTTPS on this machine, and the name that leads to the groups.

Strict about what Azure requires of a document; a group runs at its second look, counts as billable while it stands, and
its container is the real serving process. Fields are checked by name against Azure's REST reference: its own SDK for
them is not in the clouds' environment.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.clouds.arm import GROUP as RESOURCE_GROUP
from tests.clouds.arm import ArmEmulator, refused
from tests.clouds.emulation import MAX_BODY_BYTES, Call, body_of, json_answer

PROVIDERS = f"{RESOURCE_GROUP}/providers"
RESOURCE = re.compile(
    rf"^{PROVIDERS}/(?P<kind>Microsoft\.ContainerInstance/containerGroups|Microsoft\.Network/trafficmanagerprofiles|"
    r"Microsoft\.Storage/storageAccounts)(?:/(?P<name>[^/]+))?(?:/(?P<more>.+))?$"
)
GROUP, PROFILE = "Microsoft.ContainerInstance/containerGroups", "Microsoft.Network/trafficmanagerprofiles"
VERSIONS = {GROUP: "2023-05-01", PROFILE: "2022-04-01", "Microsoft.Storage/storageAccounts": "2023-05-01"}
FIELDS = {
    GROUP: {"osType", "sku", "restartPolicy", "containers", "imageRegistryCredentials", "ipAddress", "volumes"},
    PROFILE: {"profileStatus", "trafficRoutingMethod", "endpoints", "dnsConfig", "monitorConfig"},
}
CONTAINER = {"image", "command", "ports", "environmentVariables", "resources", "livenessProbe", "readinessProbe",
             "volumeMounts"}  # fmt: skip


class AciEmulator(ArmEmulator):
    """One resource group. `files`: the folder that stands for its file share."""

    quota = (409, "ContainerGroupQuotaReached", "Resource type 'StandardCores' quota exceeded")
    metric = ("QpsByEndpoint", "Total")

    def __init__(self, serving_urls: Mapping[str, str], certificate: tuple[str, str], files: Path):
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self._looks: dict[str, int] = {}
        self._outcomes: dict[str, str] = {}
        super().__init__(serving_urls, certificate, files)

    def billable(self) -> dict[str, int]:
        return {name: 1 for (kind, name), each in self.documents.items()
                if kind == GROUP and each["properties"]["restartPolicy"] != "Never"}  # fmt: skip

    def call_of(self, environ: dict) -> Call:
        found, method = RESOURCE.match(environ["PATH_INFO"]), environ["REQUEST_METHOD"]
        return Call(f"{method} {found['kind'] if found else '?'}", bool(found) and method in ("PUT", "DELETE"))

    def answer(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        path, body = environ["PATH_INFO"], body_of(environ)
        if path == "/invocations":
            return self._invoke(body, start_response)
        found = RESOURCE.match(path)
        if found is None:
            raise refused(404, "ResourceGroupNotFound", f"no route {path}")
        if environ.get("HTTP_AUTHORIZATION") != "Bearer rehearsal":
            raise refused(401, "Unauthorized", path)
        query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        if found["more"] == "providers/Microsoft.Insights/metrics":
            return json_answer(start_response, 200, self.counted(environ))
        if query.get("api-version") != VERSIONS[found["kind"]]:
            raise refused(400, "InvalidApiVersionParameter", f"{query.get('api-version')} of {found['kind']}")
        if found["more"] == "listKeys":
            return json_answer(start_response, 200, {"keys": [{"keyName": "key1", "value": "rehearsal"}]})
        return self._managed(environ["REQUEST_METHOD"], found["kind"], found["name"], body, start_response)

    def _managed(
        self, method: str, kind: str, name: str | None, body: bytes, start_response: Callable
    ) -> Iterable[bytes]:
        if name is None:
            value = [self._seen(of, each) for of, each in self.documents if of == kind]
            return json_answer(start_response, 200, {"value": value})
        if method == "PUT":
            existed = (kind, name) in self.documents
            self._put(kind, name, json.loads(body))
            return json_answer(start_response, 200 if existed else 201, self.documents[kind, name])
        if (kind, name) not in self.documents:
            if method == "DELETE":
                return json_answer(start_response, 204, None)
            raise refused(404, "ResourceNotFound", f"{name} was not found")
        if method == "DELETE":
            del self.documents[kind, name]
            return json_answer(start_response, 200, {})
        return json_answer(start_response, 200, self._seen(kind, name))

    def _put(self, kind: str, name: str, document: dict[str, Any]) -> None:
        properties = document["properties"]
        self._check_location(kind, name, document)
        if unknown := set(properties) - FIELDS[kind]:
            raise refused(400, "InvalidRequestContent", f"Could not find member {unknown}")
        if kind == PROFILE:
            self._check_profile(properties)
            self.documents[kind, name] = {**document, "name": name}
            return
        if not properties.get("osType") or not properties.get("containers"):
            raise refused(400, "InvalidRequestContent", "osType and containers are required")
        for container in properties["containers"]:
            if unknown := set(container["properties"]) - CONTAINER:
                raise refused(400, "InvalidRequestContent", f"Could not find member {unknown}")
            if set(container["properties"]["resources"]["requests"]) != {"cpu", "memoryInGB"}:
                raise refused(400, "ResourceRequestsNotSpecified", f"of {container['name']}")
        if self.outcome == "no image":
            raise refused(400, "InaccessibleImage", "The image is not accessible")
        if self.outcome == "no quota":
            raise self.refusal("quota")
        self.documents[GROUP, name] = {**document, "name": name, "properties": {**properties}}
        self._looks[name], self._outcomes[name] = 0, self.outcome
        if properties["restartPolicy"] == "Never":
            self._run(properties)

    def _check_location(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        """Refuse to move: a name that stands in one region cannot be made in another."""
        if not document.get("location"):
            raise refused(400, "LocationRequired", f"The location of {name} is required")
        there = self.documents.get((kind, name), document)["location"]
        if there != document["location"]:
            raise refused(409, "InvalidResourceLocation", f"The resource '{name}' already exists in location "
                          f"'{there}'. A resource with the same name cannot be created in location "
                          f"'{document['location']}'")  # fmt: skip

    def _check_profile(self, properties: Mapping[str, Any]) -> None:
        if not properties.get("dnsConfig", {}).get("relativeName") or not properties.get("monitorConfig"):
            raise refused(400, "BadRequest", "dnsConfig and monitorConfig are required")
        for each in properties["endpoints"]:
            if not 1 <= each["properties"]["weight"] <= 1000:
                raise refused(400, "BadRequest", f"The weight of {each['name']} is not between 1 and 1000")
            self._group_at(each["properties"]["target"])

    def _group_at(self, target: str) -> dict[str, Any]:
        for (kind, _), each in self.documents.items():
            label = each["properties"].get("ipAddress", {}).get("dnsNameLabel")
            if kind == GROUP and label and target == f"{label}.{each['location']}.azurecontainer.io":
                return each
        raise refused(400, "BadRequest", f"The domain name {target} does not exist")

    def _seen(self, kind: str, name: str) -> dict[str, Any]:
        """Return a document as it is now: a group comes up at the second look, or does not."""
        document = self.documents[kind, name]
        if kind != GROUP:
            return document
        self._looks[name] += 1
        looks, outcome = self._looks[name], self._outcomes[name]
        up = outcome == "ready" and looks >= 2
        state = "Running" if up else "Waiting"
        view = {"restartCount": looks if outcome == "unhealthy" else 0}
        containers = [{**each, "properties": {**each["properties"], "instanceView": view}}
                      for each in document["properties"]["containers"]]  # fmt: skip
        told = {"provisioningState": "Succeeded" if up or outcome == "unhealthy" else "Creating",
                "instanceView": {"state": state}, "containers": containers}  # fmt: skip
        return {**document, "properties": {**document["properties"], **told}}

    def _invoke(self, body: bytes, start_response: Callable) -> Iterable[bytes]:
        """Answer as the group to which the name leads: Traffic Manager's weights, a DNS answer a request."""
        if len(body) > MAX_BODY_BYTES:
            raise refused(413, "RequestEntityTooLarge", f"more than {MAX_BODY_BYTES} bytes")
        profile = self.documents.get((PROFILE, "recsys"))
        if profile is None:
            raise refused(404, "NotFound", "the name leads nowhere")
        endpoints = [each["properties"] for each in profile["properties"]["endpoints"]]
        enabled = {each["target"]: each["weight"] for each in endpoints if each["endpointStatus"] == "Enabled"}
        group = self._group_at(self.drawn(enabled))
        status, content = self.ask(version_of(group["properties"]), "/invocations", body)
        start_response(f"{status} Emulated", [("Content-Type", "application/json")])
        return [content]

    def _run(self, properties: Mapping[str, Any]) -> None:
        """Do a batch's work at once, as its command does: each line of the files is a request, each answer a line."""
        source, destination = (self.file_at(name) for name in properties["containers"][0]["properties"]["command"][-2:])
        if source.exists():
            lines = [line for file in sorted(source.iterdir()) for line in file.read_bytes().splitlines()]
            answers = [self.ask(version_of(properties), "/invocations", line)[1] for line in lines]
            destination.write_bytes(b"\n".join(answers))

    def forget_batches(self) -> None:
        """Let the next batch of the same name run."""
        batches = [key for key, each in self.documents.items() if each["properties"].get("restartPolicy") == "Never"]
        for key in batches:
            del self.documents[key]

    def file_at(self, mounted: str) -> Path:
        """Return the file or folder of the share that a container sees below /batch, or by its name there."""
        return self._files / mounted.removeprefix("/batch/").strip("/")


def version_of(properties: Mapping[str, Any]) -> str:
    variables = properties["containers"][0]["properties"]["environmentVariables"]
    return next(each["value"] for each in variables if each["name"] == "RECSYS_RELEASE")
