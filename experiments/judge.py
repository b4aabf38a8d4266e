"""What is seen of the version on its way to champion, as evidence that holds at every look: an outcome row.

The evidence decides nothing; `training` moves the version by it (training/promotion.py).
"""

from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg

from recsys.artifacts import ALIAS_CHAMPION
from recsys.experiments import HOLDOUT, INTERLEAVED, POPULAR, SHUFFLE
from recsys.promotion import CHECK_EVIDENCE, CHECK_SHADOW, Candidacy, Evidence, ShadowCount, Stage, as_detail
from recsys.registry import candidacies, under_way
from recsys.settings import Settings
from recsys.split import live_split
from recsys.warehouse import Outcome, connect, write_outcomes

STATION = "experiments"
ALPHA_HARM, ALPHA_GAIN = 0.05, 0.01
GUARDRAILS = ("conversion", "revenue_per_user")
IN_NO_COMPARISON = (HOLDOUT, POPULAR, SHUFFLE, INTERLEAVED, "none")


def judge(settings: Settings, now: datetime) -> dict[str, Any]:
    """Write what was seen until now of the version under way; nothing where there is none, or serving has not
    confirmed its stage yet.

    Raises:
        ServiceUnavailable: the registry or the warehouse does not answer.
        UnusableInput: the version's tags, or the declared experiments, cannot be used.
    """
    candidacy = under_way(candidacies(settings.mlflow_url))
    if candidacy is None or candidacy.live_at is None:
        return {"candidate": candidacy and candidacy.version, "judged": False, "unchanged": True}
    split = live_split(settings)
    others = {variant for variant in split.variants(now.date()) if split.policy_of(variant) != ALIAS_CHAMPION}
    with connect(settings) as connection:
        if candidacy.stage is Stage.SHADOW:
            evidence = Evidence(**_about(candidacy), shadow=_shadow_count(connection, candidacy))
        else:
            excluded = tuple(sorted(others.union(IN_NO_COMPARISON)))
            evidence = _of_canary(connection, candidacy, excluded, now, settings.promotion_planned_users)
        write_outcomes(connection, [_outcome(evidence, now)])
    return {"candidate": candidacy.version, "judged": True, **as_detail(evidence), "unchanged": False}


def _about(candidacy: Candidacy) -> dict[str, Any]:
    return candidacy.model_dump(include={"version", "against", "stage", "live_at"})


def _shadow_count(connection: psycopg.Connection, candidacy: Candidacy) -> ShadowCount | None:
    row = connection.execute(
        "select detail from monitoring.outcomes where check_name = %s and subject = %s"
        " order by outcome_date desc limit 1",
        (CHECK_SHADOW, candidacy.version),
    ).fetchone()
    return ShadowCount.model_validate(row[0]) if row else None


def _of_canary(
    connection: psycopg.Connection, candidacy: Candidacy, excluded: tuple[str, ...], now: datetime, planned_users: int
) -> Evidence:
    import numpy as np

    from experiments.candidate import read_seen
    from experiments.heavy_tails import tame
    from experiments.sample_ratio import sample_ratio
    from experiments.sequential import Sequence

    everybody = read_seen(connection, candidacy, excluded, now)
    seen = everybody.counted()
    dealt = Counter(candidate=int(seen.is_candidate.sum()), champion=int((~seen.is_candidate).sum()))
    share = candidacy.stage.share
    ratio = sample_ratio(dealt, {"candidate": share, "champion": 1 - share})
    rate = _difference(seen.clicks, seen.impressions, seen.is_candidate)
    harm, gain = (Sequence.tuned_for(planned_users, alpha) for alpha in (ALPHA_HARM, ALPHA_GAIN))
    ones = np.ones(len(seen.clicks))
    guarded = {"conversion": (seen.clicks > 0).astype(float), "revenue_per_user": tame(seen.revenue).values}
    effects = {metric: _difference(guarded[metric], ones, seen.is_candidate) for metric in GUARDRAILS}
    champion = ~seen.is_candidate
    shown = seen.impressions[champion].sum()
    return Evidence(
        **_about(candidacy),
        candidate_users=dealt["candidate"],
        champion_users=dealt["champion"],
        crossed_users=int(everybody.is_crossed.sum()),
        bots=int(everybody.is_bot.sum()),
        sample_ratio_p=ratio.always_valid,
        champion_rate=float(seen.clicks[champion].sum() / shown) if shown else None,
        difference=rate.value if rate else None,
        harm_high=harm.interval(rate).high if rate else None,
        gain_low=gain.interval(rate).low if rate else None,
        harmed=tuple(metric for metric, effect in effects.items() if effect and harm.interval(effect).high < 0),
    )


def _difference(y: Any, w: Any, is_candidate: Any) -> Any:
    """Return candidate - champion of Σ y / Σ w; None with too few users on a side, or without anything to compare.

    A side on which nothing varies (nobody clicked) is not for that reason certain: it gets the variance that its users
    would have if they were like all.
    """
    from experiments.comparison import MIN_USERS
    from experiments.estimates import difference, ratio

    arms = [ratio(y[rows], w[rows]) for rows in (is_candidate, ~is_candidate)]
    together = ratio(y, w)
    if min(arm.users for arm in arms) < MIN_USERS or not together.variance:
        return None
    spread = together.variance * together.users  # of one user
    arms = [arm if arm.variance else replace(arm, variance=spread / arm.users) for arm in arms]
    return difference(*arms)


def _outcome(evidence: Evidence, now: datetime) -> Outcome:
    if evidence.shadow is not None:
        seen = f"{evidence.shadow.answered} copies answered, {evidence.shadow.failed} failed"
    elif evidence.difference is None:
        seen = f"{evidence.candidate_users} and {evidence.champion_users} users: too few to compare"
    else:
        seen = (
            f"clicks by impressions {evidence.difference:+.4f}, above {evidence.gain_low:+.4f} (α {ALPHA_GAIN}), "
            f"below {evidence.harm_high:+.4f} (α {ALPHA_HARM}); "
            f"{evidence.candidate_users} and {evidence.champion_users} users"
        )
    is_harm = bool(evidence.harmed) or (evidence.harm_high is not None and evidence.harm_high < 0)
    return Outcome(
        STATION, now.date(), CHECK_EVIDENCE, seen, f"not below version {evidence.against}",
        "warn" if is_harm else "pass", f"{evidence.version}/{evidence.stage}", as_detail(evidence),
    )  # fmt: skip
