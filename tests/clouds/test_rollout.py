"""Reconciler and rollout against a control plane in memory: the conformance walk, and every fault at every step."""

from datetime import UTC, datetime, timedelta

import pytest

from infra import rollout
from infra.aws.blueprint import AwsBlueprint, AwsConfig
from infra.blueprint import RESTING, BlueprintTarget
from infra.reconcile import ATTEMPTS, Ledger, Reconciler
from infra.targets import Change, CloudFault, Key, NotReady, Release, Transient, check_shares, shares_with
from recsys.errors import CheckFailed
from tests.clouds.conformance import POLICY, check_the_whole_way
from tests.clouds.memory_plane import Killed, MemoryPlane

CONFIG = AwsConfig(role_arn="arn:aws:iam::123456789012:role/recsys-serving", registry="registry.example")
OLD, NEW = Release(version="1", image="recsys:1"), Release(version="2", image="recsys:2")


class World:
    """A target over a plane in memory; `restarted` is the next process: same cloud, same ledger."""

    def __init__(self, path):
        self.blueprint = AwsBlueprint(CONFIG)
        self.plane, self.path = MemoryPlane(self.blueprint), path
        self.restarted()

    def restarted(self) -> BlueprintTarget:
        self.waits: list[float] = []
        reconciler = Reconciler("aws", self.plane, Ledger(self.path / "aws.jsonl"), self.waits.append)
        self.target = BlueprintTarget(self.blueprint, self.plane, reconciler)
        return self.target


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def served(world):
    """The old release serves everything."""
    rollout.canary(world.target, OLD, POLICY)
    world.plane.log.clear()
    return world


def test_the_whole_way(world):
    check_the_whole_way(world.target, OLD, NEW)
    assert world.plane.there == {}


def test_a_plan_reads_and_costs(world):
    plan = world.target.plan(OLD, 10)
    assert [change.kind for change in plan.changes] == ["model_package_group", "model", "endpoint_config", "endpoint"]
    assert plan.monthly_usd == 74.46  # one ml.c5.large: 0.102 USD × 730 h
    assert plan.lines()[0] == "aws: 4 changes"
    assert world.plane.log == []
    assert not (world.path / "aws.jsonl").exists()


STEPS = [
    "create model", "create endpoint_config", "update endpoint", "create scaling", "delete endpoint_config",
    "update endpoint (promote)", "delete scaling", "delete model",
]  # fmt: skip


def whole_way(target: BlueprintTarget) -> None:
    rollout.canary(target, NEW, POLICY)
    rollout.shift(target, NEW)
    rollout.promote(target, NEW, POLICY)


def at(step: str, act, times: int | None = None):
    """A hook that acts at this step, so many times; `(promote)` means the time at which the old release goes."""
    left = [times]
    kind = step.removesuffix(" (promote)")
    skipped = [2 if step.endswith("(promote)") else 0]

    def hook(verb: str, key: Key) -> None:
        if f"{verb} {key.kind}" != kind or left[0] == 0:
            return
        if skipped[0]:
            skipped[0] -= 1
            return
        left[0] = None if left[0] is None else left[0] - 1
        act(key)

    return hook


def raises(fault):
    def act(key: Key) -> None:
        raise fault(key.kind, key.name, "of this test")

    return act


def dies(key: Key) -> None:
    raise Killed


def test_the_steps_of_the_matrix_are_those_of_a_rollout(served):
    whole_way(served.target)
    assert {step.removesuffix(" (promote)") for step in STEPS} == set(served.plane.log)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_throttling_and_lost_answers_are_lived_through(served, step, when):
    """429 and 5xx: the call fails twice, without effect or with the effect done and the answer lost."""
    setattr(served.plane, when, at(step, raises(Transient), times=2))
    whole_way(served.target)
    assert served.waits  # a lost answer of a create is found out at the next try: its name is taken
    assert served.plane.serving() == {NEW.name: 100}
    assert not any(OLD.name in key.name for key in served.plane.there)


@pytest.mark.parametrize("fault", [CloudFault, NotReady, Transient])
@pytest.mark.parametrize("step", STEPS)
def test_a_lasting_fault_leaves_a_release_serving_and_nothing_behind(served, step, fault):
    """Quota, expired credentials (CloudFault), a stuck deployment (NotReady), a cloud that is down (Transient)."""
    served.plane.before = at(step, raises(fault))
    with pytest.raises(CloudFault, match="of this test"):
        whole_way(served.target)
    assert sum(served.plane.serving().values()) == 100  # and each model behind it is there
    if fault is Transient:
        assert len(served.waits) >= ATTEMPTS - 1

    served.plane.before = lambda verb, key: None
    rollout.roll_back(served.target, NEW, POLICY)
    (survivor,) = served.plane.serving()
    gone = ({OLD.name, NEW.name} - {survivor}).pop()
    rollout.promote(served.target, OLD if survivor == OLD.name else NEW, POLICY)
    assert not [key for key in served.plane.there if gone in key.name]
    assert len([key for key in served.plane.there if key.kind == "endpoint_config"]) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_killed_process_is_resumed(served, step, when):
    setattr(served.plane, when, at(step, dies, times=1))
    with pytest.raises(Killed):
        whole_way(served.target)
    assert sum(served.plane.serving().values()) == 100
    whole_way(served.restarted())
    assert served.plane.serving() == {NEW.name: 100}
    assert not any(OLD.name in key.name for key in served.plane.there)
    served.target.teardown()
    assert served.plane.there == {}


def test_a_refused_first_deploy_leaves_nothing(world):
    world.plane.before = at("create endpoint", raises(NotReady))
    with pytest.raises(NotReady):
        world.target.deploy(OLD, 10)
    assert world.plane.there == {}


def test_a_fault_on_the_way_back_is_told_too(served):
    def down(verb: str, key: Key) -> None:
        if verb != "create" or key.kind == "endpoint_config":
            raise CloudFault(key.kind, key.name, "of this test")

    served.plane.before = down
    with pytest.raises(CloudFault) as caught:
        served.target.deploy(NEW, 10)
    assert "going back failed too" in caught.value.__notes__[0]


def test_an_empty_answer_is_a_failed_check(served, monkeypatch):
    monkeypatch.setattr(served.plane, "invoke", lambda request: {"items": [], "model_version": "1"})
    with pytest.raises(CheckFailed, match="an empty list"):
        rollout.verify(served.target, OLD, [{}])


def test_another_answer_than_the_local_one_is_a_failed_check(served):
    with pytest.raises(CheckFailed, match="another answer"):
        rollout.verify(served.target, OLD, [{}], [{"items": [], "model_version": "1"}])


def test_a_release_that_never_answers_is_a_failed_check(served, monkeypatch):
    monkeypatch.setattr(served.plane, "invoke", lambda request: {"items": [1], "model_version": "7"})
    with pytest.raises(CheckFailed, match="none of 200 answers"):
        rollout.verify(served.target, OLD, [{}])


def test_the_ledger_knows_what_may_stand(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl")
    model, other = (Change(verb="create", kind="model", name=name) for name in ("a", "b"))
    ledger.write(model, "begun")
    ledger.write(other, "begun")
    ledger.write(Change(verb="delete", kind="model", name="b"), "done")
    with ledger.path.open("a") as file:
        file.write('{"verb": "create", "ki')  # killed while writing
    assert ledger.standing() == [Key("model", "a")]
    ledger.write(other, "begun")
    assert ledger.standing() == [Key("model", "a"), Key("model", "b")]


def test_shares():
    assert shares_with({"a": 67, "b": 33}, "c", 10) == {"a": 61, "b": 29, "c": 10}
    with pytest.raises(CloudFault, match="sum to 100"):
        check_shares({"a": 60}, ["a"])
    with pytest.raises(CloudFault, match="Deploy it first"):
        check_shares({"x": 100}, ["a"])


def test_releases_of_one_version_in_two_images_are_two():
    assert Release(version="1", image="a").name != Release(version="1", image="b").name


NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def test_who_is_asked_stays_and_who_is_not_goes_until_the_next_rollout(served):
    served.target.invoke({})
    assert rollout.rest(served.target, NOW - DAY, NOW)["unchanged"]
    served.plane.calls.clear()
    told = rollout.rest(served.target, NOW - DAY, NOW)
    assert (told["asked"], told["shares"], told["monthly_usd"]) == (0, {}, 0)
    assert {key.kind for key in served.plane.there} == {"model_package_group", "model"}
    assert rollout.rest(served.target, NOW - DAY, NOW)["unchanged"]
    assert rollout.canary(served.target, OLD, POLICY)["shares"] == {OLD.name: 100}


def test_who_is_not_counted_is_not_taken_for_idle(served):
    served.plane.counts = False
    told = rollout.rest(served.target, NOW - DAY, NOW)
    assert (told["asked"], told["unchanged"]) == (None, True)
    assert told["shares"] == {OLD.name: 100}


def test_a_first_deployment_without_traffic_yet_is_not_a_rest_to_finish(world):
    world.plane.create(Key("model", f"recsys-{OLD.name}"), {})
    assert rollout.rest(world.target, NOW - DAY, NOW)["unchanged"]
    assert world.plane.there


def test_a_deployment_ends_an_interrupted_rest(served):
    def die(verb, key):
        raise Killed

    served.plane.after = die
    with pytest.raises(Killed):
        served.target.rest()
    served.plane.after = lambda verb, key: None
    assert served.restarted()._reconciler.ledger.is_open(RESTING)
    rollout.canary(served.target, OLD, POLICY)
    rollout.canary(served.target, NEW, POLICY)
    assert not served.target._reconciler.ledger.is_open(RESTING)
