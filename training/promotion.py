"""The promotion as a state machine: pure. Where a version is and what was seen of it in, its next stage out.

A stage is left on statistics that hold at every look (experiments/sequential.py), never on raw means:

    shadow          it answered enough copies of real requests, nearly all without a fault
    canary 1 %      enough users saw it, and no harm is shown
    canary 10 %     it is shown to be better (or, with a margin, not worse by more), at α .01: nobody beyond 10 % ever
                    sees a version for which that is not shown; what is not shown by the planned users is rolled back
    25 %, 50 %      enough users saw it there, and no harm is shown

From everywhere it goes back on shown harm, on users who are not dealt as told, when the champion changed under it, and
after too many days.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from recsys.promotion import Candidacy, Evidence, Stage

SAMPLE_RATIO_ALARM = 0.001
MOST_FAILED = 0.01
"""Share of the copies that a version may fail to answer in the shadow."""
GATE = Stage.CANARY_10


@dataclass(frozen=True)
class Rules:
    """What has to be seen; the settings `promotion_*`."""

    planned_users: int
    """At the gate, of both arms together: then it is decided."""
    min_users: int
    """Who saw the candidate at every other stage; copies of requests in the shadow."""
    margin: float = 0.0
    """How much worse than the champion a version may be, relative; 0: it has to be better."""
    days: int = 14
    """Longest stay at one stage."""


@dataclass(frozen=True)
class Move:
    """One step of the way."""

    to: Stage
    why: str


def next_move(
    candidacy: Candidacy, evidence: Evidence | None, champion: str | None, now: datetime, rules: Rules
) -> Move | None:
    """Return the step that is due, or None: nothing is to be done yet, or ever.

    A function of its arguments: asked again before the step is taken it answers the same; asked after it, the old
    evidence is about another stage and moves nothing.

    Args:
        evidence: the latest, whatever it is about; only one about this stage counts.
        champion: version that the alias names now.
    """
    if not candidacy.stage.is_under_way:
        return None
    if champion == candidacy.version:
        return Move(Stage.CHAMPION, "the alias names it already")
    if candidacy.stage is Stage.CANDIDATE:
        return Move(Stage.SHADOW, f"it passed the gate on past data: {candidacy.why}")
    if champion != candidacy.against:
        return _back(f"it was compared with version {candidacy.against}, and champion is {champion or 'none'} now")
    if evidence is not None and evidence.is_about(candidacy):
        decided = _in_the_shadow(evidence, rules) if candidacy.stage is Stage.SHADOW else _canary(evidence, rules)
        if decided is not None:
            return decided
    if now - candidacy.entered_at > timedelta(days=rules.days):
        return _back(f"{rules.days} days at stage {candidacy.stage} decided nothing")
    return None


def _in_the_shadow(evidence: Evidence, rules: Rules) -> Move | None:
    seen = evidence.shadow
    if seen is None or seen.answered + seen.failed < rules.min_users:
        return None
    asked = seen.answered + seen.failed
    told = f"{seen.failed} of {asked} copies of requests failed"
    return _back(told) if seen.failed > MOST_FAILED * asked else Move(evidence.stage.following, told)


def _canary(evidence: Evidence, rules: Rules) -> Move | None:
    users = evidence.candidate_users + evidence.champion_users
    if evidence.sample_ratio_p < SAMPLE_RATIO_ALARM:
        return _back(
            f"the users are not dealt as told: {evidence.candidate_users} of {users} at a share of "
            f"{evidence.stage.share:.0%} (p = {evidence.sample_ratio_p:.2g}); a version that fails to answer looks so"
        )
    if evidence.harm_high is not None and evidence.harm_high < 0:
        return _back(f"it is worse: clicks by impressions {_shown(evidence)}, {users} users")
    if evidence.harmed:
        return _back(f"it harms {', '.join(evidence.harmed)}, {users} users")
    if evidence.stage is GATE:
        return _at_the_gate(evidence, users, rules)
    if evidence.candidate_users < rules.min_users or evidence.difference is None:
        return None
    return Move(evidence.stage.following, f"{evidence.candidate_users} users saw it, no harm: {_shown(evidence)}")


def _at_the_gate(evidence: Evidence, users: int, rules: Rules) -> Move | None:
    if evidence.gain_low is not None and evidence.gain_low > -rules.margin * (evidence.champion_rate or 0.0):
        found = "better" if evidence.gain_low > 0 else f"not worse by {rules.margin:.1%}"
        return Move(evidence.stage.following, f"it is {found}, at every look: {_shown(evidence)}, {users} users")
    if users >= rules.planned_users:
        return _back(f"after the planned {rules.planned_users} users nothing is shown: {_shown(evidence)}")
    return None


def _back(why: str) -> Move:
    return Move(Stage.ROLLED_BACK, why)


def _shown(evidence: Evidence) -> str:
    if evidence.difference is None:
        return "too few users for an interval"
    return (
        f"{evidence.difference:+.4f}, above {evidence.gain_low:+.4f} (α .01), below {evidence.harm_high:+.4f} (α .05)"
    )
