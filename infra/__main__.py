"""A release's way to a target: `python -m infra <step> --target T`; the steps stand in `STEPS`.

For a cloud this runs in the environment `cloud`. The platform's own process on this machine has no shares: there
`canary` deploys the champion, `verify` asks the live API, and the rest has nothing to do; a part `local` in
RECSYS_CLOUDS makes this machine a target like the others.
"""

import fcntl
import json
import sys
import urllib.request
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from infra import configuration, image, rollout
from infra.deployments import log_deployment
from infra.registry import champion
from infra.targets import CloudFault
from recsys import interval, station
from recsys.errors import CheckFailed, ServiceUnavailable
from recsys.settings import Settings, load_settings

STEPS = ("build", "push", "plan", "canary", "shift", "verify", "promote", "roll-back", "rest", "cost", "teardown")
BACK = "roll-back"
LOGGED = ("canary", "shift", "promote", BACK)
EVERY = "every"
"""Instead of a target, for `rest`: all that RECSYS_CLOUDS names."""
REQUESTS = [{"user_id": "smoke:1", "k": 10}, {"user_id": "smoke:2", "k": 3, "domain": "movies"}]


def main() -> Mapping[str, Any]:
    given = _parse()
    settings = load_settings()
    if given.step == "rest":
        return _rest(settings, given)
    if given.target == "local" and (not settings.clouds or "local" not in configuration.read(settings).targets):
        return _local(settings, given)
    with one_at_a_time(settings, given.target):
        return released(settings, given)


def released(settings: Settings, given: Namespace) -> Mapping[str, Any]:
    """Take a step on a cloud, and log it as a run where it changed what serves.

    Raises:
        CheckFailed: the way back was taken; whoever asked for it shall see that something was wrong.
        ServiceUnavailable: the registry does not answer; the step is taken all the same.
    """
    began, said = datetime.now(UTC), _cloud(settings, given)
    went_back = None
    if given.step == BACK and not given.dry_run:
        serving = f"rolled back; {said['shares']} serve"
        went_back = CheckFailed(given.target, serving, "See which step was red, and why")
    if given.step in LOGGED and not given.dry_run and not said["unchanged"]:
        try:
            log_deployment(settings, said["version"], given.step, (began, datetime.now(UTC)), said, given.target)
        except ServiceUnavailable as unlogged:
            raise went_back or unlogged from unlogged
    if went_back:
        raise went_back
    return said


def _rest(settings: Settings, given: Namespace) -> Mapping[str, Any]:
    """Let idle endpoints rest. One target's fault does not keep the others awake."""
    clouds, now = configuration.read(settings), datetime.now(UTC)
    since, rested, faults = now - timedelta(hours=clouds.idle_hours), [], []
    for name in clouds.targets if given.target == EVERY else [given.target]:
        try:
            target = configuration.target(name, settings, clouds)
            if given.dry_run:
                rested.append({"target": name, "asked": target.requests(since, now) if target.shares() else 0})
            else:
                with one_at_a_time(settings, name):
                    rested.append(rollout.rest(target, since, now))
        except CloudFault as fault:
            faults.append(f"{name}: {fault}")
    if faults:
        raise CheckFailed("rest", "; ".join(faults), "It goes on at the next run")
    return {"rested": rested}


@contextmanager
def one_at_a_time(settings: Settings, target: str) -> Iterator[None]:
    """Wait until no other step of this target runs on this machine."""
    path = settings.var_dir / "clouds" / f"{target}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _local(settings: Settings, given: Namespace) -> Mapping[str, Any]:
    if given.dry_run or given.step not in ("canary", "verify", BACK):
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
    release = configuration.release(given.target, clouds, version)
    if given.step in ("build", "push"):
        bundles = settings.var_dir.resolve() / "serving" / "bundles"
        return image.make(given.step, target, release, bundles, given.dry_run)
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
    return rollout.roll_back(target, release, clouds.scaling)


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
    parser.add_argument("--target", choices=[*configuration.names(), EVERY], required=True)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and what it costs; do nothing")
    parser.add_argument("--as-of", default=datetime.now(UTC).date().isoformat(), help="day of the data; default today")
    parser.add_argument("--domains", default="movies", help="comma-separated")
    parser.set_defaults(since=None)
    given = parser.parse_args()
    if given.target == EVERY and given.step != "rest":
        parser.error(f"--target {EVERY} is for `rest` only")
    return given


if __name__ == "__main__":
    station.run(main)
