"""A spectral filter of the item graph: what a user has used is smoothed over the graph, and noise filtered out.

With R̃ = D_U^-a R D_I^-b, V its right singular vectors and S the squares of its singular values, a filter says with
what strength h(S) each of V's patterns passes. Three are here:

- linear, h = S: Park, Shin, Shin 2024, "Turbo-CF: Matrix Decomposition-Free Graph Filtering for Fast Recommendation",
  with a power of each entry of R̃'R̃ (`components` 0);
- linear and an ideal low-pass filter on the first `components` of V: Shen, Wu, Zhang, Lin, Wang, Wang, Cai 2021, "How
  Powerful is Graph Convolution for Recommendation?" (GF-CF),
  score = history @ (R̃'R̃ + low_pass_weight D_I^-½ V V' D_I^½) D_I^popularity_exponent;
- Tikhonov's, h = S / (S + reg S_1), which no strong pattern drowns the others in (`reg` above 0),
  score = history @ D_I^-b V h(S) V' D_I^b D_I^popularity_exponent.
  Beyond the first `components` of V it is taken for linear, S / (reg S_1), which it nears there: so it is R̃'R̃ with
  those patterns' S lessened by S² / (S + reg S_1), up to a factor that orders nothing.

Ours is the last factor: b says at once how much a popular item gives and how much it gets, which need not be the same.
There is no training: a decomposition and a product of sparse matrices. Kept are, of each scored item, the `neighbours`
largest weights, so that memory grows with items times neighbours.

On validation parts, recall@20 / ndcg@20. Two of UltraGCN's MovieLens 1M: GF-CF's with popularity_exponent -.3 and b .4
ndcg .2732, the best of 59 settings around it .2739; Tikhonov's on all of V .2760 to .2767 for 10 of 21 settings by
Optuna, a .30 to .50, b .29 to .41, reg .031 to .050, popularity_exponent -.1 or -.15, the choice in their midst, .2398
/ .2765 (1000 neighbours .2389 / .2752); with 256 of V and the linear rest .2376 / .2748 (EASE .2394 / .2767, iALS on
one of the two .2724). KGAT's Amazon-book, without V, in 1 to 3 CPU seconds: .2010 / .1213; power .7 and 300 neighbours
.2090 / .1267, with popularity_exponent .2 .2283 / .1372; 1000 neighbours, a .2 and popularity_exponent .2 .2408 /
.1448 (the choice, of 32 settings on two parts too; EASE .2408 / .1470 in 26 seconds); on one part, Tikhonov's on 128
of V in 14 seconds .2340 / .1452 (`SMOOTH`; the choice .2408 / .1448), MovieLens' setting on 256 of V .1072 / .0686.
"""

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from training.dataset import TrainingData
from training.item_weights import ItemWeights, dense_gram, interaction_matrix, strongest, strongest_of_columns
from training.model import Between, ModelConfig, Workplace, popularity

FRAMEWORK = "numpy"
FEATURES: tuple[str, ...] = ()
ALL = 100_000
TIKHONOV = {
    "components": ALL, "reg": 0.04, "user_exponent": 0.4, "item_exponent": 0.35, "popularity_exponent": -0.15,
    "neighbours": 4000,
}  # fmt: skip
DENSE = {"components": 64, "low_pass_weight": 0.3, "item_exponent": 0.4, "popularity_exponent": -0.3}
SPARSE = {"components": 0, "user_exponent": 0.2, "popularity_exponent": 0.2}
GF_CF = {"components": 64, "low_pass_weight": 0.3}
SMOOTH = {"components": 128, "reg": 0.3, "user_exponent": 0.2, "item_exponent": 0.4, "popularity_exponent": -0.1}
TRIALS = (TIKHONOV, SPARSE, TIKHONOV | {"components": 256}, DENSE, GF_CF)
"""What MovieLens 1M wants, Amazon-book, the first where all of V takes long, and what the paper says."""
TRIALS_OF_SHORT = (SPARSE, GF_CF, SPARSE | {"popularity_exponent": 0.0}, SMOOTH)
"""Thrice the neighbours take thrice the memory: ndcg@20 .1461 at best on Amazon-book's two parts, 1000 have .1463."""
BLOCK_ITEMS = 500
DENSE_ITEMS = 8000
DENSE_SHARE = 0.1
"""Of the items: as many patterns or more come sooner from the whole matrix than one after the other."""
MOST_OF_MANY = 512
SPACE = {
    "components": Between(16, 512, log=True),
    "reg": Between(0.0, 0.3),
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
    """At most as many as there are items; beyond `DENSE_ITEMS` items at most `MOST_OF_MANY`."""
    low_pass_weight: float = 0.3
    reg: float = 0.0
    """Above zero: Tikhonov's filter, and neither `low_pass_weight` nor `power` is asked for."""
    popularity_exponent: float = 0.0
    neighbours: int = 1000


def estimate_seconds(data: TrainingData, config: Config) -> float:
    """Pairs of items that a user has used both, and with V a dense block a scored item; one core of 2026."""
    pairs = float((np.bincount(data.users).astype(float) ** 2).sum())
    asked, is_dense = patterns(config.components, data.n_items)
    found = data.n_items**3 / 1e10 if is_dense else len(data.users) * asked / 1e7
    return 1 + pairs / 4e7 + (found + data.n_items**2 * (asked + 200) / 2e10 if asked else 0)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> ItemWeights:
    """Build the filter, block by block of scored items. Nothing is random."""
    matrix = interaction_matrix(data)  # (U, I)
    per_user = np.maximum(np.diff(matrix.indptr), 1).astype(np.float32)
    per_item = np.maximum(np.bincount(matrix.indices, minlength=data.n_items), 1).astype(np.float32)
    matrix.data *= np.repeat(per_user**-config.user_exponent, np.diff(matrix.indptr))
    matrix.data *= per_item[matrix.indices] ** -config.item_exponent  # R̃
    strengths, vectors = spectrum(matrix, config.components)  # (K,), (I, K)
    if config.reg:
        gains = -(strengths**2) / (strengths + config.reg * strengths.max(initial=1e-30))  # (K,)
        inner, outer = config.item_exponent, config.item_exponent
    else:
        gains, inner, outer = np.full_like(strengths, config.low_pass_weight), 0.5, 0.0
    given = gains[:, None] * vectors.T / per_item**inner  # (K, I)
    by_item, blocks = matrix.T.tocsr(), []
    by_item.data *= np.repeat(per_item**outer, np.diff(by_item.indptr))
    matrix.data *= per_item[matrix.indices] ** -outer
    for start in range(0, data.n_items, BLOCK_ITEMS):
        stop = min(start + BLOCK_ITEMS, data.n_items)
        shared = by_item[start:stop] @ matrix  # (b, I)
        shared.data **= np.float32(1.0 if config.reg else config.power)
        if len(strengths):
            taken = vectors[start:stop] * (per_item[start:stop] ** inner)[:, None]  # (b, K)
            blocks.append(strongest(shared.toarray() + taken @ given, config.neighbours))
        else:
            blocks.append(strongest_of_columns(shared.T, config.neighbours).T)
    scored = scipy.sparse.vstack(blocks, format="csr")  # a row a scored item
    scored.data *= np.repeat(per_item ** np.float32(config.popularity_exponent), np.diff(scored.indptr))
    weights = scored.T.tocsr()  # a row an item of the history
    weights.sort_indices()
    return ItemWeights(weights, popularity(data))


def patterns(components: int, n_items: int) -> tuple[int, bool]:
    """Return how many of V are asked for, and whether they come sooner from the items' whole matrix."""
    most = n_items if n_items <= DENSE_ITEMS else MOST_OF_MANY
    asked = min(components, most)
    return asked, asked > DENSE_SHARE * n_items


def spectrum(matrix: scipy.sparse.csr_array, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Return squares of the largest singular values, (K,), and right vectors of R̃, (I, K): as many as there are."""
    n_items = matrix.shape[1]
    asked, is_dense = patterns(components, n_items)
    if is_dense:
        span = (n_items - asked, n_items - 1)
        values, vectors = scipy.linalg.eigh(dense_gram(matrix), subset_by_index=span, overwrite_a=True)
        return np.maximum(values, 0), vectors
    if (asked := min(asked, *(size - 1 for size in matrix.shape))) < 1:
        return np.zeros(0, np.float32), np.zeros((n_items, 0), np.float32)
    start = np.random.default_rng(0).normal(size=min(matrix.shape))  # decides the rounding only
    _, values, vectors = scipy.sparse.linalg.svds(matrix, asked, v0=start)
    return values.astype(np.float32) ** 2, vectors.T.astype(np.float32)
