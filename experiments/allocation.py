"""Thompson sampling: more users for what looks better, while it is still uncertain (Thompson 1933; Russo et al. 2018).

An option, for when earning matters more than knowing: shares that follow the outcomes bias the plain averages, so such
an experiment's intervals are not read.
"""

from collections.abc import Mapping

import numpy as np

FLOOR = 0.01
"""No variant gets less: what is never shown can never be better."""
DRAWS = 20_000


def thompson_shares(
    successes: Mapping[str, int], trials: Mapping[str, int], seed: int, floor: float = FLOOR, draws: int = DRAWS
) -> dict[str, float]:
    """Return the share of users for each variant: the probability that its rate is the highest, given uniform priors.

    Args:
        successes: users who did it, by variant.
        trials: users, by variant; users and not impressions, for those are not independent.
        seed: of the draws from the posteriors.

    Raises:
        ValueError: there are no variants, more successes than trials, or a floor that cannot be kept.
    """
    names = list(trials)
    if not names or any(not 0 <= successes.get(name, 0) <= trials[name] for name in names):
        raise ValueError(f"successes {dict(successes)} of trials {dict(trials)}")
    if not 0 <= floor * len(names) <= 1:
        raise ValueError(f"a floor of {floor} for {len(names)} variants is more than everything")
    won = np.array([successes.get(name, 0) for name in names])
    lost = np.array([trials[name] for name in names]) - won
    sampled = np.random.default_rng(seed).beta(won + 1, lost + 1, (draws, len(names)))  # (draws, V)
    best = np.bincount(sampled.argmax(1), minlength=len(names)) / draws
    shares = floor + (1 - floor * len(names)) * best
    return dict(zip(names, (shares / shares.sum()).tolist(), strict=True))
