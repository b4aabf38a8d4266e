"""The rehearsal of Kubernetes: its own client against an emulated API server, real serving processes behind a gateway.

Runs in the cloud environment only (`make rehearse`); its name keeps it out of the default suite.
"""

from datetime import UTC, datetime

import pytest

from infra import rollout
from infra.k8s.blueprint import K8sBlueprint, K8sConfig
from infra.k8s.plane import K8sPlane
from infra.targets import CloudFault, Key
from tests.clouds import sdks
from tests.clouds.conformance import POLICY
from tests.clouds.k8s_emulator import K8sEmulator
from tests.clouds.processes import bundles, local, serving
from tests.clouds.rehearsed import DAY, NEW, OLD, Rehearsal, Rehearsed

FIXTURES = (bundles, local, serving, sdks)


@pytest.fixture(scope="session")
def emulator(serving):
    emulator = K8sEmulator(serving)
    yield emulator
    emulator.close()


@pytest.fixture
def cloud(emulator, tmp_path):
    waits: list[float] = []
    config = K8sConfig(server=emulator.url, url=emulator.url, registry="registry.example", wait_seconds=20)
    plane = K8sPlane(config, waits.append)
    rehearsal = Rehearsal(K8sBlueprint(config), plane, emulator, tmp_path / "l.jsonl", waits)
    yield rehearsal
    rehearsal.clean()


@pytest.fixture
def requests_uri():
    return "requests"


@pytest.fixture
def answers_uri():
    return "answers"


class TestK8s(Rehearsed):
    def test_what_is_changed_by_hand_is_mended(self, cloud, emulator):
        rollout.canary(cloud.target, OLD, POLICY)
        deployment = emulator.objects["deployments", f"recsys-{OLD.name}"]
        deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False
        plan = cloud.target.plan(OLD, rollout.CANARY)
        assert [(change.verb, change.kind) for change in plan.changes] == [("update", "deployment")]

    def test_replicas_of_the_autoscaler_are_not_ours(self, cloud, emulator):
        rollout.canary(cloud.target, OLD, POLICY)
        emulator.objects["deployments", f"recsys-{OLD.name}"]["spec"]["replicas"] = 7
        assert cloud.target.plan(OLD, rollout.CANARY).changes == ()

    def test_what_kubernetes_does_not_know_is_refused(self, cloud):
        manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "recsys-x"}, "spec": {"prots": []}}
        with pytest.raises(CloudFault, match="prots"):
            cloud.plane.create(Key("service", "recsys/x"), {"manifest": manifest})

    def test_a_namespace_that_is_not_there_is_told(self, cloud, emulator):
        """Kubernetes has no regions; what can be wrong is the cluster (its context) or the namespace."""
        rollout.canary(cloud.target, OLD, POLICY)
        config = K8sConfig(server=emulator.url, url=emulator.url, registry="registry.example", namespace="nobodys")
        elsewhere = cloud.elsewhere(K8sBlueprint(config), K8sPlane(config, cloud.waits.append))
        with pytest.raises(CloudFault, match=r'namespaces \\*"nobodys\\*" not found'):
            rollout.canary(elsewhere, NEW, POLICY)
        assert cloud.target.shares() == {OLD.name: 100}
        assert set(emulator.billable()) == {f"recsys-{OLD.name}"}

    def test_without_kubeconfig_nothing_is_asked(self, monkeypatch, tmp_path):
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        with pytest.raises(CloudFault, match="Sign in"):
            K8sPlane(K8sConfig(url="http://x", registry="x"), lambda seconds: None)

    def test_without_a_metrics_adapter_nobody_is_taken_for_idle(self, cloud):
        rollout.canary(cloud.target, OLD, POLICY)
        cloud.emulator.has_adapter = False
        now = datetime.now(UTC)
        told = rollout.rest(cloud.target, now - DAY, now)
        cloud.emulator.has_adapter = True
        assert told["asked"] is None
        assert told["shares"] == {OLD.name: 100}
