"""What time there is, and how long things take on this machine in this hour."""

from collections.abc import Callable
from time import perf_counter

import numpy as np

from training.benchmark.trial import Outcome
from training.cost import cpu_seconds

MORE_DATA = 1.5
"""So many times its trial's seconds are kept back for a model's last fit: it learns from all, and the machine may be
busier by then."""
MORE_ASKED = 1.2
"""So many times its trial's judgement of as many users is kept back for that of the test, which has more of them."""
FIT_SHARE = 0.75
"""Of the allowed seconds: what a model that stops in time may train for; the rest is for its start and its answers."""
FIRST_FIT_SHARE = 0.6
"""The same of a model that was not asked yet: some answer slower than they learn."""
LEAST_FIT = 0.3
"""Of the allowed seconds: what such a model trains for at least."""
UNKNOWN = 1.5
"""So many times the seconds of a quick model's answers are kept back for those of a model that was not asked yet."""
LAST_SECONDS = 2.0
"""Kept back for measuring and writing the result."""


class Budget:
    """Seconds of wall time, and of one processor a thread, since the command began; what is spent first counts."""

    def __init__(self, seconds: float, threads: int, started: float, clock: Callable[[], float] = perf_counter):
        self.seconds, self.threads, self.started, self.clock = seconds, threads, started, clock

    def left(self) -> float:
        return self.seconds - LAST_SECONDS - max(self.clock() - self.started, cpu_seconds() / self.threads)


class Pace:
    """What the trials so far say of this machine in this hour, and of the way from a trial to a last fit."""

    def __init__(self, more_users: float, asking: float = 0.0):
        """`more_users`: users of the test for each one of the validation part; `asking`: seconds that a quick model
        takes to answer to the latter."""
        self.more_users, self.quick, self.done = more_users, asking, []

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
        return min((one.judge_wall_seconds for one in self.done), default=self.quick)

    def asking(self, outcome: Outcome) -> float:
        """Return the wall seconds that asking a model about the test's users may take, by one of its trials."""
        return MORE_ASKED * max(1.0, self.more_users) * outcome.judge_wall_seconds

    def last(self, outcome: Outcome) -> float:
        """Return the wall seconds that a model's last fit may take, by one of its trials."""
        return MORE_DATA * (outcome.wall_seconds - outcome.judge_wall_seconds) + self.asking(outcome)

    def trial(self, left: float) -> float:
        """Return how long a trial may take so that its own last fit still ends in these seconds."""
        return (left - (MORE_ASKED * max(1.0, self.more_users) - MORE_DATA) * self.judging) / (1 + MORE_DATA)

    def fit(self, allowed: float, trial: Outcome | None, more_users: float = 1.0) -> float:
        """Return how long a model may train that is allowed so many seconds, so that it can be asked in what is left.

        Args:
            trial: an earlier one of the model, None where there is none.
            more_users: who are asked, for each one of the validation part.
        """
        asking = UNKNOWN * self.judging if trial is None else trial.judge_wall_seconds
        share = FIRST_FIT_SHARE if trial is None else FIT_SHARE
        return max(min(share * allowed, allowed - MORE_ASKED * max(1.0, more_users) * asking), LEAST_FIT * allowed)
