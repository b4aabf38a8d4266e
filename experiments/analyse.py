"""The analysis of the running experiment: impressions in, outcome rows and a conclusion out."""

import logging
from dataclasses import asdict
from typing import Any

import psycopg

from experiments import analysis
from experiments.analysis import Arm, Estimate
from recsys import columns as c
from recsys.artifacts import EXPERIMENT_SALT, FCT_IMPRESSIONS
from recsys.errors import RecsysError
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.warehouse import Outcome, connect, write_outcomes

log = logging.getLogger(__name__)

STATION = "experiments"
CONTROL = "popular"


def analyse(settings: Settings, interval: Interval, control: str = CONTROL) -> dict[str, Any]:
    """Compare every variant with the control and write what was found.

    A user who saw more than one variant (the weights were changed) belongs to none and is left out.

    Raises:
        RecsysError: the control is not among the variants.
    """
    weights = settings.variant_weights
    if control not in weights:
        raise RecsysError("--control", control, f"Choose among {', '.join(weights)} (RECSYS_VARIANT_WEIGHTS)")
    with connect(settings) as connection:
        arms, crossed = read_arms(connection, interval)
        arms = {variant: Arm() for variant in weights} | arms
        ratio_p = analysis.sample_ratio({variant: arm.users for variant, arm in arms.items()}, weights)
        conclusions = {
            variant: analysis.conclusion((variant, control), arm, arms[control], ratio_p)
            for variant, arm in arms.items()
            if variant != control
        }
        write_outcomes(connection, _outcomes(interval, arms, crossed, control, weights, ratio_p, conclusions))
    for text in conclusions.values():
        log.info(text)
    return {
        "experiment": EXPERIMENT_SALT,
        "sample_ratio_p": ratio_p,
        "crossed_users": crossed,
        "ctr": {variant: asdict(analysis.click_through(arm)) for variant, arm in arms.items()},
        "users": {variant: arm.users for variant, arm in arms.items()},
        "impressions": {variant: arm.impressions for variant, arm in arms.items()},
        "lift": {variant: asdict(analysis.lift(arms[variant], arms[control])) for variant in conclusions},
        "conclusions": conclusions,
        "unchanged": False,
    }


def read_arms(connection: psycopg.Connection, interval: Interval) -> tuple[dict[str, Arm], int]:
    """Return each variant's sums over its users, and how many users saw more than one variant."""
    rows = connection.execute(
        f"""
        with users as (
            select
                {c.USER_ID},
                min({c.VARIANT}) as {c.VARIANT},
                count(distinct {c.VARIANT}) > 1 as is_crossed,
                count(*) as n,
                count(*) filter (where is_clicked) as c
            from {FCT_IMPRESSIONS}
            where shown_at < %s and {c.DOMAIN} = any(%s)
            group by {c.USER_ID}
        )
        select
            is_crossed, {c.VARIANT}, count(*), count(*) filter (where c > 0), sum(c), sum(n), sum(c * c), sum(c * n),
            sum(n * n)
        from users
        group by is_crossed, {c.VARIANT}
        """,
        (interval.end, list(interval.domains)),
    ).fetchall()
    arms = {variant: Arm(*(int(value) for value in sums)) for is_crossed, variant, *sums in rows if not is_crossed}
    return arms, sum(users for is_crossed, _, users, *_ in rows if is_crossed)


def _outcomes(
    interval: Interval,
    arms: dict[str, Arm],
    crossed: int,
    control: str,
    weights: dict[str, float],
    ratio_p: float | None,
    conclusions: dict[str, str],
) -> list[Outcome]:
    def outcome(check: str, observed: Any, expected: Any, verdict: Any, subject: str, **detail: Any) -> Outcome:
        return Outcome(STATION, interval.as_of, check, observed, expected, verdict, subject, detail)

    is_alarm = ratio_p is not None and ratio_p < analysis.SAMPLE_RATIO_ALARM
    counts = {variant: arm.users for variant, arm in arms.items()}
    rows = [
        outcome(
            "sample_ratio",
            "not judged: too few users" if ratio_p is None else f"p = {ratio_p:.3g}",
            f"p >= {analysis.SAMPLE_RATIO_ALARM}",
            "fail" if is_alarm else "pass",
            EXPERIMENT_SALT,
            users=counts,
            weights=weights,
        ),
        outcome("crossed_users", crossed, 0, "warn" if crossed else "pass", EXPERIMENT_SALT),
    ]
    for variant, arm in arms.items():
        rates = {
            "ctr": analysis.click_through(arm),
            "clicked_users": analysis.wilson(arm.clicked_users, arm.users),
        }
        for check, rate in rates.items():
            rows.append(outcome(check, _shown(rate), "told, not judged", "pass", variant, **asdict(arm)))
    for variant, text in conclusions.items():
        relative = analysis.lift(arms[variant], arms[control])
        is_worse = relative.excludes(0) and relative.value < 0
        z = analysis.proportions_z(
            (arms[variant].clicked_users, arms[control].clicked_users), (arms[variant].users, arms[control].users)
        )
        rows.append(
            outcome(
                "lift",
                _shown(relative),
                f"not below {control}",
                "warn" if is_worse else "pass",
                variant,
                conclusion=text,
                clicked_users_z=z,
                **asdict(relative),
            )
        )
    return rows


def _shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return "no data"
    if estimate.low is None:
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"
