"""What Kubernetes needs to serve a release: the manifests of `base/`, once a release, and a route that divides traffic.

    service_account, network_policy, budget   recsys             for all releases together
    deployment, service                       recsys/<release>   the pods of one release, and their address
    scaling                                   recsys/<release>   a HorizontalPodAutoscaler, where there is a policy
    traffic                                   recsys             an HTTPRoute with weights (Gateway API)

The manifests stand once, in `base/`; Kustomize renders them for a team that applies by hand, this module for a rollout.
Source: Gateway API "HTTP traffic splitting".
"""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from infra.autoscaling import hpa
from infra.blueprint import Read, State, state_of
from infra.prices import price
from infra.targets import Frozen, Key, Release, Resource

BASE = Path(__file__).with_name("base")
KINDS = ("service_account", "network_policy", "budget", "deployment", "service", "scaling", "traffic")
PREFIX = "recsys"
SHAPE = "1 core, 1 GiB"
LABELS = {"app.kubernetes.io/name": "recsys", "app.kubernetes.io/component": "serving"}
RELEASE_LABEL, VERSION_LABEL = "recsys.io/release", "app.kubernetes.io/version"
SHARED = {
    "service_account": "serviceaccount.yaml",
    "network_policy": "networkpolicy.yaml",
    "budget": "poddisruptionbudget.yaml",
}


class K8sConfig(Frozen):
    """Which cluster. Credentials are kubeconfig's or the pod's own and stand nowhere in the project."""

    context: str = Field("", description="of kubeconfig; empty: the current one, inside a cluster the pod's own")
    server: str = Field("", description="an API server that asks for no credentials, e.g. `kubectl proxy`")
    namespace: str = Field("recsys", pattern=r"^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$")
    registry: str = Field(description="where the cluster pulls images from")
    gateway: str = Field(PREFIX, description="a Gateway of that namespace, which the cluster's owners keep")
    url: str = Field(pattern=r"^https?://", description="where the gateway answers")
    batch_claim: str = Field("recsys-batch", description="volume claim with the files of batches")
    wait_seconds: int = Field(360, ge=1, description="until a deployment counts as stuck; beyond its progress deadline")


class K8sBlueprint:
    """The resources of a state."""

    name, kinds, free = "k8s", KINDS, tuple(SHARED)

    def __init__(self, config: K8sConfig):
        self.config, self.registry = config, config.registry

    def resources(self, state: State) -> list[Resource]:
        if not state.releases:
            return []
        least = state.policy.min_replicas if state.policy else 1
        row = price("k8s", SHAPE)
        found = [
            Resource(kind=kind, name=PREFIX, spec={"manifest": labelled(base(file), {})})
            for kind, file in SHARED.items()
        ]
        for release in state.releases:
            name = f"{PREFIX}/{release.name}"
            found += [
                Resource(
                    kind="deployment", name=name, spec={"manifest": deployment(release)},
                    monthly_usd=row.monthly(least), priced_by=f"k8s {SHAPE}",
                ),
                Resource(kind="service", name=name, spec={"manifest": service(release)}),
            ]  # fmt: skip
            if state.policy:
                scaling = labelled(hpa(state.policy, object_name(name)), {RELEASE_LABEL: release.name})
                found.append(Resource(kind="scaling", name=name, spec={"manifest": scaling}))
        note = {"policy": state.policy.told()} if state.policy else {}
        shares = {release.name: state.shares[release.name] for release in state.releases}
        found.append(Resource(kind="traffic", name=PREFIX, spec={"shares": shares, **note}))
        return sorted(found, key=lambda resource: KINDS.index(resource.kind))

    def state(self, read: Read) -> State:
        def release_of(name: str) -> Release | None:
            found = read(Key("deployment", f"{PREFIX}/{name}"))
            if found is None:
                return None
            template = found["manifest"]["spec"]["template"]
            image = template["spec"]["containers"][0]["image"]
            return Release(version=template["metadata"]["labels"][VERSION_LABEL], image=image)

        return state_of(read(Key("traffic", PREFIX)), release_of)


def object_name(name: str) -> str:
    """Return a resource's name in the cluster."""
    return name.replace("/", "-")


@cache
def _base(file: str) -> dict[str, Any]:
    return yaml.safe_load((BASE / file).read_text())


def base(file: str) -> dict[str, Any]:
    """Return a manifest of `base/`, to be changed."""
    return copy.deepcopy(_base(file))


def labelled(manifest: dict[str, Any], more: dict[str, str]) -> dict[str, Any]:
    """Return the manifest with our labels and these."""
    metadata = manifest["metadata"]
    metadata["labels"] = metadata.get("labels", {}) | LABELS | more
    return manifest


def deployment(release: Release) -> dict[str, Any]:
    """Return a release's Deployment: its own name, selector and image; everything else is the base's."""
    manifest = labelled(base("deployment.yaml"), {RELEASE_LABEL: release.name})
    manifest["metadata"]["name"] = object_name(f"{PREFIX}/{release.name}")
    spec = manifest["spec"]
    spec["selector"] = {"matchLabels": {RELEASE_LABEL: release.name}}
    labels = LABELS | {RELEASE_LABEL: release.name, VERSION_LABEL: release.version}
    spec["template"].setdefault("metadata", {})["labels"] = labels
    container = spec["template"]["spec"]["containers"][0]
    container["image"] = release.image
    container["env"] = [{"name": "RECSYS_RELEASE", "value": release.version}]
    return manifest


def service(release: Release) -> dict[str, Any]:
    """Return the address of a release's pods."""
    manifest = labelled(base("service.yaml"), {RELEASE_LABEL: release.name})
    manifest["metadata"]["name"] = object_name(f"{PREFIX}/{release.name}")
    manifest["spec"]["selector"] = {RELEASE_LABEL: release.name}
    return manifest


def route(config: K8sConfig, spec: dict[str, Any], annotation: str) -> dict[str, Any]:
    """Return the HTTPRoute that divides the traffic so; the scaling policy stands in an annotation."""
    backends = [
        {"name": object_name(f"{PREFIX}/{name}"), "port": 80, "weight": share} for name, share in spec["shares"].items()
    ]
    manifest = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": PREFIX, "annotations": {annotation: spec["policy"]} if "policy" in spec else {}},
        "spec": {"parentRefs": [{"name": config.gateway}], "rules": [{"backendRefs": backends}]},
    }
    return labelled(manifest, {})


def job(config: K8sConfig, name: str, image: str, source: str, destination: str) -> dict[str, Any]:
    """Return the Job that answers the files at `source` into `destination`; both are paths of the batches' volume."""
    pod = base("deployment.yaml")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports"):
        container.pop(probe)
    container |= {"image": image, "args": ["lines", f"/batch/{source}", f"/batch/{destination}"]}
    container["volumeMounts"] = [*container["volumeMounts"], {"name": "batch", "mountPath": "/batch"}]
    pod["volumes"] = [
        *pod["volumes"],
        {"name": "batch", "persistentVolumeClaim": {"claimName": config.batch_claim}},
    ]
    pod.pop("topologySpreadConstraints")
    pod["restartPolicy"] = "Never"
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 2, "ttlSecondsAfterFinished": 86_400, "template": {"spec": pod}},
    }
    return labelled(manifest, {})
