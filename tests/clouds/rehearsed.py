"""What every cloud's rehearsal runs: the conformance suite, real answers, and the matrix of faults.

A module `rehearse_<cloud>.py` defines the fixture `cloud` (a `Rehearsal`), subclasses `Rehearsed` and adds what is only
that cloud's. One process a cloud: the SDKs are slow to import.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra import rollout
from infra.autoscaling import ScalingPolicy
from infra.blueprint import Blueprint, BlueprintTarget, ServingPlane
from infra.reconcile import Ledger, Reconciler
from infra.targets import CloudFault, Key, NotReady, Release, Transient
from tests.clouds.conformance import POLICY, REQUEST, check_the_whole_way
from tests.clouds.emulation import CHANGES, Emulator, Fault
from tests.clouds.memory_plane import Killed

OLD, NEW = (Release(version=each, image=f"registry.example/recsys:{each}") for each in ("1", "2"))


class KilledPlane:
    """A plane whose process dies at the n-th change, before it or after its effect; nothing is written down then."""

    def __init__(self, plane: ServingPlane):
        self.plane, self.left, self.after = plane, -1, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plane, name)

    def _change(self, change: Callable, *arguments: Any) -> None:
        dies, self.left = self.left == 0, self.left - 1
        if dies and not self.after:
            raise Killed
        change(*arguments)
        if dies:
            raise Killed

    def create(self, key: Key, spec: dict) -> None:
        self._change(self.plane.create, key, spec)

    def update(self, key: Key, spec: dict) -> None:
        self._change(self.plane.update, key, spec)

    def delete(self, key: Key) -> None:
        self._change(self.plane.delete, key)


class Rehearsal:
    """A target over an emulator; `restarted` is the next process: same cloud, same ledger."""

    def __init__(self, blueprint: Blueprint, plane: ServingPlane, emulator: Emulator, ledger: Any, waits: list[float]):
        self.blueprint, self.plane, self.emulator, self.waits = blueprint, KilledPlane(plane), emulator, waits
        self._ledger = ledger
        self.restarted()

    def restarted(self) -> BlueprintTarget:
        self.plane.left = -1
        reconciler = Reconciler(self.blueprint.name, self.plane, Ledger(self._ledger), self.waits.append)
        self.target = BlueprintTarget(self.blueprint, self.plane, reconciler)
        return self.target

    def elsewhere(self, blueprint: Blueprint, plane: ServingPlane) -> BlueprintTarget:
        """Return the target of the same ledger under another configuration."""
        reconciler = Reconciler(blueprint.name, plane, Ledger(self._ledger), self.waits.append)
        return BlueprintTarget(blueprint, plane, reconciler)

    def clean(self) -> None:
        """Remove everything, and prove that nothing is left."""
        self.emulator.faults.clear()
        self.emulator.outcome = "ready"
        self.restarted().teardown()
        assert self.plane.owned() == []
        assert self.emulator.billable() == {}


def canary(target: BlueprintTarget) -> None:
    rollout.canary(target, NEW, POLICY)


def shift(target: BlueprintTarget) -> None:
    rollout.shift(target, NEW)


def promote(target: BlueprintTarget) -> None:
    rollout.promote(target, NEW, POLICY)


def roll_back(target: BlueprintTarget) -> None:
    rollout.roll_back(target, NEW, POLICY)


def teardown(target: BlueprintTarget) -> None:
    target.teardown()


STEPS = {"canary": (canary,), "shift": (canary, shift), "promote": (canary, shift, promote),
         "roll back": (canary, shift, roll_back), "teardown": (canary, teardown)}  # fmt: skip
DAY = timedelta(days=1)
PASSING = ("throttled", "broken", "unavailable")
LASTING = ("expired", "forbidden", "quota")


class Conforms:
    """What each of the five targets passes; `cloud` is the module's."""

    def test_the_whole_way_with_real_answers(self, cloud, local):
        check_the_whole_way(cloud.target, OLD, NEW, local)
        assert cloud.plane.owned() == []
        assert cloud.emulator.billable() == {}

    def test_the_answer_is_the_local_one_to_the_byte(self, cloud, local):
        rollout.canary(cloud.target, OLD, POLICY)
        assert rollout.normal(cloud.target.invoke(REQUEST)) == rollout.normal(local["1"])

    def test_the_traffic_is_split_by_weight(self, cloud):
        rollout.canary(cloud.target, OLD, POLICY)
        rollout.canary(cloud.target, NEW, POLICY)
        versions = [cloud.target.invoke(REQUEST)["model_version"] for _ in range(100)]
        assert (versions.count("1"), versions.count("2")) == (90, 10)

    def test_the_scaling_policy_comes_back(self, cloud):
        policy = ScalingPolicy(max_replicas=7, capacity=150.0)
        rollout.canary(cloud.target, OLD, policy)
        assert cloud.blueprint.state(cloud.plane.read).policy == policy
        rollout.canary(cloud.target, OLD, POLICY)
        assert cloud.blueprint.state(cloud.plane.read).policy == POLICY

    def test_a_dry_run_changes_nothing_and_says_what_it_costs(self, cloud):
        plan = cloud.target.plan(OLD, rollout.CANARY)
        assert plan.changes
        assert "USD a month" in plan.lines()[-1]
        assert cloud.plane.owned() == []

    def test_the_same_batch_is_started_once(self, cloud, requests_uri, answers_uri):
        rollout.canary(cloud.target, OLD, POLICY)
        name = cloud.target.batch(OLD, requests_uri, answers_uri)
        assert cloud.target.batch(OLD, requests_uri, answers_uri) == name

    def test_a_body_of_one_and_a_half_megabytes_is_answered_or_refused_in_words(self, cloud):
        rollout.canary(cloud.target, OLD, POLICY)
        with pytest.raises(CloudFault) as caught:
            cloud.target.invoke({**REQUEST, "items": ["x" * 1000] * 1600})
        assert not isinstance(caught.value, Transient)
        assert cloud.target.invoke(REQUEST)["items"]

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("nth", [0, 1, 2])
    @pytest.mark.parametrize("step", STEPS)
    def test_a_killed_process_is_resumed(self, cloud, local, step, nth, when):
        *before, last = reached(cloud, step)
        for each in before:
            each(cloud.target)
        cloud.plane.left, cloud.plane.after = nth, when == "after"
        try:
            last(cloud.target)
        except Killed:
            if last is not teardown:
                check_still_served(cloud, local)
        last(cloud.restarted())
        check_settled(cloud, step)


class Rehearsed(Conforms):
    """And what a cloud's API can do to it."""

    @pytest.mark.parametrize("kind", PASSING)
    @pytest.mark.parametrize("step", STEPS)
    @pytest.mark.parametrize("lost", [False, True], ids=["refused", "done but the answer lost"])
    def test_what_passes_is_lived_through(self, cloud, step, kind, lost):
        """429 and 5xx, twice, at the first change of the step."""
        *before, last = reached(cloud, step)
        for each in before:
            each(cloud.target)
        cloud.emulator.faults.append(Fault(CHANGES, cloud.emulator.refusal(kind), times=2, lost=lost))
        last(cloud.target)
        assert cloud.emulator.faults == []
        assert len(cloud.waits) >= (1 if lost else 2)  # the second try of a create whose answer was lost finds it there
        check_settled(cloud, step)

    @pytest.mark.parametrize("kind", LASTING)
    @pytest.mark.parametrize("after", [0, 1, 2])
    @pytest.mark.parametrize("step", STEPS)
    def test_what_lasts_leaves_somebody_serving(self, cloud, local, step, kind, after):
        """Quota, expired or missing rights from the n-th change of a step on; then the same step again."""
        *before, last = reached(cloud, step)
        for each in before:
            each(cloud.target)
        cloud.emulator.faults.append(Fault(CHANGES, cloud.emulator.refusal(kind), times=10**9, after=after))
        fault = None
        try:
            last(cloud.target)
        except CloudFault as error:
            fault = error
        assert not isinstance(fault, Transient)
        assert fault or cloud.emulator.faults[0].after >= 0, "the step has fewer changes and went through"
        if last is not teardown:
            check_still_served(cloud, local)
        cloud.emulator.faults.clear()
        last(cloud.restarted())
        check_settled(cloud, step)

    @pytest.mark.parametrize("outcome", ["unhealthy", "no image", "no quota", "stuck"])
    def test_a_deployment_that_fails_is_taken_back(self, cloud, local, outcome):
        rollout.canary(cloud.target, OLD, POLICY)
        billed = cloud.emulator.billable()
        cloud.emulator.outcome = outcome
        with pytest.raises(CloudFault) as caught:
            rollout.canary(cloud.target, NEW, POLICY)
        assert isinstance(caught.value, NotReady) or outcome == "no quota"
        assert cloud.target.shares() == {OLD.name: 100}
        assert not [key for key in cloud.plane.owned() if NEW.name in key.name]
        assert cloud.emulator.billable() == billed
        assert rollout.normal(cloud.target.invoke(REQUEST)) == rollout.normal(local["1"])
        cloud.emulator.outcome = "ready"
        rollout.canary(cloud.target, NEW, POLICY)
        assert cloud.target.shares() == {OLD.name: 90, NEW.name: 10}

    def test_an_idle_endpoint_goes_and_comes_back(self, cloud, local):
        """Asked within a day it stays; else nothing is paid for, until the next rollout brings it back."""
        rollout.canary(cloud.target, OLD, POLICY)
        cloud.target.invoke(REQUEST)
        now = datetime.now(UTC) + timedelta(minutes=1)
        told = rollout.rest(cloud.target, now - DAY, now)
        assert told["asked"] >= 1
        assert told["unchanged"]
        cloud.emulator.let_pass(3 * DAY.total_seconds())
        told = rollout.rest(cloud.target, now - DAY, now)
        assert (told["asked"], told["shares"], told["monthly_usd"]) == (0, {}, 0)
        assert cloud.emulator.billable() == {}
        assert rollout.rest(cloud.target, now - DAY, now)["unchanged"]
        rollout.canary(cloud.target, OLD, POLICY)
        assert rollout.normal(cloud.target.invoke(REQUEST)) == rollout.normal(local["1"])

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("nth", [0, 1, 2])
    def test_a_rest_that_was_killed_goes_on(self, cloud, nth, when):
        rollout.canary(cloud.target, OLD, POLICY)
        cloud.plane.left, cloud.plane.after = nth, when == "after"
        with suppress(Killed):
            cloud.target.rest()
        cloud.restarted().rest()
        assert cloud.target.shares() == {}
        assert cloud.emulator.billable() == {}

    def test_a_first_deployment_that_fails_leaves_nothing(self, cloud):
        cloud.emulator.outcome = "unhealthy"
        with pytest.raises(NotReady):
            rollout.canary(cloud.target, OLD, POLICY)
        assert cloud.emulator.billable() == {}
        assert cloud.plane.owned() == []


def reached(cloud: Rehearsal, step: str) -> tuple[Callable, ...]:
    """Let the old release serve, and return the steps up to this one."""
    rollout.canary(cloud.target, OLD, POLICY)
    cloud.waits.clear()
    return STEPS[step]


def check_still_served(cloud: Rehearsal, local: dict[str, dict]) -> None:
    """A release of ours serves, and its answer is the real one."""
    kept, cloud.emulator.faults = cloud.emulator.faults, []
    answered = cloud.target.invoke(REQUEST)
    assert rollout.normal(answered) == rollout.normal(local[answered["model_version"]])
    cloud.emulator.faults = kept


def check_settled(cloud: Rehearsal, step: str) -> None:
    """What stands is what the step says, and nothing else is paid for."""
    wanted = {
        "canary": {OLD.name: 90, NEW.name: 10}, "shift": {OLD.name: 50, NEW.name: 50}, "promote": {NEW.name: 100},
        "roll back": {OLD.name: 100}, "teardown": {},
    }[step]  # fmt: skip
    assert cloud.target.shares() == wanted, cloud.target.shares()
    gone = {OLD.name, NEW.name} - set(wanted)
    assert not [key for key in cloud.plane.owned() if any(name in key.name for name in gone)]
    billed = cloud.emulator.billable()
    assert len(billed) == len(wanted), billed
    assert all(any(name in machine for machine in billed) for name in wanted), billed


def lines(requests: list[dict]) -> str:
    return "".join(json.dumps(request) + "\n" for request in requests)
