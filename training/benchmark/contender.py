"""A model in the benchmark's choice: the trials that it still has, how the others went, and what the next may take."""

import math
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from training.benchmark.pace import Pace
from training.benchmark.trial import Outcome
from training.dataset import TrainingData

LEAST_SHARE = 0.3
"""Of the expected seconds, with which a model that stops in time by itself still learns something."""
CHEAPER = 0.5
"""Of the expected seconds of a trial that failed: what another one of the same model may be expected to take."""


@dataclass
class Contender:
    """A model, the trials that it still has, and how the others went."""

    name: str
    module: ModuleType
    waiting: list[dict[str, Any]]
    tried: list[tuple[dict[str, Any], Outcome]] = field(default_factory=list)
    is_out: bool = False
    is_given: bool = False
    """Whether its setting was given, not chosen here."""

    @property
    def has_ended(self) -> bool:
        """Whether one of its trials came to its end."""
        return any(not outcome.failed for _, outcome in self.tried)

    def estimate(self, config: dict[str, Any], data: TrainingData, pace: Pace) -> float:
        """Return the wall seconds that a trial is expected to take; NaN where nothing is known."""
        estimate = getattr(self.module, "estimate_seconds", None)
        said = estimate(data, self.module.Config(**config)) if estimate else math.nan
        tried = [(c, outcome) for c, outcome in self.tried if not outcome.failed] or self.tried
        if not tried:
            return said * pace.slowness + pace.judging
        if not estimate:
            return max(outcome.wall_seconds for _, outcome in tried)
        rate = max(outcome.wall_seconds / max(estimate(data, self.module.Config(**c)), 1e-3) for c, outcome in tried)
        return said * rate

    def take(self, config: dict[str, Any], outcome: Outcome, data: TrainingData, pace: Pace) -> None:
        """Learn how a trial went. After one that failed those go on that are expected to take at most half as long."""
        self.tried.append((config, outcome))
        if outcome.failed:
            enough = CHEAPER * self.estimate(config, data, pace)
            self.waiting = [one for one in self.waiting if self.estimate(one, data, pace) <= enough]
            self.is_out = not self.waiting

    def begin_with_what_fits(self, data: TrainingData, pace: Pace, seconds: float) -> None:
        """Put the first trial that is expected to take no more than these seconds to the front; where there is none,
        the cheapest. The others keep their order."""
        expected = [self.estimate(config, data, pace) for config in self.waiting]
        fitting = [place for place, taken in enumerate(expected) if not taken > seconds]
        place = fitting[0] if fitting else int(np.argmin(expected))
        self.waiting.insert(0, self.waiting.pop(place))

    def last_resort(self, data: TrainingData, pace: Pace, seconds: float) -> dict[str, Any]:
        """Return the setting to fit untuned: one that was not tried, where one is left, that takes half of the time."""
        self.waiting = self.waiting or [config for config, _ in self.tried]
        self.begin_with_what_fits(data, pace, seconds / 2)
        return self.waiting[0]

    @property
    def least_share(self) -> float:
        """Share of the expected seconds below which a fit is not worth beginning."""
        return LEAST_SHARE if getattr(self.module, "STOPS_IN_TIME", False) else 1.0

    def best(self, metric: str) -> float:
        return max((outcome.metrics[metric] for _, outcome in self.tried if not outcome.failed), default=-math.inf)
