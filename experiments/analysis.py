"""The statistics of one experiment: pure functions over sums, so that a billion impressions are as easy as ten.

Users are assigned and users are independent; impressions of one user are not. So every variance here is over users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from scipy import stats

MIN_EXPECTED_USERS = 5
"""Below so many expected users in a variant, the chi-square distribution is no approximation."""
SAMPLE_RATIO_ALARM = 0.001
MIN_USERS = 30
"""Below so many users in a variant, the normal intervals promise more than they keep."""


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval; the bounds are None where there are too few data for one."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def excludes(self, value: float) -> bool:
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


@dataclass(frozen=True)
class Arm:
    """Sums over the users of one variant, of clicks c and impressions n of each."""

    users: int = 0
    clicked_users: int = 0
    clicks: int = 0
    impressions: int = 0
    clicks_squared: int = 0
    clicks_times_impressions: int = 0
    impressions_squared: int = 0

    @classmethod
    def of(cls, clicks: np.ndarray, impressions: np.ndarray) -> "Arm":
        """Sum up users given one by one. Both (users,)."""
        c, n = np.asarray(clicks, np.int64), np.asarray(impressions, np.int64)
        sums = len(c), (c > 0).sum(), c.sum(), n.sum(), (c * c).sum(), (c * n).sum(), (n * n).sum()
        return cls(*(int(value) for value in sums))

    @property
    def ctr(self) -> float | None:
        """Clicks by impressions; None without impressions."""
        return self.clicks / self.impressions if self.impressions else None

    @property
    def ctr_variance(self) -> float | None:
        """Variance of `ctr` by the delta method, clustered by user (Deng, Knoblich and Lu 2018): with R the ratio and k
        users, k/(k-1) · Σ(c - R·n)² / (Σn)². None with fewer than two users."""
        if self.users < 2 or self.ctr is None:
            return None
        ratio = self.ctr
        squares = self.clicks_squared - 2 * ratio * self.clicks_times_impressions + ratio**2 * self.impressions_squared
        return self.users / (self.users - 1) * max(squares, 0.0) / self.impressions**2


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """Return a proportion with Wilson's score interval (1927); it needs no minimum of data. None without trials."""
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if trials == 0:
        return Estimate(None)
    bounds = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Estimate(successes / trials, float(bounds.low), float(bounds.high))


def proportions_z(successes: tuple[int, int], trials: tuple[int, int]) -> float | None:
    """Return the z statistic of two proportions being equal, with pooled variance; None where it is undefined."""
    pooled = sum(successes) / sum(trials) if sum(trials) else 0.0
    variance = pooled * (1 - pooled) * sum(1 / n for n in trials) if all(trials) else 0.0
    if variance == 0:
        return None
    return (successes[0] / trials[0] - successes[1] / trials[1]) / sqrt(variance)


def sample_ratio(users: Mapping[str, int], weights: Mapping[str, float]) -> float | None:
    """Return the p-value of so many users in each variant under these weights (chi-square, one degree less than there
    are variants). None with too few users to say.

    A variant that users saw and that the weights do not give anybody has the p-value 0.
    """
    if any(count and not weights.get(variant) for variant, count in users.items()):
        return 0.0
    total = sum(users.values())
    variants = [variant for variant, weight in weights.items() if weight]
    expected = [total * weights[variant] for variant in variants]
    if len(variants) < 2 or min(expected) < MIN_EXPECTED_USERS:
        return None
    return float(stats.chisquare([users.get(variant, 0) for variant in variants], expected).pvalue)


def click_through(arm: Arm, confidence: float = 0.95) -> Estimate:
    """Return the click-through rate of a variant with its interval."""
    if arm.ctr is None or arm.ctr_variance is None:
        return Estimate(arm.ctr)
    half = _quantile(confidence) * sqrt(arm.ctr_variance)
    return Estimate(arm.ctr, arm.ctr - half, arm.ctr + half)


def difference(treatment: Arm, control: Arm, confidence: float = 0.95) -> Estimate:
    """Return the difference of two click-through rates with its interval."""
    if treatment.ctr is None or control.ctr is None:
        return Estimate(None)
    value = treatment.ctr - control.ctr
    if treatment.ctr_variance is None or control.ctr_variance is None:
        return Estimate(value)
    half = _quantile(confidence) * sqrt(treatment.ctr_variance + control.ctr_variance)
    return Estimate(value, value - half, value + half)


def lift(treatment: Arm, control: Arm, confidence: float = 0.95) -> Estimate:
    """Return the relative lift, treatment / control - 1, with its interval from the logarithm of the ratio, so that it
    never promises less than -100 %. None where either rate is zero or unknown."""
    if not treatment.ctr or not control.ctr:
        return Estimate(None)
    ratio = treatment.ctr / control.ctr
    if treatment.ctr_variance is None or control.ctr_variance is None:
        return Estimate(ratio - 1)
    error = sqrt(treatment.ctr_variance / treatment.ctr**2 + control.ctr_variance / control.ctr**2)
    half = _quantile(confidence) * error
    return Estimate(ratio - 1, exp(log(ratio) - half) - 1, exp(log(ratio) + half) - 1)


def conclusion(names: tuple[str, str], treatment: Arm, control: Arm, ratio_p: float | None) -> str:
    """Return what this experiment says, in plain words: first whether it can be trusted, then what it found.

    Args:
        names: of the treatment and of the control.
        ratio_p: what `sample_ratio` said.
    """
    tested, against = names
    if ratio_p is not None and ratio_p < SAMPLE_RATIO_ALARM:
        return (
            f"Do not read this experiment: the users are not split as configured (p = {ratio_p:.2g}). "
            "Find out who is missing before comparing anything."
        )
    if not treatment.impressions and not control.impressions:
        return "Nothing was shown yet, so there is nothing to compare."
    if min(treatment.users, control.users) < MIN_USERS:
        return (
            f"Too early: {treatment.users} users of {tested} and {control.users} of {against}; "
            f"at least {MIN_USERS} each are needed."
        )
    found, relative = difference(treatment, control), lift(treatment, control)
    interval = "" if relative.low is None else f", 95 % interval {relative.low:+.1%} to {relative.high:+.1%}"
    size = "" if relative.value is None else f" ({relative.value:+.1%}{interval})"
    rates = f"{treatment.ctr:.2%} of what {tested} showed was clicked, {control.ctr:.2%} of {against}"
    if not found.excludes(0):
        return f"No difference shown: {rates}{size}. Either they are alike or more users are needed."
    better = "more" if found.value > 0 else "less"
    return f"{tested} is clicked {better} than {against}: {rates}{size}."


def _quantile(confidence: float) -> float:
    return float(stats.norm.ppf(0.5 + confidence / 2))
