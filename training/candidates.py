"""The items among which a batch's targets are to be found, and with what chance each came in: the logQ correction.

Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", with even draws beside
the batch's own targets. NumPy alone, for every framework.
"""

import numpy as np


def draw(
    targets: np.ndarray, share: np.ndarray, negatives: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw for these targets, (P,): all of them, and `negatives` items evenly; as many as there are items or more: all.

    Args:
        share: of each item among all targets. (I,)

    Returns:
        the items ascending, int64 (N,), each target's row in them, (P,), and log of the chance with which a batch of
        as many targets holds an item, float32 (N,).
    """
    n_items = len(share)
    if negatives >= n_items:
        return np.arange(n_items), targets, np.zeros(n_items, np.float32)
    is_in = np.zeros(n_items, bool)
    is_in[targets] = is_in[rng.integers(0, n_items, negatives)] = True
    items = np.flatnonzero(is_in)
    row = np.cumsum(is_in) - 1  # (I,)
    missed = negatives * np.log1p(-1 / n_items) + len(targets) * np.log1p(-np.minimum(share[items], 0.999))
    return items, row[targets], np.log(-np.expm1(missed)).astype(np.float32)
