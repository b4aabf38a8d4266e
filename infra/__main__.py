"""A release's way to a target: `python -m infra plan|canary|shift|verify|promote|roll-back|cost|teardown --target T`.

For a cloud this runs in the environment `cloud`. The platform's own process on this machine has no shares: there
`canary` deploys the champion, `verify` asks the live API, and the rest has nothing to do; a part `local` in
RECSYS_CLOUDS makes this machine a target like the others.
"""

import json
import sys
import urllib.request
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from infra import configuration, rollout
from infra.registry import champion
from infra.targets import Release
from recsys import interval, station
from recsys.errors import CheckFailed
from recsys.settings import Settings, load_settings

STEPS = ("plan", "canary", "shift", "verify", "promote", "roll-back", "cost", "teardown")
REQUESTS = [{"user_id": "smoke:1", "k": 10}, {"user_id": "smoke:2", "k": 3, "domain": "movies"}]


def main() -> Mapping[str, Any]:
    given = _parse()
    settings = load_settings()
    if given.target == "local" and (not settings.clouds or "local" not in configuration.read(settings).targets):
        return _local(settings, given)
    return _cloud(settings, given)


def _local(settings: Settings, given: Namespace) -> Mapping[str, Any]:
    if given.dry_run or given.step not in ("canary", "verify", "roll-back"):
        return {"target": "local", "step": given.step, "unchanged": True, "monthly_usd": 0.0}
    if given.step == "canary":
        from infra.local.deploy import deploy

        return deploy(settings, interval.from_arguments(given))
    if given.step == "verify":
        from infra.local.smoke import smoke

        return smoke(settings)
    raise CheckFailed("local", "the rollout failed", "A version that serving refused was taken back by the deploy")


def _cloud(settings: Settings, given: Namespace) -> Mapping[str, Any]:
    clouds = configuration.read(settings)
    target = configuration.target(given.target, settings, clouds)
    if given.step == "cost":
        return {"target": given.target, "monthly_usd": target.cost(), "shares": target.shares()}
    if given.step == "teardown":
        return {"target": given.target, "changes": [f"- {c.kind} {c.name}" for c in target.teardown().changes]}
    version = champion(settings.mlflow_url).number
    release = Release(version=version, image=clouds.image.format(version=version))
    if given.step == "plan" or given.dry_run:
        plan = target.plan(release, rollout.CANARY)
        print("\n".join(plan.lines()), file=sys.stderr)
        return {"target": given.target, "changes": len(plan.changes), "monthly_usd": plan.monthly_usd}
    if given.step == "canary":
        return rollout.canary(target, release, clouds.scaling)
    if given.step == "shift":
        return rollout.shift(target, release)
    if given.step == "verify":
        return rollout.verify(target, release, REQUESTS, _local_answers(settings, version))
    if given.step == "promote":
        return rollout.promote(target, release, clouds.scaling)
    said = rollout.roll_back(target, release, clouds.scaling)
    raise CheckFailed(given.target, f"rolled back; {said['shares']} serve", "See which step was red, and why")


def _local_answers(settings: Settings, version: str) -> list[Mapping[str, Any]] | None:
    """Return this machine's answers, None where it serves another version or nothing: then only emptiness is judged."""
    answers = []
    for request in REQUESTS:
        asked = urllib.request.Request(
            f"{settings.serving_url}/invocations", json.dumps(request).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=5) as answered:
                answers.append(json.load(answered))
        except OSError:
            return None
    return answers if all(answer["model_version"] == version for answer in answers) else None


def _parse() -> Namespace:
    parser = ArgumentParser(prog="python -m infra", description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--target", choices=configuration.names(), required=True)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and what it costs; do nothing")
    parser.add_argument("--as-of", default=datetime.now(UTC).date().isoformat(), help="day of the data; default today")
    parser.add_argument("--domains", default="movies", help="comma-separated")
    parser.set_defaults(since=None)
    return parser.parse_args()


if __name__ == "__main__":
    station.run(main)
