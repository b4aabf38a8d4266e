"""A cluster by its API; the client is loaded when first needed.

An object carries the manifest that was asked for in an annotation, as `kubectl apply` does it. It is so as long as
everything in that manifest is in the object still: what the cluster adds (defaults, status, an autoscaler's number of
replicas) is not ours, and what somebody changed by hand shows.
"""

import json
import math
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from infra.k8s.blueprint import KINDS, PREFIX, K8sConfig, job, object_name, route
from infra.targets import CloudFault, Key, NotReady, Release, Transient, digest_of

POLL_SECONDS = 2
APPLIED, POLICY = "recsys.io/applied", "recsys.io/scaling-policy"
CUSTOM_METRICS, REQUESTS_METRIC = "/apis/custom.metrics.k8s.io/v1beta2", "recsys_requests_in_window"
OURS = "app.kubernetes.io/name=recsys"
COLLECTIONS = {
    "service_account": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "network_policy": "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies",
    "budget": "/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets",
    "deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "service": "/api/v1/namespaces/{namespace}/services",
    "scaling": "/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers",
    "traffic": "/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes",
    "job": "/apis/batch/v1/namespaces/{namespace}/jobs",
}


class Absent(Exception):
    """The cluster says that there is none."""


class K8sPlane:
    """The actual state in one namespace.

    Args:
        sleep: waits between looks at a deployment.
    """

    def __init__(self, config: K8sConfig, sleep: Callable[[float], None]):
        from kubernetes import client
        from kubernetes import config as kubeconfig

        self._config, self._sleep = config, sleep
        if config.server:
            self._api = client.ApiClient(client.Configuration(host=config.server))
            return
        try:
            if config.context:
                kubeconfig.load_kube_config(context=config.context)
            else:
                kubeconfig.load_config()
        except kubeconfig.ConfigException as error:
            raise CloudFault("kubeconfig", error, "Sign in to the cluster; `kubectl get pods` has to work") from error
        self._api = client.ApiClient()

    def read(self, key: Key) -> dict[str, Any] | None:
        try:
            with translated(key):
                found = self._call("GET", key)
        except Absent:
            return None
        if key.kind == "traffic":
            return self._traffic(found)
        applied = json.loads(found["metadata"].get("annotations", {}).get(APPLIED, "{}"))
        if not applied:
            return {"manifest": None}
        if key.kind == "deployment" and not _came_up(found):
            return {"manifest": applied, "came_up": False}  # begun by a process that did not live to see it
        return {"manifest": applied, **({} if holds(applied, found) else {"changed": "by hand"})}

    def owned(self) -> list[Key]:
        found = []
        for kind in KINDS:
            with translated(Key(kind, PREFIX)):
                listed = self._request("GET", self._path(kind), query=[("labelSelector", OURS)])["items"]
            for each in listed:
                name, labels = each["metadata"]["name"], each["metadata"]["labels"]
                release = labels.get("recsys.io/release")
                found.append(Key(kind, f"{PREFIX}/{release}" if release else name))
        return found

    def create(self, key: Key, spec: dict[str, Any]) -> None:
        try:
            with translated(key):
                self._request("POST", self._path(key.kind), self._manifest(key, spec))
                self._settled(key)
        except Absent as absent:
            where = "Make the namespace, install the Gateway API, or name another context in RECSYS_CLOUDS"
            raise CloudFault(key.kind, absent, where) from absent

    def update(self, key: Key, spec: dict[str, Any]) -> None:
        with translated(key):
            version = self._call("GET", key)["metadata"].get("resourceVersion")
            manifest = self._manifest(key, spec)
            manifest["metadata"]["resourceVersion"] = version  # somebody else's change in between is a conflict
            self._call("PUT", key, manifest)
            self._settled(key)

    def delete(self, key: Key) -> None:
        try:
            with translated(key):
                self._call("DELETE", key, {"propagationPolicy": "Background"})
        except Absent:
            return

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        asked = urllib.request.Request(
            f"{self._config.url}/invocations", json.dumps(request).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=60) as answered:
                return json.load(answered)
        except urllib.error.HTTPError as error:
            fault = Transient if error.code in (429, 502, 503, 504) else CloudFault
            raise fault("gateway", f"{error.code} {error.read()[:300]!r}", "See the pods' logs") from error
        except OSError as error:
            raise Transient("gateway", error, "It is not reached; the step may run again") from error

    def requests(self, since: datetime, until: datetime) -> int | None:
        """The window is the metrics adapter's (README); without an adapter nobody knows."""
        from kubernetes.utils.quantity import parse_quantity

        path = f"{CUSTOM_METRICS}/namespaces/{self._config.namespace}/pods/*/{REQUESTS_METRIC}"
        try:
            with translated(Key("metric", REQUESTS_METRIC)):
                items = self._request("GET", path, query=[("labelSelector", OURS)])["items"]
        except Absent:
            return None
        return math.ceil(sum(parse_quantity(item["value"]) for item in items))

    def batch(self, release: Release, source: str, destination: str) -> str:
        """Start a Job over the files at `source`; both are paths of the batches' volume. Its name is its content."""
        name = f"{PREFIX}-{release.name}-{digest_of([source, destination])}"
        try:
            with translated(Key("job", name)):
                manifest = job(self._config, name, release.image, source, destination)
                self._request("POST", self._path("job"), manifest)
        except FileExistsError:
            pass
        return name

    def _manifest(self, key: Key, spec: dict[str, Any]) -> dict[str, Any]:
        if key.kind == "traffic":
            return route(self._config, spec, POLICY)
        manifest = json.loads(json.dumps(spec["manifest"]))
        manifest["metadata"].setdefault("annotations", {})[APPLIED] = json.dumps(spec["manifest"])
        return manifest

    @staticmethod
    def _traffic(found: Mapping[str, Any]) -> dict[str, Any]:
        backends = found["spec"]["rules"][0]["backendRefs"]
        shares = {each["name"].removeprefix(f"{PREFIX}-"): each["weight"] for each in backends}
        policy = found["metadata"].get("annotations", {}).get(POLICY)
        return {"shares": shares, **({"policy": policy} if policy else {})}

    def _settled(self, key: Key) -> None:
        """Return when the pods of a deployment are available.

        Raises:
            NotReady: they are not in time, or the cluster has given up.
            CloudFault: a quota does not let them be made.
        """
        if key.kind != "deployment":
            return
        for _ in range(max(1, self._config.wait_seconds // POLL_SECONDS)):
            found = self._call("GET", key)
            if _available(found):
                return
            for condition in found.get("status", {}).get("conditions", []):
                why = f"{key.name}: {condition.get('reason')} {condition.get('message', '')}"
                if condition["type"] == "ReplicaFailure" and "quota" in condition.get("message", ""):
                    raise CloudFault("quota", why, "Ask for a larger ResourceQuota, or lower min_replicas")
                if condition["type"] == "Progressing" and condition["status"] == "False":
                    raise NotReady("deployment", why, "See `kubectl describe pods` and their logs")
            self._sleep(POLL_SECONDS)
        raise NotReady("deployment", key.name, f"Its pods were not available after {self._config.wait_seconds} s")

    def _path(self, kind: str) -> str:
        return COLLECTIONS[kind].format(namespace=self._config.namespace)

    def _call(self, method: str, key: Key, body: Any = None) -> dict[str, Any]:
        return self._request(method, f"{self._path(key.kind)}/{object_name(key.name)}", body)

    def _request(self, method: str, path: str, body: Any = None, query: Any = ()) -> dict[str, Any]:
        found, _, _ = self._api.call_api(
            path, method, query_params=list(query), body=body,
            response_types_map=dict.fromkeys((200, 201, 202), "object"),
            header_params={"Content-Type": "application/json", "Accept": "application/json"},
            auth_settings=["BearerToken"], _request_timeout=60,
        )  # fmt: skip
        return found


def holds(applied: Any, live: Any) -> bool:
    """Return whether everything that was asked for is so still; what the cluster added does not count."""
    if isinstance(applied, dict):
        return isinstance(live, dict) and all(
            holds(value, live.get(name)) or value in ({}, None) for name, value in applied.items()
        )
    if isinstance(applied, list):
        return isinstance(live, list) and len(live) >= len(applied) and all(map(holds, applied, live))
    return applied == live


def _available(found: Mapping[str, Any]) -> bool:
    status = found.get("status", {})
    seen = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
    wanted = found["spec"].get("replicas", 1)
    return seen and status.get("updatedReplicas", 0) >= wanted and status.get("availableReplicas", 0) >= wanted


def _came_up(found: Mapping[str, Any]) -> bool:
    """Whether its pods have been available once; that they crashed since is the cluster's matter, not a rollout's."""
    conditions = found.get("status", {}).get("conditions", [])
    return any(each.get("reason") == "NewReplicaSetAvailable" for each in conditions)


@contextmanager
def translated(key: Key) -> Iterator[None]:
    """Turn the API server's errors into ours; `Absent` and FileExistsError are part of the answer."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise fault_of(int(error.status or 0), str(error.body or error.reason), key) from error
    except HTTPError as error:
        raise Transient(key.kind, error, "The API server is not reached; the step may run again") from error


def fault_of(status: int, message: str, key: Key) -> Exception:
    """Return what a status of the API server means for us."""
    what = f"{key.name}: {status} {message[:300]}"
    if status == 429 or status >= 500:
        return Transient(key.kind, what, "The API server asks for patience; the step may run again")
    if status == 403 and "exceeded quota" in message:
        return CloudFault("quota", what, "Ask for a larger ResourceQuota")
    if status in (401, 403):
        return CloudFault("cluster credentials", what, "Renew them or extend the role, then run the step again")
    if status == 404:
        return Absent(what)
    if status == 409 and "AlreadyExists" in message:
        return FileExistsError(key.name)
    if status == 409:
        return Transient(key.kind, what, "Somebody else changed it in between")
    return CloudFault(key.kind, what, "See the message")
