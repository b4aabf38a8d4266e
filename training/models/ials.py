"""iALS: implicit matrix factorisation by alternating least squares, with frequency-scaled regularisation.

Hu, Koren, Volinsky 2008, "Collaborative Filtering for Implicit Feedback Datasets"; regularisation, and that it competes
when tuned: Rendle, Krichene, Zhang, Koren 2021, "Revisiting the Performance of iALS on Item Recommendation
Benchmarks". The loss is Σ_observed w (1 - u·v)² + α0 Σ_all (u·v)² + λ Σ_u (Σ w + α0 I)^ν ‖u‖² + the same for items,
where an event of `half_life_days` before the cut weighs half.

At serving a user is solved from the history with weights that fall with age: what comes next resembles what came last.
Chosen on the validation parts of MovieLens 1M / latest-small (a second temporal split inside train), ndcg@10: recency
exponent 0 .19 / .22, .75 .258 / .243, 1 .264 / .227; half-life none .226, 1500 days .243, 365 .226 on latest-small;
α0 .1, .3, 1, 3 at exponent 1 .21, .24, .264, .24 on 1M; 96 or 128 factors no more than 64; 8 epochs no more than 6.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.dataset import TrainingData
from training.model import ModelConfig, Parts, Workplace, popularity

FRAMEWORK = "numpy"
FEATURES: tuple[str, ...] = ()
TRIALS = (
    {"embedding_size": 64, "epochs": 8, "unobserved_weight": 0.3, "reg": 0.003},
    {"embedding_size": 128, "epochs": 8, "unobserved_weight": 0.3, "reg": 0.003},
    {"embedding_size": 64, "epochs": 8, "unobserved_weight": 1.0, "reg": 0.003},
    {"embedding_size": 64, "epochs": 8, "unobserved_weight": 0.1, "reg": 0.003},
)
BLOCK_FLOATS = 4_000_000
"""Largest gathered block (users × history × factors): 16 MB."""


class Config(ModelConfig):
    embedding_size: int = 64
    epochs: int = 6
    unobserved_weight: float = 1.0
    reg: float = 0.003
    reg_exponent: float = 1.0
    recency_exponent: float = 0.75
    half_life_days: float = 1500.0


@dataclass(frozen=True)
class IALS:
    item_vectors: np.ndarray  # (I, D)
    counts: np.ndarray  # (I,)
    config: Config

    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        lengths = [len(history) for history in histories]
        weights = [(1.0 + np.arange(length)[::-1]) ** -self.config.recency_exponent for length in lengths]
        users = np.zeros((len(histories), self.item_vectors.shape[1]), np.float32)  # (B, D)
        rows = np.repeat(np.arange(len(histories)), lengths)
        of_users = Rows(
            rows, np.concatenate(histories), np.concatenate(weights).astype(np.float32), len(users), users.shape[1]
        )
        solve_side(users, self.item_vectors, of_users, self.config)
        return users @ self.item_vectors.T  # (B, I)

    def parts(self) -> Parts:
        arrays = {
            "popularity": self.counts,
            "item_vectors": self.item_vectors,
            "gram": self.item_vectors.T @ self.item_vectors,
        }
        shared = ("unobserved_weight", "reg", "reg_exponent", "recency_exponent")
        return Parts("ials", arrays, settings={name: getattr(self.config, name) for name in shared})

    def save_native(self, folder: Path) -> None:
        np.save(folder / "item_vectors.npy", self.item_vectors)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> IALS:
    """Alternate between all users and all items. Items without a training event get the zero vector."""
    rows = np.concatenate(data.sequences())  # each pair of user and item once
    _, users = np.unique(data.users[rows], return_inverse=True)
    items = data.items[rows]
    weights = (0.5 ** ((data.cut_at - data.instants[rows]) / 86_400_000 / config.half_life_days)).astype(np.float32)
    n_users, size = users.max() + 1, config.embedding_size

    rng = np.random.default_rng(seed)
    item_vectors = rng.normal(0, 0.1 / np.sqrt(size), (data.n_items, size)).astype(np.float32)  # (I, D)
    item_vectors[np.bincount(items, minlength=data.n_items) == 0] = 0
    user_vectors = np.zeros((n_users, size), np.float32)  # (U, D)
    of_users = Rows(users, items, weights, n_users, size)
    of_items = Rows(items, users, weights, data.n_items, size)
    for _ in range(config.epochs):
        solve_side(user_vectors, item_vectors, of_users, config)
        solve_side(item_vectors, user_vectors, of_items, config)
    if not data.is_ordered:
        config = config.model_copy(update={"recency_exponent": 0.0})
    return IALS(item_vectors, popularity(data), config)


class Rows:
    """The interactions of one side in compressed rows, and its row numbers in blocks of about equal length."""

    def __init__(self, rows: np.ndarray, others: np.ndarray, weights: np.ndarray, n_rows: int, size: int):
        by_row = np.argsort(rows, kind="stable")
        self.others, self.weights = others[by_row], weights[by_row]
        self.lengths = np.bincount(rows, minlength=n_rows)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.blocks: list[np.ndarray] = []
        by_length = np.argsort(self.lengths, kind="stable")
        by_length = by_length[self.lengths[by_length] > 0]
        lengths, first = self.lengths[by_length], 0
        while first < len(by_length):
            longest = max(lengths[first] * 1.15, lengths[first] + 4)  # bounds the padding
            last = int(np.searchsorted(lengths, longest, side="right"))
            last = min(last, first + max(1, BLOCK_FLOATS // int(max(longest, size) * size)))
            self.blocks.append(by_length[first:last])
            first = last

    def gather(self, block: np.ndarray, padding: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the other side's numbers and the weights of these rows, padded with weight zero. Both (B, L)"""
        places = np.arange(self.lengths[block].max())[None]  # (1, L)
        inside = places < self.lengths[block, None]  # (B, L)
        at = np.where(inside, self.starts[block, None] + places, 0)
        return np.where(inside, self.others[at], padding), np.where(inside, self.weights[at], np.float32(0))


def solve_side(solved: np.ndarray, fixed: np.ndarray, rows: Rows, config: Config) -> None:
    """Replace each vector of one side by its least-squares solution against the other side."""
    alpha, size = np.float32(config.unobserved_weight), fixed.shape[1]
    gram = alpha * (fixed.T @ fixed)  # (D, D)
    padded = np.vstack([fixed, np.zeros((1, size), np.float32)])  # a last row of zeros to pad with
    diagonal = np.arange(size)
    for block in rows.blocks:
        others, weights = rows.gather(block, len(fixed))  # (B, L)
        vectors = padded[others]  # (B, L, D)
        weighted = (vectors * weights[..., None]).transpose(0, 2, 1)  # (B, D, L)
        left = weighted @ vectors + gram  # (B, D, D)
        frequency = weights.sum(1) + alpha * len(fixed)  # (B,)
        left[:, diagonal, diagonal] += (config.reg * frequency**config.reg_exponent)[:, None]
        solved[block] = np.linalg.solve(left, weighted.sum(-1)[..., None])[..., 0]
