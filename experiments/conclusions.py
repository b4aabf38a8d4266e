"""What an experiment says, in plain words: first whether it can be read at all, then what it found."""

from dataclasses import dataclass
from typing import Literal

from experiments.comparison import MIN_USERS, Comparison
from experiments.estimates import Estimate
from experiments.sample_ratio import SampleRatio
from recsys.experiments import Experiment, Guardrail, Metric

WORDS: dict[Metric, tuple[str, str, str]] = {
    "click_through_rate": ("is clicked more than", "is clicked less than", "{:.2%} of what {} showed was clicked"),
    "conversion": ("makes more users click than", "makes fewer users click than", "{:.2%} of the users of {} clicked"),
    "revenue_per_user": ("earns more than", "earns less than", "a user of {1} brought {0:.4g}"),
    "retention": ("brings more users back than", "brings fewer users back than", "{:.2%} of the users of {} came back"),
}
"""More, less, and how a rate is told."""


Decision = Literal["stopped", "do not read", "better", "worse", "go on"]
"""What is to be done with a variant: it was stopped, nothing may be concluded, roll it out, drop it, or wait."""


@dataclass(frozen=True)
class Harm:
    """A guardrail that was crossed."""

    guardrail: Guardrail
    variant: str
    sentence: str


def crossed_guardrails(experiment: Experiment, compared: list[Comparison]) -> list[Harm]:
    """Return the guardrails whose metric a variant harms by more than is allowed, at an always-valid 95 %: whoever
    looks every day stops a harmless variant in at most one of twenty experiments a guardrail."""
    found = []
    for guardrail in experiment.guardrails:
        for one in compared:
            high = one.always_valid_lift.high
            if one.metric == guardrail.metric and high is not None and high < -guardrail.largest_harm:
                found.append(
                    Harm(
                        guardrail,
                        one.variant,
                        f"{one.variant} harms {one.metric}: {_lift(one.always_valid_lift)} beside "
                        f"{experiment.control}, and no more than {-guardrail.largest_harm:.0%} is allowed",
                    )
                )
    return found


def unreadable(experiment: Experiment, split: SampleRatio) -> str:
    """Return why an experiment must not be read, or nothing if it may be."""
    if experiment.allocation == "thompson":
        return (
            "Its shares follow its outcomes (Thompson sampling), so averages are biased and no interval is read; "
            "look at the shares that it has come to."
        )
    if split.is_alarm:
        return (
            f"Do not read this experiment: the users are not split as declared (p = {split.always_valid:.2g}, valid at "
            "every look). Find out who is missing before comparing anything."
        )
    return ""


def decision(one: Comparison, harms: list[Harm]) -> Decision:
    """Return what the primary metric of one variant calls for, and the guardrails that it has crossed."""
    if any(harm.variant == one.variant and harm.guardrail.on_harm == "stop" for harm in harms):
        return "stopped"
    if one.effect is None or not one.is_shown or one.adjusted_p >= 0.05:
        return "go on"
    return "better" if one.effect.value > 0 else "worse"


def conclusion(experiment: Experiment, one: Comparison, others: list[Comparison]) -> str:
    """Return what the primary metric says of one variant, then which other metrics moved.

    Args:
        one: the primary metric of the variant.
        others: its other metrics.
    """
    variant, control = one.variant, experiment.control
    if one.treatment.value is None and one.control.value is None:
        return "Nothing was shown yet, so there is nothing to compare."
    if one.effect is None:
        return (
            f"Too early: {one.treatment.users} users of {variant} and {one.control.users} of {control}; at least "
            f"{MIN_USERS} each are needed."
        )
    more, less, told = WORDS[one.metric]
    rates = f"{told.format(one.treatment.value, variant)}, {told.format(one.control.value, control)}"
    if one.is_shown and one.adjusted_p < 0.05:
        verdict = f"{variant} {more if one.effect.value > 0 else less} {control}: {rates}{_both(one)}."
    else:
        verdict = f"No difference shown: {rates}{_both(one)}. Either they are alike or more users are needed."
    notes = [verdict, *sorted({other.note for other in [one, *others] if other.note})]
    moved = [
        f"{other.metric} {'higher' if other.effect.value > 0 else 'lower'} ({_lift(other.always_valid_lift)})"
        for other in others
        if other.effect is not None and other.is_shown and other.adjusted_p < 0.05
    ]
    if moved:
        notes.append(f"Also {', '.join(moved)}.")
    return " ".join(notes)


def _both(one: Comparison) -> str:
    if one.lift.value is None:
        return ""
    return f" ({_lift(one.always_valid_lift)} at any look; {_bounds(one.lift)} if this was the only one)"


def _lift(lift: Estimate) -> str:
    return "unknown" if lift.value is None else f"{lift.value:+.1%}, {_bounds(lift)}"


def _bounds(lift: Estimate) -> str:
    return f"95 % interval {lift.low:+.1%} to {lift.high:+.1%}"
