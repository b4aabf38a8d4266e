"""LightGCN in PyTorch: users and items as nodes of one graph, each the mean of what it and its neighbourhoods are.

He, Deng, Wang, Li, Zhang, Wang 2020, "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation".
With A the interactions, each over the root of its user's and its item's degree, and free vectors E of layer zero,

    users_(k+1) = A items_k,  items_(k+1) = A' users_k,  vectors = mean over k = 0 … layers,  score = user · item.

The model is the paper's; the training is not. There a step is a batch of pairs with one random negative each, and a
thousand epochs of them. Here a step takes a thousand users against the whole catalogue (training/collaborative.py),
and E begins at the largest singular vectors of A: propagation scales each by a function of its singular value and
mixes none, so that this is where it leads anyway. A user of n events counts as n^(1 - user_exponent) in the loss,
since judging counts users. What is regularised is what is multiplied, the propagated vectors.

Chosen on validation parts of UltraGCN's MovieLens 1M, recall@20 / ndcg@20. A fifth of the training items held out
(EASE .2246 / .2631): 64 factors .2294 / .2672; 128, reg .06 .2363 / .2709, reg .04 .2358 / .2690; user_exponent .25,
.5, .75 ndcg .2712, .2709, .2703; two layers .2644; 256 factors .2362 / .2689. The less is held out, the more factors
it bears, and the test comes after training on all: 6 % held out (EASE .2593 / .1705): 128 factors at reg .06 .2632 /
.1728, at .04 .2661 / .1735; 192 at .05 with exponent .25 .2675 / .1750; 256 at .05 with .5 .2700 / .1746, at .03
.2643 / .1692. The choice joins the better of each: 256, .05, .25. With a tenth held out and 64 factors: 200 steps
from noise ndcg .1869 and still rising, 60 from the singular vectors .2026; dropping edges changed nothing.
"""

import numpy as np
import torch
from torch import Tensor, nn

from training.collaborative import Interactions, Multiply, as_tensor, normalised, spectral_start
from training.dataset import TrainingData
from training.factors import FactorConfig, FactorModel, fit_factors
from training.model import Between, OneOf, Workplace

FRAMEWORK = "pytorch"
FEATURES: tuple[str, ...] = ()
STOPS_IN_TIME = True
SPACE = {
    "embedding_size": OneOf((64, 128, 256)),
    "layers": Between(1, 3),
    "reg": Between(0.003, 0.3, log=True),
    "user_exponent": Between(0.0, 1.0),
    "recency_exponent": Between(0.0, 1.5),
}


class Config(FactorConfig):
    embedding_size: int = 256
    layers: int = 1
    epochs: int = 12
    batch_size: int = 1000
    learning_rate: float = 0.02
    reg: float = 0.05
    user_exponent: float = 0.25
    start_scale: float = 0.7


TRIALS = (
    {},
    {"embedding_size": 128, "reg": 0.06, "user_exponent": 0.5},
    {"layers": 2, "reg": 0.03},
    {"embedding_size": 64, "reg": 0.06, "user_exponent": 0.5},  # what is begun with where the others take long
)


def estimate_seconds(data: TrainingData, config: Config) -> float:
    """Return about the processor seconds of a fit: measured on one core, dense and sparse products and Adam apart."""
    users, items = len(np.unique(data.users)), data.n_items
    steps = max(config.min_steps, config.epochs * -(-users // config.batch_size))
    dense = 6 * min(config.batch_size, users) * min(items, config.max_candidates) / 6e10
    sparse = 8 * config.layers * len(data.items) / 1e10
    return 2 + steps * config.embedding_size * (dense + sparse + 3e-8 * (users + items))


class Graph(nn.Module):
    """Vectors of layer zero and the propagation of them."""

    def __init__(self, interactions: Interactions, config: Config, rng: np.random.Generator):
        super().__init__()
        edges = normalised(interactions.matrix)
        self.to_users, self.to_items = as_tensor(edges), as_tensor(edges.T)  # (U, I), (I, U): constants, no state
        self.layers = config.layers
        users, items = spectral_start(interactions.matrix, config.embedding_size, config.start_scale, rng)
        self.users, self.items = nn.Parameter(users), nn.Parameter(items)  # (U, D), (I, D)

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the users' vectors (U, D), the items' (I, D), and that no item has a bias (I,)."""
        users, items = self.users, self.items
        all_users, all_items = users, items
        for _ in range(self.layers):
            users, items = (
                Multiply.apply(items, self.to_users, self.to_items),
                Multiply.apply(users, self.to_items, self.to_users),
            )
            all_users, all_items = all_users + users, all_items + items
        count = self.layers + 1
        return all_users / count, all_items / count, torch.zeros(len(items))


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> FactorModel:
    """Train the vectors of layer zero.

    Raises:
        CheckFailed: the loss is no longer finite.
    """
    interactions = Interactions.of(data, config.recency_exponent)
    graph = Graph(interactions, config, np.random.default_rng(seed))
    return fit_factors("lightgcn", graph, interactions, data, config, seed, workplace)
