"""A release's way to all users: canary → shift → verify → promote, or back. One function a step, for any target.

Each step is a function of what the target says, so each may run twice and from anywhere: a step whose state is reached
changes nothing. Until `promote` the former release stands beside the new one, and going back is a shift of weights.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from infra.autoscaling import ScalingPolicy
from infra.targets import CloudFault, Plan, Release, Target
from recsys.errors import CheckFailed

CANARY, HALF, ALL = 10, 50, 100
ENVELOPE = ("request_id",)
"""Drawn anew for each answer; everything else of two answers has to agree."""


def canary(target: Target, release: Release, policy: ScalingPolicy) -> dict[str, Any]:
    """Bring the release beside what serves, with a tenth of the traffic; all of it, where nothing serves yet.

    A release that is there keeps its share.
    """
    former = target.shares()
    plan = target.deploy(release, CANARY) if release.name not in former else None
    scaled = target.autoscale(policy)
    return _said(target, release, plan, scaled)


def shift(target: Target, release: Release) -> dict[str, Any]:
    """Give the release half of the traffic; one that has more keeps it."""
    now = target.shares()
    if now.get(release.name, 0) >= HALF:
        return _said(target, release)
    others = [name for name in now if name != release.name]
    shares = {release.name: HALF, **dict.fromkeys(others, 0), others[0]: ALL - HALF}
    return _said(target, release, target.shift_traffic(shares))


def verify(
    target: Target, release: Release, requests: list[Mapping[str, Any]], expected: list[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Ask the endpoint until the release has answered each request; every answer has to be one.

    Args:
        expected: what the same release answers elsewhere, e.g. on this machine; compared without the envelope.

    Raises:
        CheckFailed: an answer is empty or another one, or the release does not answer at all.
    """
    compared = 0
    for number, request in enumerate(requests):
        answer = _answer_of(target, release, request)
        if not answer.get("items"):
            raise CheckFailed(f"{target.name} {release.name}", f"an empty list for {json.dumps(request)}", "Roll back")
        if expected is not None:
            if normal(answer) != normal(expected[number]):
                raise CheckFailed(
                    f"{target.name} {release.name}", f"another answer for {json.dumps(request)}", "Roll back"
                )
            compared += 1
    return {**_said(target, release), "answered": len(requests), "compared": compared}


def promote(target: Target, release: Release, policy: ScalingPolicy) -> dict[str, Any]:
    """Give the release everything, and remove the others."""
    plan = target.shift_traffic({release.name: ALL})
    return _said(target, release, plan, target.autoscale(policy))


def roll_back(target: Target, release: Release, policy: ScalingPolicy) -> dict[str, Any]:
    """Take the release away and give its traffic back. The only one there stays: an old answer is better than none.

    Without traffic it may still stand there, where a way back was interrupted: what is left over goes then.
    """
    now = target.shares()
    others = {name: share for name, share in now.items() if name != release.name}
    if release.name not in now or not others:
        return _said(target, release, target.autoscale(policy))
    best = max(others, key=lambda name: others[name])
    plan = target.shift_traffic({best: ALL})
    return _said(target, release, plan, target.autoscale(policy))


def rest(target: Target, since: datetime, until: datetime) -> dict[str, Any]:
    """Take an endpoint's machines away if nobody asked it in this time; `canary` brings the champion back.

    Where the cloud does not know how often it was asked, nothing is done. A rollout's own questions (`verify`) count,
    so a release that has just come is not idle.
    """
    asked = target.requests(since, until) if target.shares() else 0
    plan = target.rest() if asked == 0 else None
    changes = plan.changes if plan else ()
    return {
        "target": target.name,
        "asked": asked,
        "shares": target.shares(),
        "changes": [f"{change.verb} {change.kind} {change.name}" for change in changes],
        "unchanged": not changes,
        "monthly_usd": target.cost(),
    }


def normal(answer: Mapping[str, Any]) -> bytes:
    """Return an answer without its envelope, as bytes that compare."""
    kept = {name: value for name, value in answer.items() if name not in ENVELOPE}
    return json.dumps(kept, sort_keys=True, ensure_ascii=False).encode()


TRIES_A_REQUEST = 200
"""A release with a tenth of the traffic is missed by all of them less than once in a thousand million times."""


def _answer_of(target: Target, release: Release, request: Mapping[str, Any]) -> dict[str, Any]:
    if release.name not in target.shares():
        raise CloudFault(target.name, release.name, "It is not deployed there; run the step `canary` first")
    for _ in range(TRIES_A_REQUEST):
        answer = target.invoke(request)
        if answer.get("model_version") == release.version:
            return answer
    raise CheckFailed(f"{target.name} {release.name}", f"none of {TRIES_A_REQUEST} answers is its own", "Roll back")


def _said(target: Target, release: Release, *plans: Plan | None) -> dict[str, Any]:
    changes = [change for plan in plans if plan for change in plan.changes]
    return {
        "target": target.name,
        "release": release.name,
        "version": release.version,
        "shares": target.shares(),
        "changes": [f"{change.verb} {change.kind} {change.name}" for change in changes],
        "unchanged": not changes,
        "monthly_usd": target.cost(),
    }
