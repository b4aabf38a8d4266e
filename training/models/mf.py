"""Matrix factorisation in PyTorch: a user's vector times an item's, and the item's bias.

Rendle, Krichene, Zhang, Anderson 2020, "Neural Collaborative Filtering vs. Matrix Factorization Revisited": tuned,
the dot product beats the learned similarities that were to replace it (training/models/neumf.py). They train it as
Koren and others did, pair by pair with some random negatives each, for hundreds of epochs. Here a step takes some
hundred users against the whole catalogue by a softmax (training/collaborative.py), beginning at the largest singular
vectors of the normalised interactions and at the logarithm of popularity.
"""

import numpy as np
from torch import Tensor, nn

from training.collaborative import Interactions, spectral_start
from training.dataset import TrainingData
from training.factors import FactorConfig, FactorModel, fit_factors, item_log_share
from training.model import Workplace

FRAMEWORK = "pytorch"
FEATURES: tuple[str, ...] = ()


class Config(FactorConfig):
    embedding_size: int = 64
    epochs: int = 14
    batch_size: int = 1000
    learning_rate: float = 0.02
    reg: float = 0.08
    start_scale: float = 0.7
    recency_exponent: float = 0.75

TRIALS = ({}, {"recency_exponent": 0.0, "embedding_size": 128, "reg": 0.03}, {"embedding_size": 128, "reg": 0.06})


class Factors(nn.Module):
    """The vectors of all users and items, and the items' bias."""

    def __init__(self, interactions: Interactions, data: TrainingData, config: Config, rng: np.random.Generator):
        super().__init__()
        users, items = spectral_start(interactions.matrix, config.embedding_size, config.start_scale, rng)
        self.users, self.items = nn.Parameter(users), nn.Parameter(items)  # (U, D), (I, D)
        self.bias = nn.Parameter(item_log_share(data))  # (I,)

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.users, self.items, self.bias


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> FactorModel:
    """Train the factors.

    Raises:
        CheckFailed: the loss is no longer finite.
    """
    interactions = Interactions.of(data, config.recency_exponent)
    factors = Factors(interactions, data, config, np.random.default_rng(seed))
    return fit_factors("mf", factors, interactions, data, config, seed, workplace)
