"""Off-policy evaluation: what would another policy have earned, judged from the log of this one?

Shapes: M logged decisions. The log must have chosen by chance, and tell the probability of what it chose; what it never
chooses cannot be judged (the weights below are then zero, and the effective sample says so).
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from experiments.estimates import Estimate, quantile, ratio


@dataclass(frozen=True)
class Logged:
    """What was decided, by chance, and what came of it. All (M,)."""

    reward: np.ndarray
    propensity: np.ndarray
    """Probability with which the log chose what it chose; above zero."""
    target: np.ndarray
    """Probability with which the judged policy would have chosen the same."""
    users: np.ndarray
    """Whose decision it was: decisions of one user are not independent of each other."""

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.reward, self.propensity, self.target, self.users)}
        if len(lengths) != 1:
            raise ValueError(f"the columns of a log must be equally long, got lengths {sorted(lengths)}")
        if (self.propensity <= 0).any() or (self.propensity > 1).any():
            raise ValueError("a logged propensity must lie in (0, 1]: what had no chance was not chosen")

    def weights(self, cap: float = np.inf) -> np.ndarray:
        """Return target / propensity, at most `cap`: a cap trades variance for a bias towards zero. (M,)"""
        return np.minimum(self.target / self.propensity, cap)

    def effective_sample(self, cap: float = np.inf) -> float:
        """Return how many decisions of the judged policy itself would say as much: (Σ w)² / Σ w² (Kish)."""
        weights = self.weights(cap)
        squares = float((weights**2).sum())
        return float(weights.sum()) ** 2 / squares if squares else 0.0


def ips(log: Logged, cap: float = np.inf, confidence: float = 0.95) -> Estimate:
    """Return the mean of w · reward: unbiased, and as noisy as its weights are large (Horvitz and Thompson 1952)."""
    return _mean(log, log.weights(cap) * log.reward, np.ones(len(log.reward)), confidence)


def snips(log: Logged, cap: float = np.inf, confidence: float = 0.95) -> Estimate:
    """Return Σ w · reward / Σ w: hardly biased, never outside of the rewards' range, and mostly less noisy (Swaminathan
    and Joachims 2015). None where no logged decision could have been the judged policy's."""
    weights = log.weights(cap)
    return _mean(log, weights * log.reward, weights, confidence)


def dr(
    log: Logged, model_chosen: np.ndarray, model_target: np.ndarray, cap: float = np.inf, confidence: float = 0.95
) -> Estimate:
    """Return the mean of q(target) + w · (reward - q(chosen)): right if either the propensities or the model of the
    reward are (Dudík, Langford and Li 2011).

    Args:
        model_chosen: expected reward of what was chosen, by a model that did not see this reward. (M,)
        model_target: expected reward of what the judged policy chooses there, averaged over its choices. (M,)
    """
    terms = np.asarray(model_target) + log.weights(cap) * (log.reward - np.asarray(model_chosen))
    return _mean(log, terms, np.ones(len(terms)), confidence)


def _mean(log: Logged, y: np.ndarray, w: np.ndarray, confidence: float) -> Estimate:
    """Return Σ y / Σ w with its interval, clustered by user."""
    _, user = np.unique(log.users, return_inverse=True)
    reading = ratio(np.bincount(user, y), np.bincount(user, w)) if len(y) else ratio(y, w)
    if reading.variance is None:
        return Estimate(reading.value)
    half = quantile(confidence) * sqrt(reading.variance)
    return Estimate(reading.value, reading.value - half, reading.value + half)
