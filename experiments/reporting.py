"""What was found, for others: outcome rows, and a page in plain words."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from experiments.comparison import Comparison, by_activity, columns
from experiments.conclusions import Decision, Harm
from experiments.estimates import Estimate, quantile, ratio, wilson
from experiments.exposures import Exposed
from experiments.interleaving import Preference
from experiments.randomised import FirstRank
from experiments.sample_ratio import ALARM, SampleRatio
from recsys.experiments import SHUFFLE, Experiment
from recsys.interval import Interval
from recsys.warehouse import Outcome

STATION = "experiments"
TOLD = "told, not judged"


def outcomes(
    interval: Interval,
    experiment: Experiment,
    everybody: Exposed,
    exposed: Exposed,
    split: SampleRatio,
    compared: list[Comparison],
    harms: list[Harm],
    conclusions: dict[str, tuple[Decision, str]],
    first_rank: FirstRank | None,
) -> list[Outcome]:
    """Return what was found as judgements; their subjects are `<experiment>` or `<experiment>/<variant>`."""
    name = experiment.name

    def outcome(check: str, observed: Any, expected: Any, verdict: Any, variant: str = "", **detail: Any) -> Outcome:
        subject = f"{name}/{variant}" if variant else name
        return Outcome(STATION, interval.as_of, check, observed, expected, verdict, subject, detail)

    users = Counter(exposed.variant.tolist())
    rows = [
        outcome(
            "sample_ratio",
            f"p = {split.always_valid:.3g}",
            f"p >= {ALARM}, at every look",
            "fail" if split.is_alarm and experiment.allocation == "fixed" else "pass",
            users=users,
            shares=experiment.shares,
            chi_square_p=split.chi_square,
        )
    ]
    for check, count in (
        ("crossed_users", everybody.is_crossed.sum()),
        ("bots", everybody.is_bot.sum()),
        ("early_outcomes", everybody.early_outcomes.sum()),
    ):
        rows.append(outcome(check, int(count), 0, "warn" if count else "pass"))
    rows += [outcome("metric", *row) for row in _metrics(exposed, experiment)] if compared else []
    for one in compared:
        is_worse = one.is_shown and one.effect.value < 0
        is_primary = one.metric == experiment.primary_metric
        rows.append(
            outcome(
                f"lift:{one.metric}",
                _shown(one.always_valid_lift),
                f"not below {experiment.control}",
                "warn" if is_primary and is_worse else "pass",
                one.variant,
                is_primary=is_primary,
                lift=asdict(one.always_valid_lift),
                difference=one.always_valid,
                single_look=one.single_look,
                p_value=one.p_value,
                always_valid_p=one.always_valid_p,
                adjusted_p=one.adjusted_p,
                variance_kept_by_cuped=one.variance_kept,
                note=one.note,
            )
        )
    for harm in harms:
        verdict = "fail" if harm.guardrail.on_harm == "stop" else "warn"
        check = f"guardrail:{harm.guardrail.metric}"
        rows.append(
            outcome(check, harm.sentence, f"at most {harm.guardrail.largest_harm:.0%} harm", verdict, harm.variant)
        )
    segments = by_activity(exposed, experiment) if compared else {}
    for variant, found in segments.items():
        for segment, shrunk in found.items():
            observed = _shown(shrunk.shrunk)
            rows.append(outcome(f"segment:{segment}", observed, TOLD, "pass", variant, raw=shrunk.raw.value))
    if first_rank is not None:
        rows.append(outcome("first_rank", _shown(first_rank.dr), TOLD, "pass", SHUFFLE, **asdict(first_rank)))
    rows += [
        outcome("conclusion", text, experiment.question, "pass", variant, decision=decision)
        for variant, (decision, text) in conclusions.items()
    ]
    return rows


def preferred(interval: Interval, experiment: Experiment, found: dict[str, Preference]) -> list[Outcome]:
    """Return what the clicks in interleaved lists say, one judgement a variant."""
    return [
        Outcome(
            STATION, interval.as_of, "preference", one.sentence, TOLD, "pass", f"{experiment.name}/{variant}",
            {**asdict(one), "share_of_a": one.share_of_a},
        )
        for variant, one in found.items()
    ]  # fmt: skip


def _metrics(exposed: Exposed, experiment: Experiment) -> list[tuple[str, str, str, str]]:
    rows = []
    for metric, column in columns(exposed).items():
        for variant in experiment.shares:
            mine = exposed.variant == variant
            if metric == "conversion":
                estimate = wilson(int(column.y[mine].sum()), int(mine.sum()))
            else:
                reading = ratio(column.y[mine], column.w[mine])
                half = None if reading.variance is None else quantile(0.95) * reading.variance**0.5
                bounds = () if half is None else (reading.value - half, reading.value + half)
                estimate = Estimate(reading.value, *bounds)
            rows.append((_shown(estimate), TOLD, "pass", f"{variant}:{metric}"))
    return rows


def _shown(estimate: Estimate) -> str:
    """Return a number with its interval, for a table."""
    if estimate.value is None:
        return "no data"
    if estimate.low is None:
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def page(experiments: list[Experiment], results: dict[str, dict[str, Any]]) -> list[str]:
    """Return the lines of the page that a person reads."""
    lines = ["# What the experiments say", ""]
    if not experiments:
        lines += ["No experiment has started.", ""]
    for experiment in experiments:
        result = results[experiment.name]
        users = ", ".join(f"{variant} {count}" for variant, count in result["users"].items())
        lines += [f"## {experiment.name}", "", experiment.question, ""]
        lines += [f"Users: {users}. Left out: {result['bots']} bots, {result['crossed_users']} who saw two variants;"]
        lines += [f"{result['early_outcomes']} outcomes from before their exposure.", ""]
        lines += [f"- {text}" for text in result["conclusions"].values()]
        lines += [f"- In the lists of {name}, {told}." for name, told in result["preferences"].items()]
        if result["first_rank"]:
            judged = result["first_rank"]
            value, low, high = (judged["dr"][name] for name in ("value", "low", "high"))
            lines.append(
                f"- At rank one, {judged['in_random_order']:.2%} are clicked in random order; in the model's order it "
                f"would be {value:.2%} (95 % interval {low:.2%} to {high:.2%}, from {judged['requests']} answers that "
                f"say as much as {judged['effective_sample']:.0f} in that order)."
            )
        lines.append("")
    return lines
