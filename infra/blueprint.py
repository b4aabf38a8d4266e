"""One `Target` for every cloud: a blueprint says what there should be, a plane makes it so, the reconciler decides how.

A new cloud is a blueprint (pure, tested without its SDK), a plane (the SDK's calls) and its rows in `infra/prices.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from infra.autoscaling import ScalingPolicy
from infra.reconcile import Reconciler
from infra.targets import Change, CloudFault, Key, Plan, Plane, Release, Resource, Shares, check_shares, shares_with
from recsys.settings import HOME


class State(NamedTuple):
    """What a target serves: the releases, in the order in which they came, their shares, and how they scale."""

    releases: tuple[Release, ...]
    shares: Mapping[str, int]
    policy: ScalingPolicy | None


NOTHING = State((), {}, None)
Read = Callable[[Key], dict[str, Any] | None]
"""`Plane.read`: the actual spec of a resource, None when there is none."""


class Blueprint(Protocol):
    """What a cloud needs, without asking it."""

    name: str
    registry: str
    kinds: tuple[str, ...]
    """Of its resources, in the order in which they can be created."""
    free: tuple[str, ...]
    """Kinds that cost nothing by themselves: they, and with them the address, stay while the endpoint rests."""

    def resources(self, state: State) -> list[Resource]:
        """Return everything that this state needs, in the order in which it can be created."""

    def state(self, read: Read) -> State:
        """Return the state that these resources make up: `resources`, backwards. The cloud is all that is asked."""


def state_of(traffic: Mapping[str, Any] | None, release_of: Callable[[str], Release | None]) -> State:
    """Return the state, for a blueprint that keeps `shares` and the scaling policy in one resource.

    Args:
        traffic: that resource: `{"shares": {name: percent}, "policy": told or absent}`.
        release_of: finds a release by its name.

    Raises:
        CloudFault: a release has traffic and is not there.
    """
    if traffic is None or not traffic["shares"]:
        return NOTHING
    found = {name: release_of(name) for name in traffic["shares"]}
    gone = [name for name, release in found.items() if release is None]
    if gone:
        raise CloudFault("release", ", ".join(gone), "It has traffic and is gone; deploy it again")
    policy = traffic.get("policy")
    releases = tuple(release for release in found.values() if release)
    return State(releases, dict(traffic["shares"]), ScalingPolicy.heard(policy) if policy else None)


def traffic_of(state: State, prefix: str) -> Resource:
    """Return the resource `traffic` that keeps shares and policy, for a blueprint of one deployment a release."""
    note = {"policy": state.policy.told()} if state.policy else {}
    shares = {release.name: state.shares[release.name] for release in state.releases}
    return Resource(kind="traffic", name=prefix, spec={"shares": shares, **note})


def state_of_deployments(read: Read, prefix: str) -> State:
    """Return the state, from that resource and the deployments `prefix/<release>`.

    Raises:
        CloudFault: a release has traffic and is not there.
    """

    def release_of(name: str) -> Release | None:
        found = read(Key("deployment", f"{prefix}/{name}"))
        return found and Release(version=found["version"], image=found["image"])

    return state_of(read(Key("traffic", prefix)), release_of)


class ServingPlane(Plane, Protocol):
    """A control plane, and the two doors behind it."""

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the endpoint through the cloud's contract; return the answer without its envelope."""

    def batch(self, release: Release, source: str, destination: str) -> str:
        """Start a batch job and return its name."""

    def requests(self, since: datetime, until: datetime) -> int | None:
        """Return how often the endpoint was asked, by the cloud's own count; None where the cloud does not know."""


RESTING = Change(verb="delete", kind="endpoint's machines", name="idle")
"""In the ledger around a rest, so that one that was interrupted is known: it may have taken the traffic already."""


class BlueprintTarget:
    """A `Target`, from a blueprint and a plane."""

    def __init__(self, blueprint: Blueprint, plane: ServingPlane, reconciler: Reconciler):
        self.name = blueprint.name
        self._blueprint, self._plane, self._reconciler = blueprint, plane, reconciler

    def build(self, release: Release, model: Path) -> list[str]:
        return [str(HOME / "serving" / "image.sh"), "build", release.image, str(model)]

    def push(self, release: Release) -> list[str]:
        return ["buildah", "push", release.image, f"docker://{release.image}"]

    def shares(self) -> dict[str, int]:
        return dict(self._state().shares)

    def plan(self, release: Release, share: int) -> Plan:
        return self._reconciler.plan(self._blueprint.resources(self._with(self._state(), release, share)))

    def deploy(self, release: Release, share: int) -> Plan:
        now = self._state()
        return self._reach(self._with(now, release, share), now)

    def shift_traffic(self, shares: Shares) -> Plan:
        now = self._state()
        check_shares(shares, [release.name for release in now.releases])
        kept = tuple(release for release in now.releases if release.name in shares)
        return self._reach(now._replace(releases=kept, shares=dict(shares)), now)

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return self._reconciler.persist(self._plane.invoke, request)

    def batch(self, release: Release, source: str, destination: str) -> str:
        return self._reconciler.persist(self._plane.batch, release, source, destination)

    def autoscale(self, policy: ScalingPolicy) -> Plan:
        now = self._state()
        return self._reach(now._replace(policy=policy), now)

    def cost(self) -> float:
        return self._monthly(self._blueprint.resources(self._state()))

    def requests(self, since: datetime, until: datetime) -> int | None:
        return self._reconciler.persist(self._plane.requests, since, until)

    def rest(self) -> Plan:
        now, ledger = self._state(), self._reconciler.ledger
        if not now.releases and not ledger.is_open(RESTING):
            return Plan(target=self.name, changes=(), monthly_usd=0.0)
        kept = [each for each in self._blueprint.resources(now) if each.kind in self._blueprint.free]
        ledger.write(RESTING, "begun")
        plan = self._reconciler.apply(self._reconciler.plan(kept))
        ledger.write(RESTING, "done")
        return plan

    def teardown(self) -> Plan:
        return self._reconciler.apply(self._reconciler.plan([]))

    def _state(self) -> State:
        return self._reconciler.persist(self._blueprint.state, self._plane.read)

    def _with(self, state: State, release: Release, share: int) -> State:
        if release.name in state.shares:
            return state
        return state._replace(
            releases=(*state.releases, release), shares=shares_with(state.shares, release.name, share)
        )

    def _reach(self, wanted: State, now: State) -> Plan:
        if self._reconciler.ledger.is_open(RESTING):  # whoever deploys ends the rest
            self._reconciler.ledger.write(RESTING, "done")
        before = self._blueprint.resources(now) if now.releases else []
        return self._reconciler.reach(self._blueprint.resources(wanted), before)

    @staticmethod
    def _monthly(resources: Sequence[Resource]) -> float:
        return round(sum(resource.monthly_usd for resource in resources), 2)
