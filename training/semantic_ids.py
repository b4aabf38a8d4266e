"""Semantic ids: an item's name is a few codes, and items that mean the same share the first of them.

Rajput et al. 2023, "Recommender Systems with Generative Retrieval" (TIGER) quantises text vectors level by level, each
level what the ones before left over. Here the levels are k-means on the residuals instead of a trained RQ-VAE, some CPU
seconds for ten thousand items, and the last level hands out its codes one to one among the items that share all others
(the cheapest assignment), so an id names one item without an extra code for collisions. Shapes: I items, E numbers a
vector, C codes a level, S levels.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from recsys.errors import UnusableInput


@dataclass(frozen=True)
class Trie:
    """The real ids as a tree: what may follow what, and which item stands at the end."""

    codes: np.ndarray
    """Each item's id. int64 (I, S)"""
    children: tuple[np.ndarray, ...]
    """A level's nodes by codes: the node below, at the last level the item, -1 where there is none. int64 (N_s, C)"""

    @classmethod
    def of(cls, codes: np.ndarray, n_codes: int) -> "Trie":
        """Build the tree of these ids.

        Raises:
            ValueError: two items have one id, or a code is none.
        """
        if codes.min() < 0 or codes.max() >= n_codes:
            raise ValueError(f"codes from {codes.min()} to {codes.max()}, of {n_codes}")
        parent, children = np.zeros(len(codes), np.int64), []
        for level in range(codes.shape[1]):
            place = parent * n_codes + codes[:, level]
            known, node = np.unique(place, return_inverse=True)
            table = np.full((parent.max() + 1, n_codes), -1, np.int64)
            is_last = level == codes.shape[1] - 1
            if is_last and len(known) < len(codes):
                raise ValueError(f"{len(codes) - len(known)} items share their id with another")
            table.reshape(-1)[place] = np.arange(len(codes)) if is_last else node
            children.append(table)
            parent = node
        return cls(codes, tuple(children))


def semantic_ids(vectors: np.ndarray, levels: int, n_codes: int, seed: int, rounds: int = 25) -> np.ndarray:
    """Return an id a vector, each another. (I, E) → int64 (I, levels)

    Raises:
        UnusableInput: more items share all codes but the last than there are codes.
    """
    rest = vectors.astype(np.float64)
    codes = np.empty((len(vectors), levels), np.int64)
    for level in range(levels):
        centres = kmeans(rest, n_codes, np.random.default_rng([seed, level]), rounds)
        nearest = squared_distances(rest, centres).argmin(1)
        codes[:, level] = nearest
        if level < levels - 1:
            rest = rest - centres[nearest]
    _, group = np.unique(codes[:, :-1], axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(members) > n_codes:
            raise UnusableInput(
                "semantic ids", f"{len(members)} items share a prefix, a level has {n_codes} codes", "Take more codes"
            )
        if len(np.unique(codes[members, -1])) < len(members):
            distances = squared_distances(rest[members], padded(centres, n_codes))
            codes[members, -1] = linear_sum_assignment(distances)[1]
    return codes


def kmeans(vectors: np.ndarray, n_codes: int, rng: np.random.Generator, rounds: int) -> np.ndarray:
    """Return up to `n_codes` centres. Whoever has lost all members is set on one of the worst served vectors. (C, E)"""
    count = min(n_codes, len(np.unique(vectors, axis=0)))
    centres = vectors[rng.choice(len(vectors), count, replace=False)].copy()
    for _ in range(rounds):
        distances = squared_distances(vectors, centres)
        nearest = distances.argmin(1)
        sizes = np.bincount(nearest, minlength=count)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, vectors)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
        if (empty := np.flatnonzero(sizes == 0)).size:
            worst = np.argsort(-distances[np.arange(len(vectors)), nearest], kind="stable")[: len(empty)]
            centres[empty] = vectors[worst]
    return centres


def squared_distances(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the squared distance of each vector to each centre. (I, C)"""
    return (vectors**2).sum(1)[:, None] - 2 * vectors @ centres.T + (centres**2).sum(1)


def padded(centres: np.ndarray, n_codes: int) -> np.ndarray:
    """Return the centres and, for codes that k-means left unused, points far from all. (C, E)"""
    far = np.full((n_codes - len(centres), centres.shape[1]), 1e3)
    return np.concatenate([centres, far])
