"""Many questions at once: p-values that stay honest when several of them are read."""

from collections.abc import Mapping

import numpy as np
from scipy import stats


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return adjusted p-values: whoever rejects those below α rejects a true one in at most α of all families.

    Holm 1979. Valid under any dependence, and for always-valid p-values too.
    """
    names = sorted(p_values, key=p_values.__getitem__)
    adjusted, largest = {}, 0.0
    for position, name in enumerate(names):
        largest = max(largest, min(1.0, (len(names) - position) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def benjamini_hochberg(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return adjusted p-values: of those below q, at most the share q is expected to be false.

    Benjamini and Hochberg 1995; for independent or positively dependent metrics. For the many secondary metrics that
    are looked through for ideas.
    """
    if not p_values:
        return {}
    adjusted = stats.false_discovery_control(np.array(list(p_values.values())))
    return dict(zip(p_values, adjusted.tolist(), strict=True))
