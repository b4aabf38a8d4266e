"""The command line of a rollout, over a control plane in memory, and what it says when it cannot begin."""

from argparse import Namespace

import pytest

from infra import __main__ as shell
from infra import configuration
from infra.registry import Version
from recsys.errors import CheckFailed, MissingArtifact, UnusableInput
from recsys.settings import Settings
from tests.clouds.test_rollout import World

AWS = '{"aws": {"role_arn": "arn:aws:iam::123456789012:role/recsys", "registry": "registry.example"}}'


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "clouds.json").write_text(AWS)
    return Settings(
        _env_file=None, var_dir=tmp_path, clouds=str(tmp_path / "clouds.json"), serving_url="http://127.0.0.1:1"
    )


@pytest.fixture
def step(settings, tmp_path, monkeypatch):
    """A function that runs one step for the champion of that version; `logged` are the steps that became runs."""
    world, logged = World(tmp_path), []
    monkeypatch.setattr(configuration, "target", lambda *_: world.target)
    monkeypatch.setattr(shell, "log_deployment", lambda _, version, step, *rest: logged.append((step, version)))

    def run(name: str, version: str = "1", dry_run: bool = False):
        monkeypatch.setattr(shell, "champion", lambda _: Version(version, "run"))
        return shell.released(settings, Namespace(step=name, target="aws", dry_run=dry_run))

    run.logged = logged
    return run


def test_the_steps_of_the_dag_in_order(step):
    assert step("plan")["changes"] == 4
    assert step("canary", dry_run=True) == step("plan")
    for name in ("canary", "shift", "verify", "promote"):
        step(name)
    assert step("canary", "2")["shares"].keys() == {*step("cost")["shares"]}
    with pytest.raises(CheckFailed, match="rolled back"):
        step("roll-back", "2")
    assert len(step("cost")["shares"]) == 1
    assert step("teardown")["changes"]
    assert step("cost") == {"target": "aws", "monthly_usd": 0.0, "shares": {}}
    ways = [("canary", "1"), ("shift", "1"), ("promote", "1"), ("canary", "2"), ("roll-back", "2")]
    assert [one for one in step.logged if one in ways] == step.logged
    assert {("canary", "1"), ("canary", "2"), ("roll-back", "2")} <= set(step.logged)


def test_a_second_run_of_the_dag_changes_nothing(step):
    for name in ("canary", "shift", "verify", "promote"):
        step(name)
    assert all(step(name)["unchanged"] for name in ("canary", "shift", "verify", "promote"))


def test_without_a_file_or_a_cloud_in_it_the_way_out_is_told(settings, tmp_path):
    with pytest.raises(MissingArtifact, match=r"docs/clouds\.md"):
        configuration.read(settings.model_copy(update={"clouds": ""}))
    (tmp_path / "wrong.json").write_text('{"aws": {"role": "x"}}')
    with pytest.raises(UnusableInput, match="role_arn"):
        configuration.read(settings.model_copy(update={"clouds": str(tmp_path / "wrong.json")}))
    with pytest.raises(MissingArtifact, match="target aws"):
        configuration.target("aws", settings, configuration.Clouds())
