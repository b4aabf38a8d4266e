"""EASE: the ridge regression of every item on all others, in closed form.

Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data". With X (users × items, 0 and 1), a user of n items
counting n^-user_exponent, and P = (X'WX + Λ)^-1, the weights are B = I - P / diag(P), so that nothing predicts itself.
The score is history @ B D^popularity_exponent, D how many users used each item: as in training/models/spectral.py. Λ
is λ for every item, or grows with how much it was used, as dropout's does (Steck 2020, "Autoencoders that don't
overfit towards the Identity").

The inverse takes I³ operations and I² numbers, so beyond `max_exact_items` each item is regressed on its `neighbours`
most similar items (cosine) alone (training/neighbours.py), which takes I · neighbours³ / 3 operations. What is not
among the `max_inputs` most used items is predicted, but predicts nothing.

On validation parts, ndcg@20: of UltraGCN's MovieLens 1M, λ 400 exact .2635, with 200 neighbours .2619, with 400 .2632;
user exponent ½ and λ 40 .2686, exponent 1 and λ 4 .2670. On two such parts, recall@20 / ndcg@20: user exponent ½ and λ
30 .2296 / .2670, with item exponent ½ .2312 / .2688, with popularity exponent -.1 as well .2327 / .2693; 44 settings
by Optuna, the eight best between .2379 / .2764 and .2394 / .2767 with λ 41 to 80, user exponent .57 to .66, item
exponent .33 to .63, popularity exponent -.13 or -.2: the choice (`WITH_EXPONENTS`) lies among them (ndcg@20 of the
spectral filter on both .2732, of iALS on one of them .2724). Of KGAT's Amazon-book (24 915 items, 200 neighbours, 30
CPU seconds), λ 100 .1462, user exponent ½ and λ 10 .1466; on two parts λ 30 and user exponent ½ .1481, with popularity
exponent -.15 (`OF_SHORT`) .1500, `WITH_EXPONENTS` .1488. Of a split of 30 000 users and 47 706 items made from it (λ
30, user exponent ½), 80 neighbours .1340, 200 .1356; 80 with item exponent ½ .1350, with 1 .1185; item-kNN has .1303
there. Of one of 35 340 users and 49 556 items (bench/large_split.py), 200 neighbours: λ 30, user exponent ½ .1224,
`OF_SHORT` .1260, with item exponent ½ and popularity exponent -.05 .1262, 0 .1249; `WITH_EXPONENTS` .1246.
"""

import numpy as np
import scipy.linalg
import scipy.sparse

from training import neighbours
from training.dataset import TrainingData
from training.item_weights import ItemWeights, dense_gram, interaction_matrix, strongest
from training.model import Between, ModelConfig, Workplace, popularity

FRAMEWORK = "numpy"
FEATURES: tuple[str, ...] = ()
WITH_EXPONENTS = {"reg": 60.0, "user_exponent": 0.6, "item_exponent": 0.4, "popularity_exponent": -0.15}
OF_SHORT = {"reg": 30.0, "user_exponent": 0.5, "popularity_exponent": -0.15}
TRIALS = (
    WITH_EXPONENTS,
    OF_SHORT,
    {"reg": 30.0, "user_exponent": 0.5, "item_exponent": 0.5},
    {"reg": 300.0},
    {"reg": 10.0, "user_exponent": 0.5},
    {"reg": 1000.0},
    {"reg": 100.0},
    {"reg": 3.0, "user_exponent": 1.0},
    {"reg": 30.0},
    {"reg": 10.0, "user_exponent": 0.5, "item_exponent": 0.5},
    {"reg": 100.0, "user_exponent": 0.5, "item_exponent": 0.5},
    {"reg": 30.0, "user_exponent": 0.5, "item_exponent": 0.5, "neighbours": 80},  # where the others take long
)
TRIALS_OF_SHORT = (
    OF_SHORT,
    OF_SHORT | {"item_exponent": 0.5, "popularity_exponent": -0.1},
    WITH_EXPONENTS,
    *TRIALS[2:],
)
"""The first for short histories: there it is the better one, see above."""
SPACE = {
    "reg": Between(1.0, 5000.0, log=True),
    "user_exponent": Between(0.0, 1.0),
    "item_exponent": Between(0.0, 1.0),
    "popularity_exponent": Between(-0.5, 0.5),
}


class Config(ModelConfig):
    reg: float = 300.0
    user_exponent: float = 0.0
    item_exponent: float = 0.0
    """An item's λ is `reg` times its share of X'WX over the mean share, to this power."""
    popularity_exponent: float = 0.0
    """Below zero a popular item gets less than the regression says, above zero more."""
    max_exact_items: int = 9000
    neighbours: int = 200
    max_inputs: int = 40_000
    max_weights: int = 4000
    """Most weights that an item gives, the largest by amount: what a bundle keeps."""


def estimate_seconds(data: TrainingData, config: Config) -> float:
    """Measured on one core of 2026: 60 billion operations a second in large matrices, 6 in small ones."""
    used = int((np.bincount(data.items, minlength=data.n_items) > 0).sum())
    pairs = float((np.bincount(data.users).astype(float) ** 2).sum())
    if used <= config.max_exact_items:
        return 1 + pairs / 1e9 + used**3 / 6e10
    return 2 + neighbours.seconds(data.users, data.items, config.neighbours, config.max_inputs)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> ItemWeights:
    """Solve the weights of all used items. Nothing is random."""
    matrix = interaction_matrix(data)  # (U, I)
    per_user = np.maximum(np.diff(matrix.indptr), 1).astype(np.float32)
    matrix.data *= np.repeat(per_user ** (-config.user_exponent / 2), np.diff(matrix.indptr))
    per_item = np.bincount(matrix.indices, minlength=data.n_items).astype(np.float32)  # users of each item, (I,)
    used = np.flatnonzero(per_item)
    if len(used) <= config.max_exact_items:
        weights = strongest(exact(matrix[:, used], config.reg, config.item_exponent), config.max_weights)
    else:
        weights = by_neighbours(matrix[:, used], config)
    listed = weights.tocoo()
    rows, columns = used[listed.coords[0]], used[listed.coords[1]]
    given = listed.data * per_item[columns] ** np.float32(config.popularity_exponent)
    whole = scipy.sparse.csr_array((given, (rows, columns)), shape=(data.n_items, data.n_items))
    whole.sort_indices()
    return ItemWeights(whole, popularity(data))


def ridge(squares: np.ndarray, reg: float, item_exponent: float) -> np.ndarray:
    """Return each item's λ by its entry of the diagonal of X'WX. float32 (I,)"""
    return (reg * (squares / squares.mean()) ** item_exponent).astype(np.float32)


def exact(matrix: scipy.sparse.csr_array, reg: float, item_exponent: float = 0.0) -> np.ndarray:
    """Return I - P / diag(P), P = (X'X + Λ)^-1, in float32; with it the memory is 2 I². (I, I)"""
    gram = dense_gram(matrix)
    gram[np.diag_indices_from(gram)] += ridge(np.diag(gram), reg, item_exponent)
    inverse, failed = scipy.linalg.lapack.spotri(*_factor(gram), overwrite_c=1)
    assert not failed
    inverse = np.tril(inverse) + np.tril(inverse, -1).T  # what LAPACK returns is the lower half
    inverse /= -np.diag(inverse)[None]  # each column by its diagonal
    np.fill_diagonal(inverse, 0)
    return inverse


def _factor(gram: np.ndarray) -> tuple[np.ndarray, int]:
    factor, failed = scipy.linalg.lapack.spotrf(gram.T, lower=1, overwrite_a=1)
    assert not failed, "X'X + λ I is positive definite for λ > 0"
    return factor, 1


def by_neighbours(matrix: scipy.sparse.csr_array, config: Config) -> scipy.sparse.csr_array:
    """Regress each item on its most similar ones. float32 (I, I)"""
    squares = np.asarray(matrix.multiply(matrix).sum(0)).ravel()  # (I,), the diagonal of X'WX
    added = ridge(squares, config.reg, config.item_exponent)  # (I,)
    return neighbours.regress(matrix, matrix, added, config.neighbours, config.max_inputs)
