"""The image of a release by the commands that a target names, run for real with the tools' calls written down."""

import json
from pathlib import Path

import pytest

from infra import configuration, image
from infra.blueprint import BlueprintTarget
from infra.reconcile import Ledger, Reconciler
from infra.targets import Release
from recsys.errors import MissingArtifact, RecsysError
from tests.clouds.memory_plane import MemoryPlane
from tests.clouds.test_targets import PARTS

RELEASE = Release(version="7", image="recsys:7")
WRITES_DOWN = """#!/bin/sh
for last; do :; done
if [ -d "$last/var/serving/current" ]; then ls "$last/var/serving/current" >"{folder}/baked"; fi
printf '%s\\n' "$@" >"{folder}/called"
exit {code}
"""


@pytest.fixture
def target(tmp_path):
    made = configuration.module("k8s").Blueprint(configuration.module("k8s").Config.model_validate(PARTS["k8s"]))
    plane = MemoryPlane(made)
    return BlueprintTarget(made, plane, Reconciler("k8s", plane, Ledger(tmp_path / "l.jsonl"), lambda seconds: None))


@pytest.fixture
def buildah(tmp_path, monkeypatch):
    """A `buildah` that writes down how it was called; set_up(code) puts it on the PATH."""
    folder = tmp_path / "bin"

    def set_up(code: int) -> Path:
        folder.mkdir()
        (folder / "buildah").write_text(WRITES_DOWN.format(folder=folder, code=code))
        (folder / "buildah").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        return folder

    return set_up


def bundles(tmp_path: Path) -> Path:
    (tmp_path / "bundles" / "v7").mkdir(parents=True)
    (tmp_path / "bundles" / "v7" / "manifest.json").write_text(json.dumps({}))
    return tmp_path / "bundles"


def test_the_image_is_built_with_the_bundle_in_it(target, buildah, tmp_path):
    folder = buildah(0)
    said = image.make("build", target, RELEASE, bundles(tmp_path))
    assert (said["target"], said["step"], said["image"]) == ("k8s", "build", "recsys:7")
    assert (folder / "baked").read_text().split() == ["manifest.json"]
    called = (folder / "called").read_text().split("\n")
    assert {"--target=baked", "--tag=recsys:7"} <= set(called)


def test_the_image_goes_to_the_targets_registry(target, buildah, tmp_path):
    folder = buildah(0)
    image.make("push", target, RELEASE, tmp_path)
    assert (folder / "called").read_text().split() == ["push", "recsys:7", "docker://registry.example/recsys:7"]


def test_a_dry_run_only_says_the_command(target, buildah, tmp_path):
    folder = buildah(0)
    said = image.make("push", target, RELEASE, tmp_path, is_dry=True)
    assert said["command"] == "buildah push recsys:7 docker://registry.example/recsys:7"
    assert not (folder / "called").exists()


def test_without_the_bundle_it_says_what_to_do(target, tmp_path):
    with pytest.raises(MissingArtifact, match="canary --target local"):
        image.make("build", target, RELEASE, tmp_path)


def test_a_command_that_fails_or_is_missing_is_told(target, buildah, tmp_path, monkeypatch):
    buildah(3)
    with pytest.raises(RecsysError, match="exit code 3"):
        image.make("push", target, RELEASE, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(RecsysError, match="not installed"):
        image.make("push", target, RELEASE, tmp_path)
