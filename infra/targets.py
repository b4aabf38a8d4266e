"""Where the serving container can run, behind one protocol (docs/clouds.md says which are there).

A target's desired state is a list of `Resource`s, computed from releases and their shares of the traffic without asking
anybody. Its `Plane` reads and changes the actual state. `infra.reconcile` turns the difference into a plan and carries
it out; nothing else changes a cloud. So a second deploy plans nothing, and a plan can be shown before it is paid for.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from infra.autoscaling import ScalingPolicy
from recsys.errors import RecsysError

Shares = Mapping[str, int]
"""Release name → percent of the traffic; sums to 100. A release that is left out is retired."""


class CloudFault(RecsysError):
    """A cloud said no, and asking again would not help: quota, credentials, a name taken by somebody else."""


class Transient(CloudFault):
    """A cloud said not now: throttling (429) or a fault of its own (5xx). Asking again may help."""


class NotReady(CloudFault):
    """A deployment did not become healthy in its time; the one before it keeps serving."""


class Frozen(BaseModel):
    """Typed configuration: frozen, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Release(Frozen):
    """One registered model in one image; what every target deploys."""

    version: str = Field(pattern=r"^[0-9a-z][0-9a-z.-]{0,19}$", description="version in the registry")
    image: str = Field(min_length=1, description="the serving image with the model baked in, by digest where pushed")

    @property
    def name(self) -> str:
        """A name that every cloud takes (a-z, 0-9, -), that another image of the same version does not share."""
        digest = hashlib.sha256(f"{self.version}\0{self.image}".encode()).hexdigest()[:8]
        return f"v{self.version.replace('.', '-')}-{digest}"


class Key(NamedTuple):
    """What names a resource in a target."""

    kind: str
    name: str


class Resource(Frozen):
    """One thing that a target should have."""

    kind: str
    name: str
    spec: dict[str, Any] = Field(description="in the plane's normal form: equal to what `Plane.read` returns")
    monthly_usd: float = Field(
        0.0, ge=0, description="what it costs standing there for 730 hours; 0: nothing by itself"
    )
    priced_by: str | None = Field(None, description="row of infra/prices.py behind monthly_usd")

    @property
    def key(self) -> Key:
        return Key(self.kind, self.name)


Verb = Literal["create", "update", "delete"]


class Change(Frozen):
    """One step from the actual to the desired state."""

    verb: Verb
    kind: str
    name: str
    spec: dict[str, Any] | None = None

    @property
    def key(self) -> Key:
        return Key(self.kind, self.name)


class Plan(Frozen):
    """What would be done, in order, and what the target costs a month when it is done."""

    target: str
    changes: tuple[Change, ...]
    monthly_usd: float

    def lines(self) -> list[str]:
        """Return the plan as a person reads it."""
        marks = {"create": "+", "update": "~", "delete": "-"}
        told = [f"  {marks[change.verb]} {change.kind} {change.name}" for change in self.changes]
        return [
            f"{self.target}: {len(self.changes)} changes" if told else f"{self.target}: nothing to change",
            *told,
            f"  = {self.monthly_usd:.2f} USD a month (list price, see infra/prices.py)",
        ]


class Plane(Protocol):
    """A target's control plane, in terms of `Resource`. Faults arrive as `Transient`, `NotReady` or `CloudFault`."""

    def read(self, key: Key) -> dict[str, Any] | None:
        """Return the actual spec, None when there is none."""

    def owned(self) -> list[Key]:
        """Return everything there that is ours, in the order in which it can be created."""

    def create(self, key: Key, spec: dict[str, Any]) -> None:
        """Create it and return when it is usable.

        Raises:
            FileExistsError: there is one of that name already.
        """

    def update(self, key: Key, spec: dict[str, Any]) -> None:
        """Make it so and return when it is so; until then the former state serves."""

    def delete(self, key: Key) -> None:
        """Remove it; nothing happens when it is gone already."""


class Target(Protocol):
    """One place that serves recommendations. `tests/clouds/conformance.py` is what an implementation has to pass."""

    name: str

    def build(self, release: Release, model: Path) -> list[str]:
        """Return the command that makes the release's image from a bundle's folder."""

    def push(self, release: Release) -> list[str]:
        """Return the command that brings the image to the target's registry."""

    def shares(self) -> dict[str, int]:
        """Return who serves now: release name → percent; empty when nothing is deployed."""

    def plan(self, release: Release, share: int) -> Plan:
        """Return what `deploy` would do. Changes nothing."""

    def deploy(self, release: Release, share: int) -> Plan:
        """Bring a release beside what serves and give it this percent of the traffic; the first one gets all.

        Returns what was done; nothing when all is so already. A fault leaves what served before serving all.
        """

    def shift_traffic(self, shares: Shares) -> Plan:
        """Give the deployed releases these shares; one that is left out is retired and removed."""

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the endpoint through the cloud's own contract and return the answer without the cloud's envelope."""

    def batch(self, release: Release, source: str, destination: str) -> str:
        """Start a batch over the requests in `source` (one JSON a line); return the job's name."""

    def autoscale(self, policy: ScalingPolicy) -> Plan:
        """Let the deployed releases scale by this policy."""

    def cost(self) -> float:
        """Return what stands there costs a month in USD, by list price."""

    def requests(self, since: datetime, until: datetime) -> int | None:
        """Return how often the endpoint was asked, by the cloud's own count; None where the cloud does not know."""

    def rest(self) -> Plan:
        """Remove all that is paid for by the hour, and keep what costs nothing; the next `deploy` ends the rest."""

    def teardown(self) -> Plan:
        """Remove everything that is ours."""


def digest_of(spec: Any) -> str:
    """Return eight characters that name this content."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:8]


def check_shares(shares: Shares, known: Sequence[str]) -> None:
    """Return if the shares are whole percents of deployed releases and sum to 100.

    Raises:
        CloudFault: they are not.
    """
    unknown = sorted(set(shares) - set(known))
    if unknown:
        raise CloudFault("release", ", ".join(unknown), f"Deploy it first; there are {', '.join(known) or 'none'}")
    if sum(shares.values()) != 100 or any(share < 0 for share in shares.values()):
        raise CloudFault("shares", dict(shares), "Give percents that sum to 100")


def shares_with(shares: Shares, newcomer: str, share: int) -> dict[str, int]:
    """Return the shares when a newcomer gets `share` percent and the others divide the rest as before.

    >>> shares_with({"v1": 100}, "v2", 10)
    {'v1': 90, 'v2': 10}
    >>> shares_with({}, "v1", 10)
    {'v1': 100}
    """
    others = {name: held for name, held in shares.items() if name != newcomer}
    total = sum(others.values())
    if not total:
        return {newcomer: 100}
    rest = 100 - share
    given = {name: held * rest // total for name, held in others.items()}
    first = next(iter(given))
    given[first] += rest - sum(given.values())
    return {**given, newcomer: share}
