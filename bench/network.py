"""The graph of a million edges: how long all that the network job measures takes, and its memory, in a fresh process.

    python -m bench.network

The graph is drawn with the unevenness of real catalogues: users' activity log-normal, items' popularity a Zipf law with
exponent 0.9, and eight planted communities in which four of five edges stay. A second row is of MovieLens 1M where its
ratings file is given with `--ratings PATH`.
"""

import argparse
import resource
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import pandas as pd

from bench.results import publish
from training.analytics import network

EDGES, USERS, ITEMS, PLANTED = 1_000_000, 120_000, 40_000, 8
TARGET_SECONDS = 60


def drawn(seed: int) -> pd.DataFrame:
    """Return a million different pairs (user_id, item_id)."""
    rng = np.random.default_rng(seed)
    activity, popularity = rng.lognormal(0, 1.2, USERS), 1 / np.arange(1, ITEMS + 1) ** 0.9
    home_of_user, home_of_item = rng.integers(PLANTED, size=USERS), rng.permutation(np.arange(ITEMS) % PLANTED)
    pairs = np.empty((0, 2), np.int64)
    shelves = [np.flatnonzero(home_of_item == home) for home in range(PLANTED)]
    while len(pairs) < EDGES:
        user = rng.choice(USERS, 2 * EDGES, p=activity / activity.sum())
        item = rng.choice(ITEMS, 2 * EDGES, p=popularity / popularity.sum())
        at_home = rng.random(2 * EDGES) < 0.8
        for home, shelf in enumerate(shelves):
            mine = at_home & (home_of_user[user] == home)
            item[mine] = rng.choice(shelf, mine.sum(), p=popularity[shelf] / popularity[shelf].sum())
        pairs = np.unique(np.vstack([pairs, np.column_stack([user, item])]), axis=0)
    kept = pairs[rng.permutation(len(pairs))[:EDGES]]
    return pd.DataFrame({"user_id": kept[:, 0].astype(str), "item_id": kept[:, 1].astype(str)})


def measured(name: str, pairs: pd.DataFrame) -> dict:
    """Run all that the job does on these pairs, once."""
    liked = pd.Series([[]] * pairs["item_id"].nunique(), index=pairs["item_id"].unique())
    started, cpu = perf_counter(), process_time()
    found = network.analyse(pairs, seed=1)
    between = network.links(found)
    network.communities(found, liked, between, seed=1)
    network.nodes(found, pd.Series(dtype=str))
    seconds, cpu = perf_counter() - started, process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    told = found.measures
    return {
        "measure": f"{name}: {len(pairs):,} edges, {told['users']:,.0f} users, {told['items']:,.0f} items",
        "target": f"under {TARGET_SECONDS} s: {'met' if seconds < TARGET_SECONDS else 'MISSED'}",
        "measured": f"{seconds:.1f} s ({cpu:.1f} CPU s), peak {peak:.2f} GiB; {told['communities']:.0f} communities, "
        f"modularity {told['modularity']:.3f}, {told['cut_vertices']:.0f} cut vertices",
        "command": "python -m bench.network",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", type=Path, help="ratings.dat of MovieLens 1M")
    arguments = parser.parse_args()
    rows = [measured("made up", drawn(seed=1))]
    if arguments.ratings:
        told = pd.read_csv(
            arguments.ratings, sep="::", engine="python", names=["user_id", "item_id", "r", "t"], dtype=str
        )
        rows.append(measured("MovieLens 1M", told[["user_id", "item_id"]].drop_duplicates()))
    publish(
        "network",
        "The graph of users and items",
        rows,
        "Leiden communities, PageRank, participation, exact cut vertices, assortativity, components, the map and the "
        "first nodes: all that `python -m training.analytics network` does but reading and writing tables. One thread.",
    )


if __name__ == "__main__":
    main()
