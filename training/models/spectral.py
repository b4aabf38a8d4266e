"""A spectral filter of the item graph: what a user has used is smoothed over the graph, and noise filtered out.

Shen, Wu, Zhang, Lin, Wang, Wang, Cai 2021, "How Powerful is Graph Convolution for Recommendation?" (GF-CF): with
R̃ = D_U^-a R D_I^-b, a = b = ½, the linear filter R̃'R̃ and an ideal low-pass filter on its first `components`
eigenvectors V,

    score = history @ (R̃'R̃ + low_pass_weight D_I^-½ V V' D_I^½) D_I^popularity_exponent.

The exponents and the power of each entry of the graph: Park, Shin, Shin 2024, "Turbo-CF: Matrix Decomposition-Free
Graph Filtering for Fast Recommendation", whose filter this is without V. Ours is the last factor: b says at once how
much a popular item gives and how much it gets, which need not be the same. There is no training: a truncated
decomposition and a product of sparse matrices. Kept are, of each scored item, the `neighbours` largest weights, so that
memory grows with items times neighbours.

On validation parts, recall@20 / ndcg@20. UltraGCN's MovieLens 1M: V of 64 .2310 / .2671, of 256 ndcg .2557; with
popularity_exponent -.15 .2368 / .2705, with b .4 as well and -.3 .2391 / .2736 (the choice; iALS .2357 / .2724, EASE
.2300 / .2664); 59 settings around it by Optuna, on two such parts, .2739 at best where the choice has .2732. KGAT's
Amazon-book, without V, in 1 to 3 CPU seconds: .2010 / .1213; power .7 and 300 neighbours .2090 / .1267, with
popularity_exponent .2 .2283 / .1372; 1000 neighbours, a .2 and popularity_exponent .2 .2408 / .1448 (the choice, of 32
settings on two parts too; EASE .2408 / .1470 in 26 seconds).
"""

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from training.dataset import TrainingData
from training.item_weights import ItemWeights, interaction_matrix, strongest, strongest_of_columns
from training.model import Between, ModelConfig, Workplace, popularity

FRAMEWORK = "numpy"
FEATURES: tuple[str, ...] = ()
DENSE = {"components": 64, "low_pass_weight": 0.3, "item_exponent": 0.4, "popularity_exponent": -0.3}
SPARSE = {"components": 0, "user_exponent": 0.2, "popularity_exponent": 0.2}
GF_CF = {"components": 64, "low_pass_weight": 0.3}
TRIALS = (DENSE, SPARSE, GF_CF, DENSE | {"neighbours": 300}, {"components": 256, "low_pass_weight": 0.3})
"""What MovieLens 1M wants, Amazon-book, and the paper."""
TRIALS_OF_SHORT = (SPARSE, GF_CF, SPARSE | {"popularity_exponent": 0.0}, DENSE)
"""Thrice the neighbours take thrice the memory: ndcg@20 .1461 at best on Amazon-book's two parts, 1000 have .1463."""
BLOCK_ITEMS = 500
SPACE = {
    "components": Between(16, 512, log=True),
    "low_pass_weight": Between(0.0, 1.0),
    "user_exponent": Between(0.0, 1.0),
    "item_exponent": Between(0.0, 1.0),
    "power": Between(0.5, 1.5),
    "popularity_exponent": Between(-0.5, 0.5),
}


class Config(ModelConfig):
    user_exponent: float = 0.5
    item_exponent: float = 0.5
    power: float = 1.0
    components: int = 256
    low_pass_weight: float = 0.3
    popularity_exponent: float = 0.0
    neighbours: int = 1000


def estimate_seconds(data: TrainingData, config: Config) -> float:
    """Pairs of items that a user has used both, and with V a dense block a scored item; one core of 2026."""
    pairs = float((np.bincount(data.users).astype(float) ** 2).sum())
    low_pass = len(data.users) * config.components / 1e7 + data.n_items**2 * (config.components + 200) / 2e10
    return 1 + pairs / 4e7 + (low_pass if config.components else 0)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> ItemWeights:
    """Build the filter, block by block of scored items. Nothing is random."""
    matrix = interaction_matrix(data)  # (U, I)
    per_user = np.maximum(np.diff(matrix.indptr), 1).astype(np.float32)
    per_item = np.maximum(np.bincount(matrix.indices, minlength=data.n_items), 1).astype(np.float32)
    matrix.data *= np.repeat(per_user**-config.user_exponent, np.diff(matrix.indptr))
    matrix.data *= per_item[matrix.indices] ** -config.item_exponent  # R̃
    vectors = low_pass(matrix, config.components)  # (I, D)
    given = vectors.T / np.sqrt(per_item) * np.float32(config.low_pass_weight)  # (D, I)
    by_item, blocks = matrix.T.tocsr(), []
    for start in range(0, data.n_items, BLOCK_ITEMS):
        stop = min(start + BLOCK_ITEMS, data.n_items)
        shared = by_item[start:stop] @ matrix  # (b, I)
        shared.data **= np.float32(config.power)
        if vectors.shape[1]:
            taken = vectors[start:stop] * np.sqrt(per_item[start:stop])[:, None]
            blocks.append(strongest(shared.toarray() + taken @ given, config.neighbours))
        else:
            blocks.append(strongest_of_columns(shared.T, config.neighbours).T)
    scored = scipy.sparse.vstack(blocks, format="csr")  # a row a scored item
    scored.data *= np.repeat(per_item ** np.float32(config.popularity_exponent), np.diff(scored.indptr))
    weights = scored.T.tocsr()  # a row an item of the history
    weights.sort_indices()
    return ItemWeights(weights, popularity(data))


def low_pass(matrix: scipy.sparse.csr_array, components: int) -> np.ndarray:
    """Return the first right singular vectors of R̃, or as many as there are. float32 (I, D)"""
    most = min(components, min(matrix.shape) - 1)
    if most < 1:
        return np.zeros((matrix.shape[1], 0), np.float32)
    start = np.random.default_rng(0).normal(size=min(matrix.shape))  # decides the rounding only
    return scipy.sparse.linalg.svds(matrix, most, v0=start)[2].T.astype(np.float32)
