"""Every metric of every variant beside the control: single look and always valid, with and without CUPED."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments import estimates
from experiments.estimates import Effect, Estimate, Reading
from experiments.exposures import Exposed
from experiments.heavy_tails import tame
from experiments.multiplicity import benjamini_hochberg, holm
from experiments.segments import Shrunk, shrink
from experiments.sequential import Sequence
from recsys.experiments import Experiment, Metric

METRICS: tuple[Metric, ...] = ("click_through_rate", "conversion", "revenue_per_user", "retention")
MIN_USERS = 30
"""Below so many users in a variant, the normal approximation promises more than it keeps."""


@dataclass(frozen=True)
class Column:
    """One metric as two numbers a user, Σ y / Σ w; `refused` says why there is none. Both (N,)."""

    y: np.ndarray
    w: np.ndarray
    note: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Comparison:
    """One metric of one variant beside the control."""

    metric: Metric
    variant: str
    treatment: Reading
    control: Reading
    effect: Effect | None
    """The difference, after CUPED; None with too few users or nothing to divide by."""
    single_look: Estimate
    always_valid: Estimate
    lift: Estimate
    """Relative, single look, without CUPED."""
    always_valid_lift: Estimate
    p_value: float
    always_valid_p: float
    adjusted_p: float
    """Always valid; over the variants (Holm) for the primary metric, over all others (Benjamini and Hochberg)."""
    variance_kept: float | None
    """Variance after CUPED over that before."""
    note: str = ""

    @property
    def is_shown(self) -> bool:
        return self.always_valid.excludes(0)


def columns(exposed: Exposed) -> dict[Metric, Column]:
    """Return each metric of these users.

    click_through_rate   clicks by impressions
    conversion           share of the users who clicked anything that was shown
    revenue_per_user     price of what a user bought after the first exposure; winsorised if a few dominate it
    retention            share of the eligible users who were there again in the second week
    """
    users = np.ones(len(exposed))
    found: dict[Metric, Column] = {
        "click_through_rate": Column(exposed.clicks, exposed.impressions),
        "conversion": Column((exposed.clicks > 0).astype(float), users),
        "retention": Column(exposed.is_retained.astype(float), exposed.is_eligible.astype(float)),
    }
    try:
        tamed = tame(exposed.revenue)
        found["revenue_per_user"] = Column(tamed.values, users, note=tamed.sentence)
    except ValueError as error:
        refused = f"revenue_per_user is not read: {error}."
        found["revenue_per_user"] = Column(users * 0, users * 0, refused=refused)
    return {metric: found[metric] for metric in METRICS}


def compare(exposed: Exposed, experiment: Experiment) -> list[Comparison]:
    """Compare every variant with the control on every metric, the primary one first."""
    sequence = Sequence.tuned_for(experiment.planned_users)
    found = list(_compared(exposed, experiment, sequence))
    primary = {one.variant: one.always_valid_p for one in found if one.metric == experiment.primary_metric}
    others = {
        f"{one.metric}/{one.variant}": one.always_valid_p
        for one in found
        if one.metric != experiment.primary_metric and one.effect is not None
    }
    adjusted = holm(primary), benjamini_hochberg(others)
    return [
        _with_adjusted(
            one,
            adjusted[0][one.variant]
            if one.metric == experiment.primary_metric
            else adjusted[1].get(f"{one.metric}/{one.variant}", 1.0),
        )
        for one in found
    ]


def _with_adjusted(one: Comparison, adjusted_p: float) -> Comparison:
    return Comparison(**{**vars(one), "adjusted_p": adjusted_p})


def _compared(exposed: Exposed, experiment: Experiment, sequence: Sequence) -> Iterator[Comparison]:
    read = columns(exposed)
    ordered = sorted(METRICS, key=lambda metric: metric != experiment.primary_metric)
    for metric in ordered:
        column = read[metric]
        adjusted = estimates.cuped(column.y, column.w, exposed.prior, exposed.variant)
        for variant in experiment.shares:
            if variant == experiment.control:
                continue
            arms = [exposed.variant == name for name in (variant, experiment.control)]
            plain = [estimates.ratio(column.y[rows], column.w[rows]) for rows in arms]
            tuned = [estimates.ratio(adjusted[rows], column.w[rows]) for rows in arms]
            yield _compare_one(metric, variant, plain, tuned, sequence, column.refused or column.note)


def _compare_one(
    metric: Metric, variant: str, plain: list[Reading], tuned: list[Reading], sequence: Sequence, note: str
) -> Comparison:
    enough = min(reading.users for reading in plain) >= MIN_USERS
    effect = estimates.difference(*tuned) if enough else None
    before, relative = estimates.difference(*plain), estimates.log_lift(*plain) if enough else None
    nothing = Estimate(None)
    return Comparison(
        metric=metric,
        variant=variant,
        treatment=plain[0],
        control=plain[1],
        effect=effect,
        single_look=effect.interval() if effect else nothing,
        always_valid=sequence.interval(effect) if effect else nothing,
        lift=estimates.as_lift(relative.interval()) if relative else nothing,
        always_valid_lift=estimates.as_lift(sequence.interval(relative)) if relative else nothing,
        p_value=effect.p_value if effect else 1.0,
        always_valid_p=sequence.p_value(effect) if effect else 1.0,
        adjusted_p=1.0,
        variance_kept=effect.variance / before.variance if effect and before and before.variance else None,
        note=note,
    )


def by_activity(exposed: Exposed, experiment: Experiment) -> dict[str, dict[str, Shrunk]]:
    """Return, for each variant, the effect on the primary metric among users who were new, light and heavy before their
    exposure (up to and above the median of those who did anything), shrunk towards each other."""
    column = columns(exposed)[experiment.primary_metric]
    active = exposed.prior > 0
    middle = float(np.median(exposed.prior[active])) if active.any() else 0.0
    segments = {"new": ~active, "light": active & (exposed.prior <= middle), "heavy": exposed.prior > middle}
    found = {}
    for variant in experiment.shares:
        if variant == experiment.control:
            continue
        effects = {}
        for name, rows in segments.items():
            readings = [
                estimates.ratio(column.y[rows & (exposed.variant == arm)], column.w[rows & (exposed.variant == arm)])
                for arm in (variant, experiment.control)
            ]
            effect = estimates.difference(*readings)
            if effect is not None and min(reading.users for reading in readings) >= MIN_USERS:
                effects[name] = effect
        found[variant] = shrink(effects)
    return found
