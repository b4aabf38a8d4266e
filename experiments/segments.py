"""The effect in each segment, pulled towards the effect in all: the largest of many noisy effects is mostly noise."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import optimize

from experiments.estimates import Effect, Estimate, quantile


@dataclass(frozen=True)
class Shrunk:
    """One segment's effect, before and after."""

    raw: Effect
    shrunk: Estimate


def shrink(effects: dict[str, Effect], confidence: float = 0.95) -> dict[str, Shrunk]:
    """Return empirical-Bayes effects: effect_s ~ N(truth_s, variance_s) and truth_s ~ N(mean, τ²).

    τ² is Paule and Mandel's estimate (1982): the one at which Σ (effect - mean)² / (variance + τ²) is one less than
    there are segments, and zero where even τ² = 0 leaves less than that. The interval is the posterior's, widened by
    what is not known of the mean (Morris 1983). A segment without variance cannot be weighed and is left out.
    """
    known = {name: effect for name, effect in effects.items() if effect.variance > 0}
    if not known:
        return {}
    values = np.array([effect.value for effect in known.values()])  # (S,)
    variances = np.array([effect.variance for effect in known.values()])
    spread = between_variance(values, variances)
    weights = 1 / (variances + spread)
    mean, mean_variance = float(weights @ values / weights.sum()), float(1 / weights.sum())
    kept = spread / (variances + spread)  # of its own value, each segment keeps this share
    found = {}
    for (name, raw), keep, variance in zip(known.items(), kept.tolist(), variances.tolist(), strict=True):
        centre = keep * raw.value + (1 - keep) * mean
        half = quantile(confidence) * sqrt(keep * variance + (1 - keep) ** 2 * mean_variance)
        found[name] = Shrunk(raw, Estimate(centre, centre - half, centre + half))
    return found


def between_variance(values: np.ndarray, variances: np.ndarray) -> float:
    """Return Paule and Mandel's τ², how much the true effects differ. Both (S,)."""

    def surplus(spread: float) -> float:
        weights = 1 / (variances + spread)
        mean = weights @ values / weights.sum()
        return float(weights @ (values - mean) ** 2) - (len(values) - 1)

    if len(values) < 2 or surplus(0.0) <= 0:
        return 0.0
    high = float(((values - values.mean()) ** 2).sum())
    while surplus(high) > 0:
        high *= 2
    return float(optimize.brentq(surplus, 0.0, high))
