"""The reading of every experiment that ran: marts in, outcome rows and conclusions out, a harmful variant stopped."""

import logging
from collections import Counter
from dataclasses import asdict
from typing import Any

from experiments.allocation import thompson_shares
from experiments.comparison import Comparison, compare
from experiments.conclusions import Decision, Harm, conclusion, crossed_guardrails, decision, unreadable
from experiments.exposures import Exposed, read_exposed
from experiments.interleaving import read_preference
from experiments.randomised import read_first_rank
from experiments.reporting import outcomes, page, preferred
from experiments.sample_ratio import SampleRatio, sample_ratio
from recsys.artifacts import EXPERIMENT_SALT
from recsys.errors import RecsysError
from recsys.experiments import INTERLEAVED, LIST_LAYER, SHUFFLE, Experiment, read_declaration
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.split import Decided, Decisions, Split, Stop, decisions_file, read_decisions, write_decisions
from recsys.warehouse import connect, write_outcomes

log = logging.getLogger(__name__)


def analyse(settings: Settings, interval: Interval, control: str | None = None) -> dict[str, Any]:
    """Read every experiment that had started before the interval's end; write outcomes, the page of conclusions, and
    what was decided.

    Args:
        control: the variant that the others are compared with, in place of the declared one.

    Raises:
        RecsysError: the control is no variant of a running experiment.
        UnusableInput: the declaration or the decisions cannot be used.
    """
    experiments = [with_control(one, control) for one in declared(settings) if one.starts_on < interval.as_of]
    decisions = read_decisions(decisions_file(settings))
    results = {}
    for experiment in experiments:
        results[experiment.name], decided = _analyse_one(settings, interval, experiment, decisions.of(experiment.name))
        if decided != decisions.of(experiment.name):
            decisions = Decisions(experiments={**decisions.experiments, experiment.name: decided})
            write_decisions(decisions_file(settings), decisions)
    report = settings.var_dir / "reports" / f"experiments-{interval.as_of}.md"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("\n".join(page(experiments, results)))
    return {"experiments": results, "report": str(report), "unchanged": False}


def declared(settings: Settings) -> tuple[Experiment, ...]:
    """Return the experiments on live traffic; shares given by a setting are one experiment over everybody."""
    weights = settings.variant_weights
    if not weights:
        return read_declaration(settings.experiments_file).experiments
    (running,) = Split.by_weights(weights).experiments
    if len(weights) < 2:
        return ()
    return (
        Experiment(
            name=EXPERIMENT_SALT,
            question="How do the variants of RECSYS_VARIANT_WEIGHTS differ?",
            starts_on=running.starts_on,
            control=list(weights)[-1],
            variants=[
                {"name": name, "share": share, "policy": running.policies[name]} for name, share in weights.items()
            ],
        ),
    )


def with_control(experiment: Experiment, control: str | None) -> Experiment:
    """Return the experiment with another control.

    Raises:
        RecsysError: it is none of its variants.
    """
    if control is None:
        return experiment
    if control not in experiment.shares:
        raise RecsysError("--control", control, f"Choose among {', '.join(experiment.shares)} ({experiment.name})")
    return experiment.model_copy(update={"control": control})


def _analyse_one(
    settings: Settings, interval: Interval, experiment: Experiment, decided: Decided
) -> tuple[dict[str, Any], Decided]:
    stopped = {variant: stop.stopped_at for variant, stop in decided.stopped.items()}
    shuffled = [name for name, policy in experiment.policies.items() if policy == SHUFFLE]
    with connect(settings) as connection:
        everybody = read_exposed(connection, experiment, interval, stopped)
        exposed = everybody.where(~(everybody.is_crossed | everybody.is_bot))
        split = _split(exposed, experiment, stopped)
        reason = unreadable(experiment, split)
        compared = [] if reason else [one for one in compare(exposed, experiment) if one.variant not in stopped]
        harms = crossed_guardrails(experiment, compared)
        first_rank, preferences = None, {}
        if not reason and experiment.layer == LIST_LAYER:
            if shuffled:
                first_rank = read_first_rank(connection, interval, shuffled[0])
            for name in [name for name, policy in experiment.policies.items() if policy == INTERLEAVED]:
                users = frozenset(exposed.user_id[exposed.variant == name].tolist())
                preferences[name] = read_preference(connection, interval, name, users)
        conclusions = _conclusions(experiment, reason, compared, harms, decided)
        rows = outcomes(interval, experiment, everybody, exposed, split, compared, harms, conclusions, first_rank)
        rows += preferred(interval, experiment, preferences)
        write_outcomes(connection, rows)
    for _, text in conclusions.values():
        log.info("%s: %s", experiment.name, text)
    now = _decide(settings, interval, experiment, exposed, harms, decided)
    users = Counter(exposed.variant.tolist())
    return {
        "sample_ratio_p": split.always_valid,
        "users": {variant: users[variant] for variant in experiment.shares},
        "crossed_users": int(everybody.is_crossed.sum()),
        "bots": int(everybody.is_bot.sum()),
        "early_outcomes": int(everybody.early_outcomes.sum()),
        "lift": {
            one.variant: asdict(one.always_valid_lift) for one in compared if one.metric == experiment.primary_metric
        },
        "stopped": sorted(now.stopped),
        "first_rank": asdict(first_rank) if first_rank else None,
        "preferences": {variant: found.sentence for variant, found in preferences.items()},
        "conclusions": {variant: text for variant, (_, text) in conclusions.items()},
        "decisions": {variant: what for variant, (what, _) in conclusions.items()},
    }, now


def _split(exposed: Exposed, experiment: Experiment, stopped: dict[str, Any]) -> SampleRatio:
    """Judge the split of those who came before any variant was stopped: later ones are not dealt as declared."""
    first_stop = min((at.timestamp() for at in stopped.values()), default=float("inf"))
    users = Counter(exposed.variant[exposed.exposed_at < first_stop].tolist())
    return sample_ratio(users, experiment.shares)


def _conclusions(
    experiment: Experiment, reason: str, compared: list[Comparison], harms: list[Harm], decided: Decided
) -> dict[str, tuple[Decision, str]]:
    found: dict[str, tuple[Decision, str]] = {}
    for variant in experiment.shares:
        if variant == experiment.control:
            continue
        if variant in decided.stopped:
            stop = decided.stopped[variant]
            found[variant] = "stopped", f"{variant} was stopped on {stop.stopped_at.date()}: {stop.reason}."
        elif reason:
            found[variant] = "do not read", reason
        else:
            primary, *others = [one for one in compared if one.variant == variant]
            harm = "".join(
                f" {'Stopped' if one.guardrail.on_harm == 'stop' else 'Beware'}: {one.sentence}."
                for one in harms
                if one.variant == variant
            )
            found[variant] = decision(primary, harms), conclusion(experiment, primary, others) + harm
    return found


def _decide(
    settings: Settings,
    interval: Interval,
    experiment: Experiment,
    exposed: Exposed,
    harms: list[Harm],
    decided: Decided,
) -> Decided:
    """Return what holds from now on. A variant is stopped at the interval's end; read again, it stays stopped as of the
    day on which it was."""
    stops = dict(decided.stopped)
    for harm in harms:
        if harm.guardrail.on_harm == "stop" and harm.variant not in stops:
            stops[harm.variant] = Stop(stopped_at=interval.end, reason=harm.sentence)
    shares = decided.shares
    if experiment.allocation == "thompson" and len(exposed):
        trials = Counter(exposed.variant.tolist())
        successes = Counter(exposed.variant[exposed.clicks > 0].tolist())
        shares = thompson_shares(successes, {name: trials[name] for name in experiment.shares}, settings.seed)
    return Decided(stopped=stops, shares=shares)
