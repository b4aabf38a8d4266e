"""The image of a release by the commands that a target names, run for real with the tools' calls written down."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from bench import image as bench
from infra import configuration, image
from infra.blueprint import BlueprintTarget, State
from infra.local.service import poll
from infra.reconcile import Ledger, Reconciler
from infra.targets import Release
from recsys.errors import MissingArtifact, RecsysError
from recsys.settings import Settings
from tests.clouds.memory_plane import MemoryPlane
from tests.clouds.test_targets import PARTS
from tests.worlds.served import ODD, write_world

RELEASE = Release(version="7", image="registry.example/recsys:7")
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
    assert (said["target"], said["step"], said["image"]) == ("k8s", "build", RELEASE.image)
    assert (folder / "baked").read_text().split() == ["manifest.json"]
    called = (folder / "called").read_text().split("\n")
    assert {"--target=baked", f"--tag={RELEASE.image}"} <= set(called)


def test_the_image_goes_to_the_targets_registry(target, buildah, tmp_path):
    folder = buildah(0)
    image.make("push", target, RELEASE, tmp_path)
    assert (folder / "called").read_text().split() == ["push", RELEASE.image, f"docker://{RELEASE.image}"]


@pytest.mark.parametrize("name", PARTS)
def test_what_is_pushed_is_what_the_cloud_is_told_to_run(name):
    module = configuration.module(name)
    config = module.Config.model_validate(PARTS[name])
    release = configuration.release(name, configuration.Clouds(targets={name: config}), "7")
    assert release.image == f"{config.registry}/recsys:7"
    state = State((release,), {release.name: 100}, None)
    told = json.dumps([each.spec for each in module.Blueprint(config).resources(state)])
    assert release.image in told
    assert told.count("recsys:7") == told.count(release.image)


def test_a_dry_run_only_says_the_command(target, buildah, tmp_path):
    folder = buildah(0)
    said = image.make("push", target, RELEASE, tmp_path, is_dry=True)
    assert said["command"] == f"buildah push {RELEASE.image} docker://{RELEASE.image}"
    assert not (folder / "called").exists()


def test_nobody_has_to_be_signed_in_to_build_and_push(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    made = configuration.target(
        "k8s", Settings(_env_file=None, var_dir=tmp_path), configuration.Clouds(targets={
            "k8s": configuration.module("k8s").Config.model_validate(PARTS["k8s"])}),
    )  # fmt: skip
    assert made.push(RELEASE)[:2] == ["buildah", "push"]
    assert made.build(RELEASE, tmp_path)[1] == "build"


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


MISSING = [tool for tool in bench.NEEDED if shutil.which(tool) is None]


@pytest.mark.image
@pytest.mark.soak
@pytest.mark.skipif(bool(MISSING), reason=f"not installed here (Debian packages): {', '.join(MISSING)}")
def test_a_release_goes_through_a_registry_and_answers_on_a_machine_that_had_nothing(tmp_path, monkeypatch):
    write_world(tmp_path / "bundles" / "v7", "onnx", "7")
    with bench.registry(tmp_path / "registry") as address:
        elsewhere = bench.store(tmp_path / "elsewhere", address)
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", elsewhere.environment["CONTAINERS_REGISTRIES_CONF"])
        part = configuration.module("k8s").Config.model_validate({**PARTS["k8s"], "registry": address})
        clouds = configuration.Clouds(targets={"k8s": part})
        release = configuration.release("k8s", clouds, "7")
        made = configuration.target("k8s", Settings(_env_file=None, var_dir=tmp_path), clouds)
        image.make("build", made, release, tmp_path / "bundles")
        image.make("push", made, release, tmp_path / "bundles")
        elsewhere.call("podman", "pull", "--quiet", release.image)
        assert elsewhere.bytes_of(release.image) <= bench.MAX_BYTES
        with bench.container(elsewhere, release.image) as url:
            poll(partial(bench.answers, f"{url}/ping"), bench.READY_SECONDS)
            answer = bench.asked(url)
    assert answer["model_version"] == "7"
    assert [each["item_id"] for each in answer["items"]] == [item for item in ODD if item != "movielens:01"][:5]
