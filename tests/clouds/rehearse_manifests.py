"""The rendered overlays against Kubernetes' own JSON schemas, strictly; in the cloud environment (`make rehearse`)."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest
import yaml

from recsys.settings import HOME

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="not installed: `make setup-cloud`")
KUBERNETES = "1.37.0"
OVERLAYS = sorted(path.parent for path in (HOME / "infra" / "k8s" / "overlays").glob("*/kustomization.yaml"))
HERE = Path(sys.executable).parent


def found(program: str) -> str | None:
    """Return where a program is, on the PATH or built by `make setup-cloud`."""
    return which(program) or which(program, path=HERE)


RENDER = [found("kustomize"), "build"] if found("kustomize") else ["kubectl", "kustomize"]


@pytest.fixture(params=OVERLAYS, ids=lambda path: path.name)
def rendered(request):
    if which(RENDER[0]) is None:
        pytest.skip("neither kustomize nor kubectl is on this machine: install Go and run `make setup-cloud`")
    done = subprocess.run([*RENDER, str(request.param)], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def test_each_manifest_is_one_of_this_kubernetes(rendered):
    assert len(rendered) == 6
    for manifest in rendered:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.fixture(scope="module")
def kubeconform(tmp_path_factory):
    """The command, with the schemas that this environment carries: without their absolute ids it reads them here."""
    program = found("kubeconform")
    if program is None:
        pytest.skip("kubeconform is not on this machine: install Go and run `make setup-cloud`")
    folder = tmp_path_factory.mktemp("schemas")
    carried = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict"
    for file in carried.glob("*.json"):
        schema = json.loads(file.read_text().replace('"/api/_definitions.json#', '"_definitions.json#'))
        (folder / file.name).write_text(json.dumps({name: value for name, value in schema.items() if name != "$id"}))
    location = f"{folder}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    return [program, "-strict", "-summary", "-output", "json", "-kubernetes-version", KUBERNETES,
            "-schema-location", location]  # fmt: skip


def judged(command: list[str], manifests: list[dict]) -> tuple[int, dict]:
    done = subprocess.run(command, input=yaml.safe_dump_all(manifests), capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


def test_kubeconform_takes_what_is_rendered(rendered, kubeconform):
    code, told = judged(kubeconform, rendered)
    assert (code, told["summary"]) == (0, {"valid": len(rendered), "invalid": 0, "errors": 0, "skipped": 0}), told


def test_kubeconform_refuses_a_misspelt_field(rendered, kubeconform):
    budget = copy.deepcopy(next(each for each in rendered if each["kind"] == "PodDisruptionBudget"))
    budget["spec"]["maxUnavailabel"] = budget["spec"].pop("maxUnavailable")
    code, told = judged(kubeconform, [budget])
    assert code == 1
    assert told["summary"]["invalid"] == 1
    assert "maxUnavailabel" in json.dumps(told)


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
