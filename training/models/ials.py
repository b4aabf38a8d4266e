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

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg

from recsys.errors import CheckFailed
from training.dataset import TrainingData
from training.model import Between, ModelConfig, OneOf, Parts, Workplace, popularity, to_answer_with

FRAMEWORK = "numpy"
FEATURES: tuple[str, ...] = ()
STOPS_IN_TIME = True
log = logging.getLogger(__name__)
TRIALS = (
    {"embedding_size": 64, "epochs": 8, "unobserved_ratio": 10.0, "reg": 0.01, "fold_in_share": 0.35},
    {"embedding_size": 128, "epochs": 8, "unobserved_ratio": 5.0, "reg": 0.01, "fold_in_share": 0.35},
    {"embedding_size": 64, "epochs": 8, "unobserved_ratio": 20.0, "reg": 0.003},
    {"embedding_size": 128, "epochs": 8, "unobserved_ratio": 20.0, "reg": 0.01, "fold_in_share": 0.35},
    {"embedding_size": 64, "epochs": 8, "unobserved_ratio": 5.0, "reg": 0.003},
)
OF_DENSE_SETS = {"epochs": 8, "unobserved_weight": 0.3, "reg": 0.01, "fold_in_share": 0.5}
TRIALS_OF_SETS = (TRIALS[0], {"embedding_size": 128} | OF_DENSE_SETS, {"embedding_size": 64} | OF_DENSE_SETS, TRIALS[1])
"""Where events have no order. With a tenth of the training items held out, recall@20 / ndcg@20: UltraGCN's MovieLens 1M
by the first .2469 / .2026, by the second .2570 / .2086 (192 factors .2578 / .2092, λ .015 .2276 / .1883, α0 .2 .2604 /
.2064); KGAT's Amazon-book by the first .2080 / .1005, with α0 .3 .0441 / .0191: there many times more is unobserved."""
SPACE = {
    "embedding_size": OneOf((32, 64, 128)),
    "unobserved_weight": Between(0.03, 10.0, log=True),
    "reg": Between(0.0003, 0.1, log=True),
    "recency_exponent": Between(0.0, 1.5),
    "half_life_days": Between(30.0, 5000.0, log=True),
}


class Config(ModelConfig):
    embedding_size: int = 64
    epochs: int = 6
    unobserved_weight: float = 1.0
    unobserved_ratio: float = 0.0
    """Above zero: α0 is such that all pairs together weigh this many times what the observed ones do, whatever the size
    of the data."""
    reg: float = 0.003
    fold_in_share: float = 1.0
    """A user is solved at serving with this share of `reg`: what keeps the items from learning noise is more than what
    a user's own solution needs."""
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
        of_users = Rows(rows, np.concatenate(histories), np.concatenate(weights).astype(np.float32), len(users))
        solve_side(users, self.item_vectors, of_users, self.config, self.config.reg * self.config.fold_in_share)
        return users @ self.item_vectors.T  # (B, I)

    def parts(self) -> Parts:
        arrays = {
            "popularity": self.counts,
            "item_vectors": self.item_vectors,
            "gram": self.item_vectors.T @ self.item_vectors,
        }
        shared = ("unobserved_weight", "reg_exponent", "recency_exponent")
        settings = {name: getattr(self.config, name) for name in shared}
        return Parts("ials", arrays, settings={**settings, "reg": self.config.reg * self.config.fold_in_share})

    def save_native(self, folder: Path) -> None:
        np.save(folder / "item_vectors.npy", self.item_vectors)


def estimate_seconds(data: TrainingData, config: Config) -> float:
    """Measured on one core of 2026: .45 s an epoch for a million interactions of 10 000 users and items, 64 factors."""
    rows = len(np.unique(data.users)) + data.n_items
    size = config.embedding_size / 64
    return 1 + config.epochs * (0.25 * len(data.users) / 1e6 * size**1.3 + 0.2 * rows / 1e4 * size**1.5)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> IALS:
    """Alternate between all users and all items. Items without a training event get the zero vector."""
    item_vectors, config = alternate("ials", data, config, seed, workplace)
    return IALS(item_vectors, popularity(data), config)


def alternate(
    name: str,
    data: TrainingData,
    config: Config,
    seed: int,
    workplace: Workplace,
    prior_of: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> tuple[np.ndarray, Config]:
    """Return the items' vectors, zero of those without a training event, and the configuration to answer with.

    `prior_of`: what the vectors are drawn to instead of zero, from the vectors of the epoch before, (I, D), and what
    each item's λ weighs over `reg`, zero of those without an event, (I,).
    """
    rows = np.concatenate(data.sequences())  # each pair of user and item once
    _, users = np.unique(data.users[rows], return_inverse=True)
    items = data.items[rows]
    weights = (0.5 ** ((data.cut_at - data.instants[rows]) / 86_400_000 / config.half_life_days)).astype(np.float32)
    n_users, size = users.max() + 1, config.embedding_size
    if config.unobserved_ratio:
        alpha = config.unobserved_ratio * float(weights.sum()) / (n_users * data.n_items)
        config = config.model_copy(update={"unobserved_weight": alpha})

    rng = np.random.default_rng(seed)
    item_vectors = rng.normal(0, 0.1 / np.sqrt(size), (data.n_items, size)).astype(np.float32)  # (I, D)
    epochs, is_new = config.epochs, np.bincount(items, minlength=data.n_items) == 0
    if workplace.warm is not None:
        item_vectors, epochs = workplace.warm.begin(data.catalogue.item_id, item_vectors), workplace.warm.epochs(epochs)
    item_vectors[is_new] = 0
    user_vectors = np.zeros((n_users, size), np.float32)  # (U, D)
    of_users, of_items = Rows(users, items, weights, n_users), Rows(items, users, weights, data.n_items)
    ridge = np.where(is_new, 0.0, (of_items.total + config.unobserved_weight * n_users) ** config.reg_exponent)
    prior, began = None, workplace.spent()
    for epoch in range(1, epochs + 1):
        solve_side(user_vectors, item_vectors, of_users, config, config.reg)
        solve_side(item_vectors, user_vectors, of_items, config, config.reg, prior)
        if prior_of is not None:
            prior = prior_of(item_vectors, ridge)
        another = (workplace.spent() - began) / epoch  # as a share of the time, like what is spent
        if epoch < epochs and workplace.spent() + another > 1:
            log.warning("%s stops after epoch %d of %d: its time is over", name, epoch, epochs)
            break
    return item_vectors, to_answer_with(config, data)


class Rows:
    """The interactions of one side in compressed rows: whom each row has met, and with what weight."""

    def __init__(self, rows: np.ndarray, others: np.ndarray, weights: np.ndarray, n_rows: int):
        by_row = np.argsort(rows, kind="stable")
        self.others, self.weights = others[by_row], weights[by_row]
        self.starts = np.append(0, np.cumsum(np.bincount(rows, minlength=n_rows)))  # (n_rows + 1,)
        self.are_ones = bool((weights == 1).all())
        self.total = np.bincount(rows, weights, n_rows)  # (n_rows,)


def solve_side(
    solved: np.ndarray, fixed: np.ndarray, rows: Rows, config: Config, reg: float, prior: np.ndarray | None = None
) -> None:
    """Replace each vector of one side by its least-squares solution against the other side; rows without an
    interaction stay as they are. The regularisation draws them to `prior`, (rows, D); without one, to zero.

    One row at a time, its normal equations as one symmetric update of a copy of α0 V'V and one Cholesky solution: half
    the operations of a batched product, and no padding.

    Raises:
        CheckFailed: a system has no unique solution in 32 bits.
    """
    alpha = np.float32(config.unobserved_weight)
    gram = np.asfortranarray(alpha * (fixed.T @ fixed))  # (D, D)
    ridge = (reg * (rows.total + alpha * len(fixed)) ** config.reg_exponent).astype(np.float32)
    left = np.empty_like(gram, order="F")
    diagonal = left.reshape(-1, order="F")[:: len(left) + 1]  # a view
    for row in np.flatnonzero(np.diff(rows.starts)):
        span = slice(rows.starts[row], rows.starts[row + 1])
        vectors = fixed[rows.others[span]]  # (L, D)
        if rows.are_ones:
            right = vectors.sum(0)
        else:
            weights = rows.weights[span]
            right = weights @ vectors
            vectors *= np.sqrt(weights)[:, None]
        if prior is not None:
            right = right + ridge[row] * prior[row]
        left[:] = gram
        diagonal += ridge[row]
        scipy.linalg.blas.ssyrk(1.0, vectors.T, beta=1.0, c=left, lower=1, overwrite_c=1)  # in place
        _, solution, failed = scipy.linalg.lapack.sposv(left, right, lower=1, overwrite_a=1, overwrite_b=1)
        if failed:
            raise CheckFailed("normal equations of ials", f"singular at row {row}", "Raise reg; not registered")
        solved[row] = solution
