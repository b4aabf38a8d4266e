"""The Kubernetes manifests say what the container needs; `make rehearse` judges the rendered ones by schema."""

import pytest
import yaml

from infra.autoscaling import ScalingPolicy, hpa
from recsys.settings import HOME
from serving.process import DRAIN_SECONDS

BASE = HOME / "infra" / "k8s" / "base"
ROUTES = {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}


@pytest.fixture(scope="module")
def manifests():
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(path.name for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")
    found = [yaml.safe_load((BASE / name).read_text()) for name in listed]
    return {manifest["kind"]: manifest for manifest in found}


@pytest.fixture(scope="module")
def pod(manifests):
    return manifests["Deployment"]["spec"]["template"]["spec"]


def test_the_kinds_are_all_there(manifests):
    assert set(manifests) == {
        "ServiceAccount", "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy",
    }  # fmt: skip


def test_the_container_may_do_nothing_but_serve(pod):
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "USER 10001:10001" in (HOME / "serving" / "Dockerfile").read_text()
    assert pod["securityContext"]["runAsUser"] == 10001


@pytest.mark.parametrize("probe", ROUTES)
def test_the_probes_ask_the_serving_contract(pod, probe):
    (container,) = pod["containers"]
    assert container[probe]["httpGet"] == {"path": ROUTES[probe], "port": "http"}


def test_a_pod_has_time_to_drain(pod):
    (container,) = pod["containers"]
    assert "time.sleep(5)" in container["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert pod["terminationGracePeriodSeconds"] >= 5 + 2 * DRAIN_SECONDS


def test_the_hpa_is_the_policys(manifests):
    assert manifests["HorizontalPodAutoscaler"] == hpa(ScalingPolicy(), "recsys")


def test_the_replicas_are_the_hpas_alone(manifests):
    assert "replicas" not in manifests["Deployment"]["spec"]


def test_traffic_is_closed_both_ways_unless_named(manifests):
    policy = manifests["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 6379, 9092}
    assert [rule["from"] for rule in policy["ingress"]]
