"""iALS whose items are drawn to what their texts say: a new item has a vector before anybody has used it.

The idea is that of Wang and Blei 2011, "Collaborative Topic Modeling for Recommending Scientific Articles", with iALS
(training/models/ials.py) in place of its factorisation and a linear map of a sentence encoder's vectors in place of
topics: with t an item's text vector, the regularisation λ_i ‖v_i‖² becomes λ_i ‖v_i - W't_i‖². The map W is itself a
ridge regression of the vectors on the texts, solved anew after each epoch, each item weighing as much as its λ_i, which
grows with how much it was used.

What nobody has used gets the weighted mean of the vectors of the `near` items whose texts are most like its own, times
`cold_scale` (the neighbours' mapping of Gantner et al. 2010, "Learning Attribute-to-Feature Mappings for Cold-Start
Recommendations"): a mean is shorter than what it is of, and a short vector comes first nowhere. `cold_scale` says how
much of the lists goes to new items. On Beauty's validation items with a tenth of the catalogue held out, recall@10 of
targets among the known / the new: the map W alone at scale 1.5 .0806 / .0091, at 3 .0536 / .1088; ten neighbours at 1
.0809 / .0222, at 1.5 .0695 / .0821, at 2 .0521 / .1311.

A user is solved from the history as by iALS, so that the bundle is one of kind `ials`.
"""

import numpy as np
import scipy.linalg

from training.dataset import TrainingData
from training.model import Between, OneOf, Workplace, popularity
from training.models import ials, text_encoder
from training.models.ials import IALS, alternate

FRAMEWORK = "transformers"
FEATURES: tuple[str, ...] = ()
STOPS_IN_TIME = True
SPACE = ials.SPACE | {
    "text_size": OneOf((32, 64, 128, 256)),
    "map_reg": Between(0.001, 1.0, log=True),
    "cold_scale": Between(0.5, 3.0),
}
BLOCK_ITEMS = 1000


class Config(ials.Config):
    text_size: int = 128
    """Widest directions of the half-whitened text vectors that are read."""
    map_reg: float = 0.03
    """Ridge of the map, as a share of the mean variance that it explains from."""
    near: int = 10
    near_temperature: float = 0.15
    """A neighbour weighs exp(cosine / near_temperature)."""
    cold_scale: float = 1.35
    max_tokens: int = 48


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> IALS:
    """Alternate between users, items and the map."""
    texts = text_vectors(data, config, workplace)  # (I, E)
    vectors, config = alternate(
        "content_ials", data, config, seed, workplace, lambda items, ridge: mapped(texts, items, ridge, config.map_reg)
    )
    is_cold = np.bincount(data.items, minlength=data.n_items) == 0
    if is_cold.any():
        vectors[is_cold] = config.cold_scale * from_neighbours(texts[:, :-1], vectors, is_cold, config)
    return IALS(vectors, popularity(data), config)


def text_vectors(data: TrainingData, config: Config, workplace: Workplace) -> np.ndarray:
    """Return what the texts say of each item, and a one. float32 (I, E + 1)"""
    encoder = text_encoder.Config(embedding_size=config.text_size, max_tokens=config.max_tokens)
    counts = np.bincount(data.items, minlength=data.n_items).astype(np.float32)
    white = text_encoder.half_whiten(text_encoder.encode(data.texts, encoder, workplace), counts, config.text_size)
    return np.hstack([white, np.ones((len(white), 1), np.float32)])


def from_neighbours(texts: np.ndarray, vectors: np.ndarray, is_cold: np.ndarray, config: Config) -> np.ndarray:
    """Return for each cold item the mean of what its nearest used items have, by text. float32 (C, D)"""
    used, cold = np.flatnonzero(~is_cold), np.flatnonzero(is_cold)
    most, found = min(config.near, len(used)), np.empty((len(cold), vectors.shape[1]), np.float32)
    for start in range(0, len(cold), BLOCK_ITEMS):
        alike = texts[cold[start : start + BLOCK_ITEMS]] @ texts[used].T  # (c, I')
        near = np.argpartition(-alike, most - 1, axis=1)[:, :most]
        cosine = np.take_along_axis(alike, near, axis=1)
        weight = np.exp((cosine - cosine.max(1, keepdims=True)) / config.near_temperature)
        weight /= weight.sum(1, keepdims=True)
        found[start : start + BLOCK_ITEMS] = np.einsum("cn,cnd->cd", weight, vectors[used[near]])
    return found


def mapped(texts: np.ndarray, vectors: np.ndarray, weights: np.ndarray, reg: float) -> np.ndarray:
    """Return what a weighted ridge regression of the vectors (I, D) on the texts (I, E) says of each item. (I, D)"""
    weighed = texts * (weights / weights.sum())[:, None].astype(np.float32)  # (I, E)
    left = (weighed.T @ texts).astype(np.float64)  # (E, E)
    left[np.diag_indices_from(left)] += reg * np.trace(left) / len(left)
    return texts @ scipy.linalg.solve(left, weighed.T @ vectors, assume_a="pos").astype(np.float32)
