"""A Kubernetes API server on this machine, as far as a rollout asks one, and the gateway before its pods.

Objects are checked strictly against Kubernetes' own JSON schemas; an HTTPRoute, no part of Kubernetes, by hand.
Deployments become available at the second look, and count as billable while they stand, by their autoscaler's minimum.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import kubernetes_validate

from tests.clouds.emulation import MAX_BODY_BYTES, Call, Emulator, Refused, body_of, json_answer

KUBERNETES = "1.37.0"
METRIC = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/recsys/pods/*/recsys_requests_in_window"
ROUTE = re.compile(
    r"^/(?P<api>api/v1|apis/[^/]+/[^/]+)/namespaces/(?P<namespace>[^/]+)/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?$"
)
REASONS = {
    401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 413: "RequestEntityTooLarge",
    422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable",
}  # fmt: skip
CONDITIONS = {
    "unhealthy": ("Progressing", "False", "ProgressDeadlineExceeded", "Readiness probe failed"),
    "no image": ("Progressing", "False", "ProgressDeadlineExceeded", "Back-off pulling image"),
    "no quota": ("ReplicaFailure", "True", "FailedCreate", "pods is forbidden: exceeded quota: compute"),
}


def refused(status: int, message: str, reason: str = "") -> Refused:
    return Refused(status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message,
                            "reason": reason or REASONS[status], "code": status})  # fmt: skip


class K8sEmulator(Emulator):
    """One namespace, `recsys`."""

    def __init__(self, serving_urls: Mapping[str, str]):
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.has_adapter = True
        self._looks: dict[str, int] = {}
        self._outcomes: dict[str, str] = {}
        super().__init__(serving_urls)

    def billable(self) -> dict[str, int]:
        least = {name: each["spec"]["minReplicas"] for (plural, name), each in self.objects.items()
                 if plural == "horizontalpodautoscalers"}  # fmt: skip
        return {name: least.get(name, 1) for plural, name in self.objects if plural == "deployments"}

    def call_of(self, environ: dict) -> Call:
        found, method = ROUTE.match(environ["PATH_INFO"]), environ["REQUEST_METHOD"]
        return Call(f"{method} {found['plural'] if found else environ['PATH_INFO']}", bool(found) and method != "GET")

    def refusal(self, kind: str) -> Refused:
        return {
            "throttled": refused(429, "of this test"),
            "broken": refused(500, "of this test"),
            "unavailable": refused(503, "of this test"),
            "expired": refused(401, "of this test"),
            "forbidden": refused(403, "cannot create resource"),
            "quota": refused(403, "exceeded quota: compute-resources"),
        }[kind]

    def answer(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        body = body_of(environ)
        if environ["PATH_INFO"] == "/invocations":
            return self._gateway(body, start_response)
        if environ["PATH_INFO"] == METRIC and self.has_adapter:
            return json_answer(start_response, 200, self._counted())
        return self._resource(environ, body, start_response)

    def _resource(self, environ: dict, body: bytes, start_response: Callable) -> Iterable[bytes]:
        found, method = ROUTE.match(environ["PATH_INFO"]), environ["REQUEST_METHOD"]
        if found is None:
            raise refused(404, f"no route {environ['PATH_INFO']}")
        plural, name = found["plural"], found["name"]
        if found["namespace"] != "recsys":
            return self._nowhere(found, method, start_response)
        if method == "GET" and name is None:
            items = [each for (kind, _), each in self.objects.items() if kind == plural]
            return json_answer(start_response, 200, {"items": items})
        if method == "POST":
            given = json.loads(body)
            if (plural, given["metadata"]["name"]) in self.objects:
                raise refused(409, f"{given['metadata']['name']} already exists")
            return json_answer(start_response, 201, self._put(plural, found["api"], given, 1))
        there = self.objects.get((plural, name))
        if there is None:
            raise refused(404, f"{plural} {name} not found")
        if method == "PUT":
            given = json.loads(body)
            version = given["metadata"].pop("resourceVersion", None)
            if version != there["metadata"]["resourceVersion"]:
                raise refused(409, "the object has been modified", "Conflict")
            return json_answer(start_response, 200, self._put(plural, found["api"], given, int(version) + 1))
        if method == "DELETE":
            del self.objects[plural, name]
            return json_answer(start_response, 200, {"kind": "Status", "status": "Success"})
        return json_answer(start_response, 200, self._seen(plural, name, there))

    @staticmethod
    def _nowhere(found: Mapping[str, str], method: str, start_response: Callable) -> Iterable[bytes]:
        """Answer as for a namespace that is not there: a list is empty, and nothing can be made."""
        if method == "GET" and found["name"] is None:
            return json_answer(start_response, 200, {"items": []})
        what = f'namespaces "{found["namespace"]}"' if method == "POST" else f'{found["plural"]} "{found["name"]}"'
        raise refused(404, f"{what} not found")

    def _counted(self) -> dict[str, Any]:
        """Answer as a metrics adapter whose window is a day: one value a pod, in thousandths."""
        now = time.time()
        names = [name for plural, name in self.objects if plural == "deployments"]
        count = self.asked_between(now - 86_400, now + 60)
        return {"kind": "MetricValueList", "items": [
            {"describedObject": {"kind": "Pod", "name": name}, "value": f"{1000 * count / len(names):.0f}m"}
            for name in names
        ]}  # fmt: skip

    def _put(self, plural: str, api: str, manifest: dict[str, Any], version: int) -> dict[str, Any]:
        name = manifest["metadata"]["name"]
        if plural == "httproutes":
            self._check_route(manifest)
        else:
            try:
                kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise refused(422, f"{manifest['kind']} {name} is invalid: {error}") from error
        if not f"{api}".endswith(manifest["apiVersion"]):
            raise refused(422, f"{manifest['apiVersion']} is not of {api}")
        spec = json.dumps(manifest.get("spec"))
        before = self.objects.get((plural, name))
        if plural == "deployments" and (before is None or json.dumps(before.get("spec")) != spec):
            self._looks[name], self._outcomes[name] = 0, self.outcome
        metadata = manifest["metadata"] | {"resourceVersion": str(version), "generation": version}
        self.objects[plural, name] = {**manifest, "metadata": metadata}
        return self.objects[plural, name]

    def _check_route(self, manifest: dict[str, Any]) -> None:
        if not manifest["spec"].get("parentRefs"):
            raise refused(422, "HTTPRoute: parentRefs are required")
        for backend in manifest["spec"]["rules"][0]["backendRefs"]:
            if set(backend) != {"name", "port", "weight"} or not 0 <= backend["weight"] <= 1_000_000:
                raise refused(422, f"HTTPRoute: {backend} is no backend with name, port and weight")

    def _seen(self, plural: str, name: str, there: dict[str, Any]) -> dict[str, Any]:
        if plural != "deployments":
            return there
        self._looks[name] += 1
        outcome, wanted = self._outcomes[name], there["spec"].get("replicas", 1)
        up = outcome == "ready" and self._looks[name] >= 2
        status: dict[str, Any] = {"observedGeneration": there["metadata"]["generation"], "conditions": []}
        if up:
            status |= {"updatedReplicas": wanted, "availableReplicas": wanted}
        told = ("Progressing", "True", "NewReplicaSetAvailable", "") if up else CONDITIONS.get(outcome)
        if told:
            status["conditions"] = [dict(zip(("type", "status", "reason", "message"), told, strict=True))]
        return {**there, "status": status}

    def _gateway(self, body: bytes, start_response: Callable) -> Iterable[bytes]:
        if len(body) > MAX_BODY_BYTES:
            raise refused(413, f"more than {MAX_BODY_BYTES} bytes")
        route = self.objects.get(("httproutes", "recsys"))
        if route is None:
            raise refused(404, "no route")
        weights = {each["name"]: each["weight"] for each in route["spec"]["rules"][0]["backendRefs"]}
        service = self.objects["services", self.drawn(weights)]
        (pods,) = [each for (plural, _), each in self.objects.items() if plural == "deployments"
                   and service["spec"]["selector"].items()
                   <= each["spec"]["template"]["metadata"]["labels"].items()]  # fmt: skip
        environment = {each["name"]: each["value"] for each in pods["spec"]["template"]["spec"]["containers"][0]["env"]}
        status, content = self.ask(environment["RECSYS_RELEASE"], "/invocations", body)
        start_response(f"{status} Emulated", [("Content-Type", "application/json")])
        return [content]
