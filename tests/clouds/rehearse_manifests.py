"""The rendered overlays against Kubernetes' own JSON schemas, strictly; in the cloud environment (`make rehearse`)."""

import copy
import subprocess
from shutil import which

import kubernetes_validate
import pytest
import yaml

from recsys.settings import HOME

KUBERNETES = "1.37.0"
OVERLAYS = sorted(path.parent for path in (HOME / "infra" / "k8s" / "overlays").glob("*/kustomization.yaml"))
RENDER = ["kustomize", "build"] if which("kustomize") else ["kubectl", "kustomize"]


@pytest.fixture(params=OVERLAYS, ids=lambda path: path.name)
def rendered(request):
    if which(RENDER[0]) is None:
        pytest.skip("neither kustomize nor kubectl is on this machine")
    done = subprocess.run([*RENDER, str(request.param)], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def test_each_manifest_is_one_of_this_kubernetes(rendered):
    assert len(rendered) == 6
    for manifest in rendered:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_a_misspelt_field_is_refused(rendered):
    budget = copy.deepcopy(next(each for each in rendered if each["kind"] == "PodDisruptionBudget"))
    budget["spec"]["maxUnavailabel"] = budget["spec"].pop("maxUnavailable")
    with pytest.raises(kubernetes_validate.ValidationError, match="maxUnavailabel"):
        kubernetes_validate.validate(budget, KUBERNETES, strict=True)


def test_what_selects_pods_selects_these(rendered):
    by_kind = {manifest["kind"]: manifest for manifest in rendered}
    labels = by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        by_kind["Deployment"]["spec"]["selector"]["matchLabels"],
        by_kind["Service"]["spec"]["selector"],
        by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selectors)
    assert all(selector.items() <= labels.items() for selector in selectors)
