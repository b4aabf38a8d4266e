"""What every target has to do, whatever stands behind it. A test module calls this with a target of its own."""

from infra import rollout
from infra.autoscaling import ScalingPolicy
from infra.targets import Release, Target

POLICY = ScalingPolicy()
REQUEST = {"user_id": "tiny:1", "k": 5, "items": ["movielens:00", "movielens:02"]}


def check_the_whole_way(
    target: Target, first: Release, second: Release, expected: dict[str, dict] | None = None
) -> None:
    """Two releases go the whole way, and everything is removed.

    Args:
        expected: version → the local answer to REQUEST, where the target's answers are real.
    """

    def wanted(release: Release) -> list[dict] | None:
        return [expected[release.version]] if expected else None

    planned = target.plan(first, rollout.CANARY)
    assert planned.changes
    assert planned.monthly_usd >= 0
    assert target.shares() == {}, "a plan changed something"

    assert target.deploy(first, rollout.CANARY).changes == planned.changes
    assert target.shares() == {first.name: 100}
    assert rollout.canary(target, first, POLICY)["shares"] == {first.name: 100}
    assert rollout.canary(target, first, POLICY)["unchanged"], "a second deploy changed something"
    assert rollout.verify(target, first, [REQUEST], wanted(first))["answered"] == 1

    assert rollout.canary(target, second, POLICY)["shares"] == {first.name: 90, second.name: 10}
    assert rollout.canary(target, second, POLICY)["unchanged"]
    assert rollout.verify(target, second, [REQUEST], wanted(second))["answered"] == 1
    assert rollout.roll_back(target, second, POLICY)["shares"] == {first.name: 100}
    assert rollout.roll_back(target, second, POLICY)["unchanged"]

    rollout.canary(target, second, POLICY)
    assert rollout.shift(target, second)["shares"] == {first.name: 50, second.name: 50}
    assert rollout.shift(target, second)["unchanged"]
    rollout.verify(target, second, [REQUEST], wanted(second))
    done = rollout.promote(target, second, POLICY)
    assert done["shares"] == {second.name: 100}
    assert done["monthly_usd"] == target.cost()
    assert rollout.promote(target, second, POLICY)["unchanged"]
    assert target.invoke(REQUEST)["model_version"] == second.version
    assert rollout.roll_back(target, second, POLICY)["shares"] == {second.name: 100}, "the only one has to stay"

    assert target.teardown().changes
    assert target.shares() == {}
    assert target.teardown().changes == ()
