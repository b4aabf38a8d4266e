"""The choice of hyper-parameters, and with `best` of the model, within a budget that is a hard promise.

Every model's first trial comes first, the cheapest by estimate at the head, so that a short budget is not spent on one
that does not end; it is the first of the model's own that takes a small share of the budget, or, where the model stands
alone, of those that fit at all. Those that take more go by how much is to be expected of them. Then come the trials of
the leader of the moment, then those of models that are not far behind it. A trial is not begun when, by estimate or by
what was measured, it and the fit on all of the training part would not end in time; one that overruns is ended, and a
cheaper one of the same model may follow. A model that stops in time by itself is begun with less than it asks for, down
to `LEAST_SHARE`; what is left of the time at the end goes into more of its networks, where it averages some.

There is always an answer: as soon as the cheap models were tried, the best of those that take a small share of the time
is fitted on all of the training part and asked about the test's users, and another one when it is worth more. What it
answers is laid by, and compared with what the users did only if it is the last word. So the test is read once, and a
busy machine costs the better answer, never every answer. While nothing is laid by, the time of the leader's last fit is
kept back, and beside it that of the cheapest, who answers if the leader overruns.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from recsys.artifacts import BASELINE_MODEL
from recsys.errors import CheckFailed, RecsysError
from training.benchmark.contender import Contender
from training.benchmark.pace import Budget, Pace
from training.benchmark.protocol import DECIDING, Split, hold_out, seconds_of_asking
from training.benchmark.trial import Job, Outcome, run
from training.dataset import TrainingData
from training.model import Workplace, module_of

CANDIDATES = (BASELINE_MODEL, "ease", "spectral", "ials", "item_knn", "lightgcn")
"""What `best` chooses among: the baseline, which always fits, then those of which most is to be expected."""
CANDIDATES_IN_ORDER = (BASELINE_MODEL, "slist", *CANDIDATES[1:5], "blend")
"""The same where the order of a user's events is known: SASRec beside SLIST in one model, not alone."""
CANDIDATES_FOR_LONG = (*CANDIDATES_IN_ORDER[:-1], "hstu", "sasrec")
"""The same where the histories are long as well: there the HSTU-like model is the stronger of the two networks."""
LONG_HISTORY = 50
"""Mean events of a user from which on histories are long: MovieLens 1M has 165, Beauty 9 (docs/results/sequence.md)."""
MOST_MEMBERS = 3
"""Networks from different seeds that a model with `members` averages where there is time: on Beauty and Toys that was
worth 11 and 16 % of recall@10 (docs/results/sequence.md), the third one a fifth of it."""
LEAST_OF_A_MEMBER = 0.7
"""Of the seconds that a fit of one takes: what each gets at least; the rate falls to its end in whatever time
there is."""
FIRST_SHARE = 0.12
"""Of the budget: what a model's first trial may be expected to take, where the model has a trial that takes no more."""
EARLY_SHARE = 0.15
"""Of the seconds left: what an answer that is laid by may be expected to take."""
EARLY_PATIENCE = 3.0
"""So many times what is expected such an answer may take."""
WORTH = 1.05
"""So many times what is laid by the leader must be worth on the validation part for another one to be laid by."""
PROMISING = 0.8
"""Of the leader's worth: what the best trial of a model must have for further ones of it."""
HALF = 0.5
"""Of the leader's worth: what is worth less is not laid by."""
log = logging.getLogger(__name__)


def candidates(data: TrainingData) -> tuple[str, ...]:
    """Return what `best` chooses among for such data."""
    if not data.is_ordered:
        return CANDIDATES
    return CANDIDATES_FOR_LONG if is_long(data) else CANDIDATES_IN_ORDER


def is_long(data: TrainingData) -> bool:
    """Whether the users' histories are long."""
    return len(data.items) >= LONG_HISTORY * len(np.unique(data.users))


def trials(module: ModuleType, data: TrainingData) -> tuple[dict[str, Any], ...]:
    """Return the settings that a model names for such data: sets, short histories, or any."""
    known = getattr(module, "TRIALS", ({},))
    if not data.is_ordered and hasattr(module, "TRIALS_OF_SETS"):
        return module.TRIALS_OF_SETS
    return known if is_long(data) else getattr(module, "TRIALS_OF_SHORT", known)


@dataclass(frozen=True)
class Verdict:
    """The model that was chosen, how it did on the test, and the whole way there."""

    model: str
    final: Outcome
    validation: list[dict[str, Any]]
    """A row a trial, in the order of time."""
    notes: list[str]


@dataclass(frozen=True)
class Answer:
    """A last fit that came to its end."""

    contender: Contender
    config: dict[str, Any]
    """The trial's that chose it; the fit may have had more members."""
    worth: float
    """On the validation part; -inf where nothing was tried."""
    final: Outcome


def choose(
    split: Split,
    names: Sequence[str],
    budget: Budget,
    seed: int,
    cache: Path,
    memory_bytes: float,
    given: dict[str, Any] | None = None,
) -> Verdict:
    """Tune on a part of the training part, and fit the best on all of it. The test's items are not read.

    Args:
        given: settings of the one model; with them nothing is tuned.

    Raises:
        CheckFailed: no fit came to its end within the budget.
    """
    notes: list[str] = []
    contenders = [contender for name in names if (contender := _contender(name, split, given, notes)) is not None]
    if not contenders:
        raise CheckFailed("MODEL", ", ".join(names), f"It cannot be trained on this split: {'; '.join(notes)}")
    return Race(split, contenders, budget, seed, cache, memory_bytes, notes).run()


def _contender(name: str, split: Split, given: dict[str, Any] | None, notes: list[str]) -> Contender | None:
    module = module_of(name)
    if getattr(module, "NEEDS_ORDER", False) and not split.train.is_ordered:
        notes.append(f"{name}: it needs the order of events, which this format does not have")
        return None
    settings = trials(module, split.train) if given is None else (given,)
    return Contender(name, module, [dict(setting) for setting in settings], is_given=given is not None)


class Race:
    """The trials of all contenders, in one budget."""

    def __init__(
        self,
        split: Split,
        contenders: list[Contender],
        budget: Budget,
        seed: int,
        cache: Path,
        memory_bytes: float,
        notes: list[str],
    ):
        self.split, self.contenders, self.budget, self.seed = split, contenders, budget, seed
        self.cache, self.memory_bytes, self.notes = cache, memory_bytes, notes
        self.metric, self.pace = DECIDING[split.form], Pace(1.0)
        self.rows: list[dict[str, Any]] = []
        self.laid_by: Answer | None = None
        self.not_in_time: list[tuple[str, dict[str, Any]]] = []

    def run(self) -> Verdict:
        """Try what fits, then fit the best on all; where that does not end in time, the next or what is laid by."""
        self._tune()
        ranking = self._ranking()
        queue = [(one, config, self.pace.last(outcome), outcome) for _, one, config, outcome in ranking]
        if not queue:  # nothing was tried: untuned is better than nothing
            queue = [
                (one, config, one.estimate(config, self.split.train, self.pace), None)
                for one in self.contenders
                for config in [one.last_resort(self.split.train, self.pace, self.budget.left())]
            ]
        for place, (contender, config, expected, outcome) in enumerate(queue, 1):
            worth = outcome.metrics[self.metric] if outcome else -math.inf
            allowed = self.budget.left()
            if not self.laid_by:  # who answers if this one overruns
                behind = min((seconds for _, _, seconds, _ in queue[place:]), default=0.0)
                allowed -= behind if behind < expected else 0.0
            joined = self._joined(contender, config, outcome, allowed)
            if self._is_laid_by(contender, config, worth, joined):
                break
            asking = self.pace.asking(outcome) if outcome else 0.0  # who learns less is not asked less
            least = contender.least_share * (expected - asking) + asking
            if least > allowed and (self.laid_by or place < len(queue)):
                self.notes.append(f"{contender.name} {config}: its last fit may take {least:.1f} of {allowed:.1f} s")
                continue
            self._last_fit(contender, config, outcome, allowed, joined)
            if self.laid_by and self.laid_by.worth == worth:
                break
        if not self.laid_by:
            raise CheckFailed(
                "BUDGET_S", f"{self.budget.seconds:.0f}",
                f"No fit came to its end in it: {'; '.join(self.notes)}; give more time",
            )  # fmt: skip
        return Verdict(self.laid_by.contender.name, self.laid_by.final, self.rows, self.notes)

    def _tune(self) -> None:
        """Run trials until none is left that fits."""
        if len(self.contenders) == 1 and len(self.contenders[0].waiting) == 1:
            self.notes.append(f"{self.contenders[0].name} has one setting: nothing was tuned")
            self.pace = Pace(1.0, seconds_of_asking(self.split.train, self.split.asked))
            return
        try:
            data, asked = hold_out(self.split, self.seed)
        except RecsysError as error:
            self.notes.append(str(error))
            return
        self.pace = Pace(len(self.split.asked.users) / len(asked.users), seconds_of_asking(data, asked))
        while contender := self._next(data):
            config, allowed = contender.waiting[0], self._allowed()
            expected = contender.estimate(config, data, self.pace)
            if expected * contender.least_share > allowed or allowed <= 0:
                self.notes.append(
                    f"{contender.name} {config}: not begun, {expected:.1f} s expected and {allowed:.1f} s left for it"
                )
                contender.is_out = contender.is_out or not contender.has_ended
                if contender.has_ended:
                    contender.waiting.pop(0)
                continue
            contender.waiting.pop(0)
            ended = [outcome for _, outcome in contender.tried if not outcome.failed]
            place = Workplace(self.budget.threads, self.cache, self.pace.fit(allowed, ended[-1] if ended else None))
            outcome = run(Job(contender.name, config, data, asked, self.seed, place), allowed, self.memory_bytes)
            contender.take(config, outcome, data, self.pace)
            self.pace.learn(outcome)
            self.rows.append(_row(contender.name, config, outcome, self.metric))
            said = outcome.failed or f"{self.metric} {outcome.metrics[self.metric]:.4f}"
            log.info("%s %s: %s", contender.name, config, said)
            self._lay_by(data)

    def _next(self, data: TrainingData) -> Contender | None:
        """Return whose trial comes next; it stands first among the contender's own."""
        open_ones = [contender for contender in self.contenders if contender.waiting and not contender.is_out]
        untried = [contender for contender in open_ones if not contender.has_ended]
        soon = FIRST_SHARE * self.budget.seconds if len(self.contenders) > 1 else self._allowed()
        for one in untried:
            one.begin_with_what_fits(data, self.pace, soon)
        if untried:
            return min(untried, key=lambda one: self._turn(one, data))
        least = PROMISING * max((one.best(self.metric) for one in self.contenders), default=0.0)
        promising = [one for one in open_ones if one.best(self.metric) >= least]
        return max(promising, key=lambda one: one.best(self.metric), default=None)

    def _turn(self, one: Contender, data: TrainingData) -> tuple[bool, float]:
        """Return a key by which first trials are sorted: the cheap ones by estimate, then the dear ones as they are
        listed, the strongest first."""
        expected = np.nan_to_num(one.estimate(one.waiting[0], data, self.pace))
        is_dear = expected > FIRST_SHARE * self.budget.seconds
        return is_dear, self.contenders.index(one) if is_dear else expected

    def _ranking(self) -> list[tuple[float, Contender, dict[str, Any], Outcome]]:
        """Return what was tried, the best on the validation part first."""
        tried = [
            (outcome.metrics[self.metric], contender, config, outcome)
            for contender in self.contenders
            for config, outcome in contender.tried
            if not outcome.failed
        ]
        return sorted(tried, key=lambda entry: -entry[0])

    def _allowed(self) -> float:
        """Return the seconds that the next trial may take, so that the last fit, its own or the leader's, still ends in
        time, and behind it the cheapest one's, should it overrun."""
        left, ranking = self.budget.left(), self._ranking()
        if not ranking:
            return self.pace.trial(left)
        leader = self.pace.last(ranking[0][3])
        if self.laid_by:
            leader *= ranking[0][0] > self.laid_by.worth
        else:
            left -= min(self.pace.last(outcome) for *_, outcome in ranking)
        return min(self.pace.trial(left), left - leader)

    def _lay_by(self, data: TrainingData) -> None:
        """Get an answer now, where the cheap models were tried: the best one's of those that are cheap to fit."""
        ranking, left = self._ranking(), self.budget.left()
        waiting = [one for one in self.contenders if one.waiting and not one.is_out and not one.has_ended]
        soon = FIRST_SHARE * self.budget.seconds
        are_cheap_ones_left = any(not one.estimate(one.waiting[0], data, self.pace) > soon for one in waiting)
        if not ranking or (are_cheap_ones_left and left > self.budget.seconds / 2):
            return
        least = max(self.laid_by.worth * WORTH if self.laid_by else -math.inf, HALF * ranking[0][0])
        for worth, contender, config, outcome in ranking:
            expected = self.pace.last(outcome)
            if worth < least:
                return
            if expected <= EARLY_SHARE * left and (contender.name, config) not in self.not_in_time:
                self._last_fit(contender, config, outcome, EARLY_PATIENCE * expected)
                return

    def _is_laid_by(self, contender: Contender, config: dict[str, Any], worth: float, joined: dict[str, Any]) -> bool:
        """Whether an answer is laid by that this fit would not better: one worth as much, of as many members."""
        if not self.laid_by or worth > self.laid_by.worth:
            return False
        is_same = self.laid_by.contender is contender and self.laid_by.config == config
        return joined == config or not is_same

    def _joined(
        self, contender: Contender, config: dict[str, Any], trial: Outcome | None, allowed: float
    ) -> dict[str, Any]:
        """Return the setting with as many members as there is time for, where a model has such and nobody said how
        many; what its trial says of it is said of fewer."""
        if contender.is_given or "members" not in contender.module.Config.model_fields:
            return config
        had = contender.module.Config(**config).members
        taken = trial.wall_seconds - trial.judge_wall_seconds if trial else math.nan
        taken = contender.estimate(config, self.split.train, self.pace) if math.isnan(taken) else taken
        least = LEAST_OF_A_MEMBER * max(taken / had, 1e-3)
        members = min(MOST_MEMBERS, int(self.pace.fit(allowed, trial, self.pace.more_users) / least))
        return config | {"members": members} if members > had else config

    def _last_fit(
        self,
        contender: Contender,
        config: dict[str, Any],
        trial: Outcome | None,
        allowed: float,
        joined: dict[str, Any] | None = None,
    ) -> None:
        """Fit on all of the training part, ask about the test's users, and lay that by if it ends in time.

        Args:
            joined: the setting with more members, where there is time for them.
        """
        place = Workplace(self.budget.threads, self.cache, self.pace.fit(allowed, trial, self.pace.more_users))
        job = Job(contender.name, joined or config, self.split.train, self.split.asked, self.seed, place, is_last=True)
        final = run(job, allowed, self.memory_bytes)
        if final.failed:
            self.not_in_time.append((contender.name, config))
            self.notes.append(f"{contender.name} {config}: last fit: {final.failed}")
        else:
            worth = trial.metrics[self.metric] if trial else -math.inf
            self.laid_by = Answer(contender, config, worth, final)


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
