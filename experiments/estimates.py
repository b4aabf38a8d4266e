"""Metrics of one variant and what sets two variants apart: pure functions over one number a user.

Users are assigned and users are independent; impressions of one user are not. So every metric is a ratio of two sums
over users, Σ y / Σ w (a mean has w = 1), and every variance is over users, by the delta method (Deng, Knoblich and Lu
2018, "Applying the delta method in metric analytics"). Shapes: N users.
"""

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval; the bounds are None where there are too few data for one."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def excludes(self, value: float) -> bool:
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


@dataclass(frozen=True)
class Reading:
    """One metric of one variant; no `value` without anything to divide by, no `variance` with fewer than two users."""

    users: int
    value: float | None
    variance: float | None
    """Of `value`, not of a user."""


def ratio(y: np.ndarray, w: np.ndarray) -> Reading:
    """Return Σ y / Σ w with its variance, k/(k-1) · Σ (y - R·w)² / (Σ w)² over k users.

    Args:
        y: what is counted of each user (clicks). (N,)
        w: what it is divided by (impressions; ones for a mean per user). Not negative. (N,)

    Raises:
        ValueError: the arrays differ in length, or hold a number that is not finite.
    """
    y, w = np.asarray(y, float), np.asarray(w, float)
    if y.shape != w.shape or y.ndim != 1:
        raise ValueError(f"y {y.shape} and w {w.shape} must be equally long")
    if not (np.isfinite(y).all() and np.isfinite(w).all()):
        raise ValueError("a metric holds a number that is not finite")
    users, total = len(y), float(w.sum())
    if total == 0:
        return Reading(users, None, None)
    value = float(y.sum()) / total
    if users < 2:
        return Reading(users, value, None)
    return Reading(users, value, float(users / (users - 1) * ((y - value * w) ** 2).sum() / total**2))


@dataclass(frozen=True)
class Effect:
    """How far two variants are apart, and how sure that is."""

    value: float
    variance: float
    users: int
    """Of both variants together: the clock of the sequential intervals."""

    @property
    def z(self) -> float | None:
        return self.value / sqrt(self.variance) if self.variance > 0 else None

    @property
    def p_value(self) -> float:
        """Of a single look at a horizon that was fixed beforehand; 1 where nothing varies."""
        return 1.0 if self.z is None else float(2 * stats.norm.sf(abs(self.z)))

    def interval(self, confidence: float = 0.95) -> Estimate:
        """Return the interval of a single look at a horizon that was fixed beforehand."""
        half = quantile(confidence) * sqrt(self.variance)
        return Estimate(self.value, self.value - half, self.value + half)


def difference(treatment: Reading, control: Reading) -> Effect | None:
    """Return treatment - control, or None where either is unknown."""
    if treatment.variance is None or control.variance is None:
        return None
    return Effect(
        treatment.value - control.value, treatment.variance + control.variance, treatment.users + control.users
    )


def log_lift(treatment: Reading, control: Reading) -> Effect | None:
    """Return the logarithm of treatment / control, or None where either is unknown or not above zero: an interval of it
    never promises less than -100 %."""
    if treatment.variance is None or control.variance is None or treatment.value <= 0 or control.value <= 0:
        return None
    variance = treatment.variance / treatment.value**2 + control.variance / control.value**2
    return Effect(log(treatment.value / control.value), variance, treatment.users + control.users)


def as_lift(estimate: Estimate) -> Estimate:
    """Return a logarithm of a ratio, and its bounds, as relative lift: ratio - 1."""
    low, high = (None if bound is None else exp(bound) - 1 for bound in (estimate.low, estimate.high))
    return Estimate(None if estimate.value is None else exp(estimate.value) - 1, low, high)


def cuped(y: np.ndarray, w: np.ndarray, covariate: np.ndarray, arms: np.ndarray) -> np.ndarray:
    """Return y with what the covariate explains taken out: y' = y - θ (x - x̄), so that Σ y' / Σ w of each variant moves
    by what chance dealt it of x. Of a mean the variance falls to 1 - ρ² of the old one.

    Deng, Xu, Kohavi and Walker 2013, "Improving the sensitivity of online controlled experiments by utilizing
    pre-experiment data". θ is that of the linearised metric, y - R·w, within the variants, so that no effect of the
    treatment enters it.

    Args:
        covariate: what is known of each user from before the first exposure; nothing later. (N,)
        arms: variant of each user, any labels. (N,)
    """
    y, w, x = (np.asarray(values, float) for values in (y, w, covariate))
    if not len(y) or w.sum() == 0:
        return y
    residual, centred = np.empty(len(y)), np.empty(len(y))
    for arm in np.unique(arms):
        rows = arms == arm
        total = w[rows].sum()
        residual[rows] = y[rows] - (y[rows].sum() / total * w[rows] if total else 0.0)
        centred[rows] = x[rows] - x[rows].mean()
    squares = float(centred @ centred)
    if squares == 0:
        return y
    return y - float(residual @ centred) / squares * (x - x.mean())


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """Return a proportion with Wilson's score interval (1927); it needs no minimum of data. None without trials."""
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if trials == 0:
        return Estimate(None)
    bounds = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Estimate(successes / trials, float(bounds.low), float(bounds.high))


def quantile(confidence: float) -> float:
    """Return how many standard errors an interval of this confidence reaches to each side."""
    return float(stats.norm.ppf(0.5 + confidence / 2))
