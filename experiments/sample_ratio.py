"""Sample-ratio mismatch: were the users dealt as declared? Asked first; nothing else is read when it alarms."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

import numpy as np
from scipy import special, stats

ALARM = 0.001
"""In at most so many of all right splits the alarm ever goes off, however often somebody looks."""
CONCENTRATIONS = (100.0, 1_000.0, 10_000.0)
"""How near to the declared shares the alternatives expect the true ones: the Dirichlets' total weights. Large faults
show early, small ones late."""
MIN_EXPECTED_USERS = 5
"""Below so many expected users in a variant, the chi-square distribution is no approximation."""


@dataclass(frozen=True)
class SampleRatio:
    """Both are p-values; small says that the users are not split as declared."""

    always_valid: float
    chi_square: float | None
    """For a single look; None with too few users to say."""

    @property
    def is_alarm(self) -> bool:
        return self.always_valid < ALARM


def sample_ratio(users: Mapping[str, int], shares: Mapping[str, float]) -> SampleRatio:
    """Judge so many users in each variant under these shares.

    A variant that users saw and that the shares give to nobody has the p-value 0.
    """
    if any(count and not shares.get(variant) for variant, count in users.items()):
        return SampleRatio(0.0, 0.0)
    variants = [variant for variant, share in shares.items() if share]
    counts = np.array([users.get(variant, 0) for variant in variants], float)  # (V,)
    expected_shares = np.array([shares[variant] for variant in variants])
    if len(variants) < 2 or not counts.sum():
        return SampleRatio(1.0, None)
    expected = counts.sum() * expected_shares
    single = None if expected.min() < MIN_EXPECTED_USERS else float(stats.chisquare(counts, expected).pvalue)
    return SampleRatio(float(always_valid_p(counts, expected_shares)), single)


def always_valid_p(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the p-value of users in V variants, counted at any number of looks. (…, V), (V,) → (…)

    It is one over a Bayes factor: the probability of the counts under Dirichlets around the declared shares (each as
    likely), over that under the shares themselves. It is exact at any number of users, and by Ville's inequality it
    ever falls below α in at most α of all right splits (Lindon and Malek 2022, "Anytime-valid inference for multinomial
    count data").
    """
    declared = counts @ np.log(shares)
    priors = [concentration * shares for concentration in CONCENTRATIONS]
    log_factors = [_log_beta(prior + counts) - _log_beta(prior) - declared for prior in priors]
    log_factor = special.logsumexp(log_factors, axis=0) - log(len(CONCENTRATIONS))
    return np.exp(np.minimum(0.0, -log_factor))


def _log_beta(weights: np.ndarray) -> np.ndarray:
    return special.gammaln(weights).sum(-1) - special.gammaln(weights.sum(-1))
