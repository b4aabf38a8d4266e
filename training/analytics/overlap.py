"""How the domains' users overlap, and whether taste crosses over.

users               in both domains; of the source's users, and of either's (Jaccard)
activity_cosine     similarity of the domains' embeddings: each domain is the vector of its users' log(1 + events)
taste_association   Cramér's V, bias-corrected (Bergsma 2013), between the favourite category in the source and in the
                    target, of users with at least `FEWEST_EVENTS` in both: 0 tells nothing, 1 everything. Categories
                    may bear other names. Null where fewer than `FEWEST_USERS` can be compared.
"""

from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import psycopg

from recsys.artifacts import AGG_USER_BEHAVIOUR, AGG_USER_CATEGORIES, DOMAIN_OVERLAP
from recsys.interval import Interval
from training.analytics.tables import read, replace

FEWEST_EVENTS = 3
FEWEST_USERS = 30


def cramers_v(one: np.ndarray, other: np.ndarray) -> float:
    """Return the bias-corrected association of two labels (N,), in [0, 1]; NaN where either has one value only."""
    table = pd.crosstab(one, other).to_numpy(float)
    n, (rows, columns) = table.sum(), table.shape
    if min(rows, columns) < 2:
        return float("nan")
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / n
    phi = max(0.0, ((table - expected) ** 2 / expected).sum() / n - (rows - 1) * (columns - 1) / (n - 1))
    fewest = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return float(min(1.0, np.sqrt(phi / fewest))) if fewest > 0 else float("nan")


def overlap(behaviour: pd.DataFrame, favourites: pd.DataFrame) -> pd.DataFrame:
    """Return one row per ordered pair of domains.

    Args:
        behaviour: domain, user_id, events.
        favourites: domain, user_id, category: the category that the user uses most there.
    """
    events = behaviour.pivot_table(index="user_id", columns="domain", values="events", aggfunc="sum", fill_value=0)
    liked = favourites.pivot(index="user_id", columns="domain", values="category")
    rows = []
    for source, target in permutations(events.columns, 2):
        one, other = events[source], events[target]
        both, either = (one > 0) & (other > 0), (one > 0) | (other > 0)
        compared = events.index[(one >= FEWEST_EVENTS) & (other >= FEWEST_EVENTS)]
        pairs = liked.reindex(index=compared, columns=[source, target]).dropna()
        vectors = np.log1p(one.to_numpy(float)), np.log1p(other.to_numpy(float))
        lengths = np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1])
        enough = len(pairs) >= FEWEST_USERS
        rows.append(
            {
                "source_domain": source,
                "target_domain": target,
                "users": int(both.sum()),
                "share_of_source": float(both.sum() / (one > 0).sum()),
                "jaccard": float(both.sum() / either.sum()),
                "activity_cosine": float(vectors[0] @ vectors[1] / lengths),
                "taste_association": cramers_v(pairs[source].to_numpy(), pairs[target].to_numpy()) if enough else None,
            }
        )
    return pd.DataFrame(rows)


def run(connection: psycopg.Connection, interval: Interval, seed: int) -> dict[str, Any]:
    """Compare the domains of the interval; nothing here is drawn, the seed is not needed."""
    domains = [list(interval.domains)]
    behaviour = read(
        connection, f"select domain, user_id, events from {AGG_USER_BEHAVIOUR} where domain = any(%s)", domains
    )
    favourites = read(
        connection,
        f"select distinct on (domain, user_id) domain, user_id, category from {AGG_USER_CATEGORIES}"
        " where domain = any(%s) order by domain, user_id, events desc, category",
        domains,
    )
    rows = overlap(behaviour, favourites)
    replace(connection, DOMAIN_OVERLAP, rows.assign(as_of=interval.as_of), interval.domains, "source_domain")
    return {"pairs": len(rows), "unchanged": False}
