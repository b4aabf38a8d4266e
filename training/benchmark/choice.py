"""The choice of hyper-parameters, and with `best` of the model, within a budget that is a hard promise.

Every model's first trial comes first, the cheapest by estimate at the head, so that a short budget is not spent on one
that does not end; it is the first of the model's own that takes a small share of the budget. Then come the trials of
the leader of the moment. A trial is not begun when, by estimate or by what was measured, it and the fit on all of the
training part would not end in time; one that overruns is ended. A model that stops in time by itself is begun with less
than it asks for, down to `LEAST_SHARE`. What is kept back for the last fit is the leader's, and beside it that of the
cheapest, who answers if the leader overruns: there is always an answer.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

import numpy as np

from recsys.artifacts import BASELINE_MODEL
from recsys.errors import CheckFailed, RecsysError
from training.benchmark.protocol import DECIDING, Split, hold_out
from training.benchmark.trial import Job, Outcome, run
from training.cost import cpu_seconds
from training.dataset import TrainingData
from training.model import Workplace, module_of

CANDIDATES = (BASELINE_MODEL, "spectral", "ease", "ials", "item_knn", "lightgcn")
"""What `best` chooses among, the baseline first: it always fits."""
CANDIDATES_IN_ORDER = (BASELINE_MODEL, "slist", *CANDIDATES[1:5], "sasrec")
"""The same where the order of a user's events is known."""
MORE_DATA = 1.5
"""So many times its trial's seconds are kept back for a model's last fit: it learns from all, and the machine may be
busier by then."""
MORE_ASKED = 1.2
"""So many times its trial's judgement of as many users is kept back for that of the test, which has more of them."""
FIRST_SHARE = 0.12
"""Of the budget: what a model's first trial may be expected to take, where the model has a trial that takes no more."""
LEAST_SHARE = 0.3
"""Of the expected seconds, with which a model that stops in time by itself still learns something."""
FIT_SHARE = 0.75
"""Of the allowed seconds: what such a model may train for; the rest is for its start and for judging it."""
LAST_SECONDS = 1.0
"""Kept back for writing the result."""
log = logging.getLogger(__name__)


class Budget:
    """Seconds of wall time, and of one processor a thread, since the command began; what is spent first counts."""

    def __init__(self, seconds: float, threads: int, started: float, clock: Callable[[], float] = perf_counter):
        self.seconds, self.threads, self.started, self.clock = seconds, threads, started, clock

    def left(self) -> float:
        return self.seconds - LAST_SECONDS - max(self.clock() - self.started, cpu_seconds() / self.threads)


@dataclass
class Contender:
    """A model, the trials that it still has, and how the others went."""

    name: str
    module: ModuleType
    waiting: list[dict[str, Any]]
    tried: list[tuple[dict[str, Any], Outcome]] = field(default_factory=list)
    is_out: bool = False

    def estimate(self, config: dict[str, Any], data: TrainingData, pace: "Pace") -> float:
        """Return the wall seconds that a trial is expected to take; NaN where nothing is known."""
        estimate = getattr(self.module, "estimate_seconds", None)
        said = estimate(data, self.module.Config(**config)) if estimate else math.nan
        done = [(config, outcome) for config, outcome in self.tried if not outcome.failed]
        if not done:
            return said * pace.slowness + pace.judging
        if not estimate:
            return max(outcome.wall_seconds for _, outcome in done)
        rate = max(outcome.wall_seconds / max(estimate(data, self.module.Config(**c)), 1e-3) for c, outcome in done)
        return said * rate

    def begin_with_what_fits(self, data: TrainingData, pace: "Pace", seconds: float) -> None:
        """Put the first trial that is expected to take no more than these seconds to the front; where there is none,
        the cheapest. The others keep their order."""
        expected = [self.estimate(config, data, pace) for config in self.waiting]
        fitting = [place for place, taken in enumerate(expected) if not taken > seconds]
        place = fitting[0] if fitting else int(np.argmin(expected))
        self.waiting.insert(0, self.waiting.pop(place))

    @property
    def least_share(self) -> float:
        """Share of the expected seconds below which a fit is not worth beginning."""
        return LEAST_SHARE if getattr(self.module, "STOPS_IN_TIME", False) else 1.0

    def best(self, metric: str) -> float:
        return max((outcome.metrics[metric] for _, outcome in self.tried if not outcome.failed), default=-math.inf)


class Pace:
    """What the trials so far say of this machine in this hour, and of the way from a trial to a last fit."""

    def __init__(self, more_users: float):
        """`more_users`: users of the test for each one of the validation part."""
        self.more_users, self.done = more_users, []

    def learn(self, outcome: Outcome) -> None:
        if not outcome.failed:
            self.done.append(outcome)

    @property
    def slowness(self) -> float:
        """Wall seconds that a processor second takes, one or more: others may use the machine as well."""
        cpu = sum(np.nan_to_num(one.fit_cpu_seconds) + np.nan_to_num(one.judge_cpu_seconds) for one in self.done)
        return max(1.0, sum(one.wall_seconds for one in self.done) / cpu) if cpu > 1 else 1.0

    @property
    def judging(self) -> float:
        """Wall seconds that the judgement of a trial takes at least."""
        return min((one.judge_wall_seconds for one in self.done), default=0.0)

    def last(self, outcome: Outcome) -> float:
        """Return the wall seconds that a model's last fit may take, by one of its trials."""
        judging = outcome.judge_wall_seconds
        return MORE_DATA * (outcome.wall_seconds - judging) + MORE_ASKED * max(1.0, self.more_users) * judging

    def trial(self, left: float) -> float:
        """Return how long a trial may take so that its own last fit still ends in these seconds."""
        return (left - (MORE_ASKED * max(1.0, self.more_users) - MORE_DATA) * self.judging) / (1 + MORE_DATA)


@dataclass(frozen=True)
class Verdict:
    """The model that was chosen, how it did on the test, and the whole way there."""

    model: str
    final: Outcome
    validation: list[dict[str, Any]]
    """A row a trial, in the order of time."""
    notes: list[str]


def choose(
    split: Split,
    names: Sequence[str],
    budget: Budget,
    seed: int,
    cache: Path,
    memory_bytes: float,
    given: dict[str, Any] | None = None,
) -> Verdict:
    """Tune on a part of the training part, fit the best on all of it, and read the test once.

    Args:
        given: settings of the one model; with them nothing is tuned.

    Raises:
        CheckFailed: no fit came to its end within the budget.
    """
    metric, notes = DECIDING[split.form], []
    contenders = [contender for name in names if (contender := _contender(name, split, given, notes)) is not None]
    if not contenders:
        raise CheckFailed("MODEL", ", ".join(names), f"It cannot be trained on this split: {'; '.join(notes)}")
    rows, pace = _tune(contenders, split, budget, seed, cache, memory_bytes, metric, notes)

    ranking = sorted(
        (
            (outcome.metrics[metric], contender, config, outcome)
            for contender in contenders
            for config, outcome in contender.tried
            if not outcome.failed
        ),
        key=lambda entry: -entry[0],
    )
    queue = [(contender, config, pace.last(outcome)) for _, contender, config, outcome in ranking]
    if not queue:  # nothing was tried: untuned is better than nothing
        queue = [
            (one, one.waiting[0], one.estimate(one.waiting[0], split.train, pace)) for one in contenders if one.waiting
        ]
    for place, (contender, config, expected) in enumerate(queue, 1):
        kept_back = min(
            (seconds for _, _, seconds in queue[place:]), default=0.0
        )  # for who answers if this one overruns
        left = budget.left()
        allowed = left - kept_back if kept_back < expected else left
        if expected * contender.least_share > allowed and place < len(queue):
            notes.append(f"{contender.name} {config}: its last fit may take {expected:.1f} of {allowed:.1f} s")
            continue
        workplace = Workplace(budget.threads, cache, FIT_SHARE * allowed)
        job = Job(contender.name, config, split.train, split.asked, seed, workplace, is_last=True)
        final = run(job, allowed, memory_bytes)
        if not final.failed:
            return Verdict(contender.name, final, rows, notes)
        notes.append(f"{contender.name} {config}: last fit: {final.failed}")
    raise CheckFailed(
        "BUDGET_S", f"{budget.seconds:.0f}", f"No fit came to its end in it: {'; '.join(notes)}; give more time"
    )


def _contender(name: str, split: Split, given: dict[str, Any] | None, notes: list[str]) -> Contender | None:
    module = module_of(name)
    if getattr(module, "NEEDS_ORDER", False) and not split.train.is_ordered:
        notes.append(f"{name}: it needs the order of events, which this format does not have")
        return None
    trials = getattr(module, "TRIALS", ({},)) if given is None else (given,)
    return Contender(name, module, [dict(trial) for trial in trials])


def _tune(
    contenders: list[Contender],
    split: Split,
    budget: Budget,
    seed: int,
    cache: Path,
    memory_bytes: float,
    metric: str,
    notes: list[str],
) -> tuple[list[dict[str, Any]], Pace]:
    """Run trials until none is left that fits. Returns a row a trial, and what was learnt of the machine."""
    rows, pace = [], Pace(1.0)
    if len(contenders) == 1 and len(contenders[0].waiting) == 1:
        notes.append(f"{contenders[0].name} has one setting: nothing was tuned")
        return rows, pace
    try:
        data, asked = hold_out(split, seed)
    except RecsysError as error:
        notes.append(str(error))
        return rows, pace
    pace = Pace(len(split.asked.users) / len(asked.users))
    while True:
        open_ones = [contender for contender in contenders if contender.waiting and not contender.is_out]
        if not open_ones:
            return rows, pace
        untried = [contender for contender in open_ones if not contender.tried]
        for one in untried:
            one.begin_with_what_fits(data, pace, FIRST_SHARE * budget.seconds)
        if untried:
            contender = min(untried, key=lambda one: np.nan_to_num(one.estimate(one.waiting[0], data, pace)))
        else:
            contender = max(open_ones, key=lambda one: one.best(metric))
        config, allowed = contender.waiting[0], _allowed(contenders, budget, metric, pace)
        expected = contender.estimate(config, data, pace)
        if expected * contender.least_share > allowed or allowed <= 0:
            notes.append(
                f"{contender.name} {config}: not begun, {expected:.1f} s expected and {allowed:.1f} s left for it"
            )
            contender.is_out = contender.is_out or not contender.tried
            if contender.tried:
                contender.waiting.pop(0)
            continue
        contender.waiting.pop(0)
        place = Workplace(budget.threads, cache, FIT_SHARE * allowed)
        outcome = run(Job(contender.name, config, data, asked, seed, place), allowed, memory_bytes)
        contender.tried.append((config, outcome))
        pace.learn(outcome)
        contender.is_out = bool(outcome.failed)
        rows.append(_row(contender.name, config, outcome, metric))
        log.info("%s %s: %s", contender.name, config, outcome.failed or f"{metric} {outcome.metrics[metric]:.4f}")


def _allowed(contenders: list[Contender], budget: Budget, metric: str, pace: Pace) -> float:
    """Return the seconds that the next trial may take, so that the last fit, its own or the leader's, still ends in
    time, and behind it the cheapest one's, should it overrun."""
    done = [(o.metrics[metric], pace.last(o)) for one in contenders for _, o in one.tried if not o.failed]
    if not done:
        return pace.trial(budget.left())
    leader, cheapest = max(done)[1], min(seconds for _, seconds in done)
    left = budget.left() - cheapest
    return min(pace.trial(left), left - leader)


def _row(name: str, config: dict[str, Any], outcome: Outcome, metric: str) -> dict[str, Any]:
    return {
        "model": name,
        "trial": config,
        metric: outcome.metrics.get(metric),
        "fit_cpu_seconds": round(outcome.fit_cpu_seconds, 3),
        "wall_seconds": round(outcome.wall_seconds, 3),
        "peak_rss_bytes": outcome.peak_rss_bytes,
        **({"failed": outcome.failed} if outcome.failed else {}),
    }
