"""Two opinions of what comes next, added: what tends to follow what, and what a network makes of the whole history.

SLIST (training/models/slist.py) has a weight for every pair of items, whatever else the history holds; SASRec
(training/models/sasrec.py) one vector for all of it. They err on different users, so that their sum is better than
either: Jahrer, Töscher, Legenstein 2010, "Combining Predictions for Accurate Recommender Systems". With σ an opinion's
mean deviation among the `SHORTLIST` best items of a user, over some users of the training part,

    score = share SLIST / σ_SLIST + (1 - share) SASRec / σ_SASRec.

Of an item's weights in SLIST the `max_followers` largest are kept: the bundle's graph looks them up in a table. The
networks may be several (training/next_item.py); the linear part takes seconds.

On 6000 of Beauty's validation items, recall@10 / ndcg@10: SLIST alone .1030 / .0665, one network .0990 / .0615, their
sum with share .35 .1127 / .0722, .5 .1162 / .0732 (the choice), .65 .1148 / .0724. With a deviation of each user's own,
among the 200 best .1155 / .0728, among all items .1078 / .0689 (.1140 / .0718 with share .2); logarithms of shares of a
sum of one .1148 / .0719.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training import next_item
from training.dataset import TrainingData
from training.encoders import recency_weights, to_onnx
from training.item_weights import strongest_of_columns
from training.model import Between, Model, Parts, Workplace
from training.models import sasrec, slist
from training.next_item import NextItemModel

FRAMEWORK = "pytorch"
FEATURES: tuple[str, ...] = ()
STOPS_IN_TIME = True
NEEDS_ORDER = True
SHORTLIST, MOST_ASKED = 200, 500
TRIALS = ({}, {"max_history": 200, "batch_size": 8, "layers": 2, "dropout": 0.2, "learning_rate": 0.003})
TRIALS_OF_SHORT = (next_item.SHORT | {"linear_reg": 30.0, "horizon": 10, "target_exponent": 1.0},)
"""For the benchmark: what each of the two wants by itself."""
SPACE = sasrec.SPACE | {"share": Between(0.2, 0.8), "linear_reg": Between(10.0, 1000.0, log=True)}


class Config(sasrec.Config):
    share: float = 0.5
    """SLIST's of the score."""
    linear_reg: float = 150.0
    horizon: int = 40
    recency_exponent: float = 0.7
    target_exponent: float = 0.5
    """These four are SLIST's own."""
    max_followers: int = 500


def linear_config(config: Config) -> slist.Config:
    """Return SLIST's settings."""
    shared = ("max_history", "horizon", "recency_exponent", "target_exponent")
    return slist.Config(reg=config.linear_reg, **{name: getattr(config, name) for name in shared})


class Scorer(nn.Module):
    """What the bundle's encoder.onnx does: history and mask, right-aligned → the scores of all items."""

    def __init__(self, linear: slist.Slist, network: NextItemModel, factor: float):
        """`linear` as it counts; the network's scores count `factor` times."""
        super().__init__()
        self.encoder, self.recency_exponent = network.encoder, linear.config.recency_exponent
        lengths = np.diff(linear.weights.indptr)
        place = np.arange(linear.weights.nnz) - np.repeat(linear.weights.indptr[:-1], lengths)
        row = np.repeat(np.arange(len(lengths)), lengths)
        columns = np.zeros((len(lengths), max(1, lengths.max(initial=0))), np.int64)  # (I, K)
        values = np.zeros(columns.shape, np.float32)
        columns[row, place], values[row, place] = linear.weights.indices, linear.weights.data
        self.register_buffer("columns", torch.from_numpy(columns))
        self.register_buffer("values", torch.from_numpy(values))
        self.register_buffer("vectors", network.vectors * factor)  # (I, D)
        self.register_buffer("bias", network.bias * factor + torch.from_numpy(linear.bias))  # (I,)

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        known = self.encoder(history, mask) @ self.vectors.T + self.bias  # (B, I)
        given = self.values[history] * recency_weights(mask, self.recency_exponent)[..., None]  # (B, L, K)
        return known.scatter_add(1, self.columns[history].flatten(1), given.flatten(1))


class Blend:
    """Both models, and what they count."""

    def __init__(self, linear: slist.Slist, network: NextItemModel, factor: float):
        self.linear, self.network, self.factor = linear, network, factor

    @torch.inference_mode()
    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        return self.linear.score(histories) + np.float32(self.factor) * self.network.score(histories)  # (B, I)

    def parts(self) -> Parts:
        arrays = {"popularity": self.network.counts, "item_vectors": self.network.vectors.numpy()}
        graph = to_onnx(Scorer(self.linear, self.network, self.factor).eval(), "scores", self.network.max_history)
        return Parts("scorer", arrays, graph, {"max_history": self.network.max_history})

    def save_native(self, folder: Path) -> None:
        self.linear.save_native(folder)
        self.network.save_native(folder)


def estimate_seconds(data: TrainingData, config: Config) -> float:
    """Return what the two are expected to take."""
    return slist.estimate_seconds(data, linear_config(config)) + next_item.estimate_seconds(data, config)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> Blend:
    """Solve the linear part, train the networks, and weigh them up.

    Raises:
        CheckFailed: the loss is no longer finite, or no user has two events.
    """
    linear = slist.fit(data, linear_config(config), seed, workplace)
    weights = strongest_of_columns(linear.weights.T.tocsc(), config.max_followers).T.tocsr()
    weights.sort_indices()
    linear = replace(linear, weights=weights)
    own = {name: getattr(config, name) for name in sasrec.Config.model_fields}
    network = sasrec.fit(data, sasrec.Config(**own), seed, workplace)
    asked = some_histories(data, config.max_history, np.random.default_rng(seed))
    counted = config.share / deviation(linear, asked)
    factor = (1 - config.share) / deviation(network, asked)
    linear = replace(linear, weights=linear.weights * np.float32(counted), bias=linear.bias * np.float32(counted))
    return Blend(linear, network, factor)


def some_histories(data: TrainingData, longest: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the latest items of some users, each once."""
    sequences = data.sequences()
    chosen = rng.permutation(len(sequences))[:MOST_ASKED]
    return [data.items[sequences[user]][-longest:] for user in chosen]


def deviation(model: Model, histories: list[np.ndarray]) -> float:
    """Return the mean standard deviation of users' best scores, or 1 where all are alike."""
    most = []
    for start in range(0, len(histories), 100):
        scores = model.score(histories[start : start + 100])
        kept = min(SHORTLIST, scores.shape[1])
        most.append(np.partition(scores, -kept, axis=1)[:, -kept:].std(1))
    found = float(np.concatenate(most).mean())
    return found if found > 0 and math.isfinite(found) else 1.0
