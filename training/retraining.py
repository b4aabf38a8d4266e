"""When to train anew: pure. The situation in, a decision in words out.

Reasons are a week, a fall of the answers' quality, drift, and enough new data. Against it speak a version that is under
way already, the cool-down, the budget, and an expected gain below the cost.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

SMALLEST_GAIN = 0.01
"""Relative gain in clicks that is expected of newer data where nothing else is known."""


@dataclass(frozen=True)
class Policy:
    """The settings `retraining_*`."""

    days: int = 7
    """After so many days a model is old whatever is seen; the gain is counted for as long."""
    cooldown_hours: float = 24.0
    retry_hours: float = 1.0
    """The cool-down after a retraining that gave no candidate: nothing changed, and newer data may."""
    new_share: float = 0.1
    """New events, of those that the champion learned from, that are worth a training."""
    budget_cpu_hours: float = 20.0
    """In thirty days."""
    cpu_hour_usd: float = 0.05
    click_usd: float = 0.01


@dataclass(frozen=True)
class Situation:
    """What is known now."""

    now: datetime
    champion: str | None
    under_way: str | None = None
    trained_at: datetime | None = None
    """Of the champion's data, or of the last retraining, whichever is later."""
    decided_at: datetime | None = None
    """Last time that a retraining was decided."""
    gave_candidate: bool = True
    """Whether a version has gone on its way to champion since."""
    fall: float | None = None
    """Relative fall of the answers' quality since then; None without an alarm."""
    drifted: tuple[str, ...] = ()
    new_rows: int = 0
    known_rows: int = 0
    spent_cpu_seconds: float = 0.0
    """In the last thirty days."""
    expected_cpu_seconds: float = 0.0
    clicks_a_day: float = 0.0


@dataclass(frozen=True)
class Decision:
    """Whether to train, and why or why not."""

    retrain: bool
    why: str
    reasons: tuple[str, ...] = ()
    gain_usd: float = 0.0
    cost_usd: float = 0.0


def decide(seen: Situation, policy: Policy) -> Decision:
    """Return whether to train anew now; asked again after a yes it says no, for the cool-down has begun."""
    if seen.champion is None:
        return Decision(False, "there is no champion yet: the pipeline makes the first one")
    if seen.under_way is not None:
        return Decision(False, f"version {seen.under_way} is under way: one at a time")
    hours = policy.cooldown_hours if seen.gave_candidate else min(policy.retry_hours, policy.cooldown_hours)
    if seen.decided_at is not None and seen.now - seen.decided_at < timedelta(hours=hours):
        gave = "" if seen.gave_candidate else " and gave no candidate"
        return Decision(
            False,
            f"the last retraining was decided at {seen.decided_at:%Y-%m-%d %H:%M}{gave}: cool-down of {hours:g} h",
        )
    reasons = tuple(_reasons(seen, policy))
    if not reasons:
        return Decision(False, "nothing calls for it")
    told = "; ".join(reasons)
    left = policy.budget_cpu_hours * 3600 - seen.spent_cpu_seconds
    if seen.expected_cpu_seconds > left:
        return Decision(
            False, f"the budget of thirty days has {max(left, 0) / 3600:.1f} CPU hours left, but: {told}", reasons
        )
    gain = max(seen.fall or 0.0, SMALLEST_GAIN) * seen.clicks_a_day * policy.days * policy.click_usd
    cost = seen.expected_cpu_seconds / 3600 * policy.cpu_hour_usd
    if gain < cost:
        return Decision(
            False, f"it would bring {gain:.4f} USD and cost {cost:.4f} USD, but: {told}", reasons, gain, cost
        )
    return Decision(True, f"{told}; it brings {gain:.4f} USD and costs {cost:.4f} USD", reasons, gain, cost)


def _reasons(seen: Situation, policy: Policy):
    if seen.fall is not None:
        yield f"the answers' quality fell by {seen.fall:.0%}"
    if seen.drifted:
        more = f" and {len(seen.drifted) - 3} more" if len(seen.drifted) > 3 else ""
        yield f"drift of {', '.join(seen.drifted[:3])}{more}"
    if seen.known_rows and seen.new_rows >= policy.new_share * seen.known_rows:
        yield f"{seen.new_rows} new events beside {seen.known_rows}"
    if seen.trained_at is not None and seen.now - seen.trained_at >= timedelta(days=policy.days):
        yield f"the model is {(seen.now - seen.trained_at).days} days old"
