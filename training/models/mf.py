"""Matrix factorisation in PyTorch: a user's vector times an item's, and the item's bias.

Rendle, Krichene, Zhang, Anderson 2020, "Neural Collaborative Filtering vs. Matrix Factorization Revisited": tuned,
the dot product beats the learned similarities that were to replace it (training/models/neumf.py). They train it as
Koren and others did, pair by pair with some random negatives each, for hundreds of epochs. Here a step takes some
hundred users against the whole catalogue, by a softmax (training/collaborative.py) or, better where events have no
order, by the squared loss over all pairs (training/pairs.py), beginning at the largest singular vectors of the
normalised interactions and at the popularity.

Chosen on NCF's MovieLens 1M, each user's last training item held out among 99 others, hit rate / ndcg@10 (EASE .7374
/ .4562). Without the order of events: 64 factors at reg .1 .6724 / .4084, .06 .7081 / .4343, .03 .7222 / .4455; 128
at .03 .7364 / .4516, at .02 .7316 / .4487, with user_exponent .75 .7325 / .4485. With it, 64 factors:
recency_exponent .5 at reg .06 .7844 / .5309, .75 at .08 .7858 / .5500 (the choice); 128 factors: .3 at .04 .7682 /
.4958, .5 at .06 .7821 / .5224, 1 at .03 .7515 / .5071. By the loss of all pairs without order, unobserved weight .15:
128 factors, reg .01, 30 epochs .7417 / .4485, reg .008 and 100 epochs .7492 / .4605, with a bias that is learned
.7483 / .4501; 192 factors .7480 / .4617 (the choice); by a logistic loss instead, 128 and 192 factors, weight .1 to
.4, .7445 / .4550 at best. These are by the users' vectors as they were trained. Solved when the items are done, 128
factors have .7515 / .4629, 192 .7503 / .4643, as iALS has (.7517 / .4625); by 1.2 or 1.3 times `reg` .7520 / .4623 and
.7487 / .4630, no reason to set it apart. By the softmax, fold-in, as if the user were unseen, .7068 / .4316 where the
own vector has .7081 / .4343.
"""

import numpy as np
from torch import Tensor, nn

from training.collaborative import Interactions, spectral_start
from training.dataset import TrainingData
from training.factors import FactorConfig, FactorModel, fit_factors, item_log_share
from training.model import Between, OneOf, Workplace

FRAMEWORK = "pytorch"
FEATURES: tuple[str, ...] = ()
STOPS_IN_TIME = True
SPACE = {
    "embedding_size": OneOf((32, 64, 128)),
    "reg": Between(0.003, 0.3, log=True),
    "user_exponent": Between(0.0, 1.0),
    "recency_exponent": Between(0.0, 1.5),
}


class Config(FactorConfig):
    embedding_size: int = 64
    epochs: int = 14
    batch_size: int = 1000
    learning_rate: float = 0.02
    reg: float = 0.08
    start_scale: float = 0.7
    recency_exponent: float = 0.75


WITHOUT_ORDER = {
    "recency_exponent": 0.0, "unobserved_weight": 0.15, "reg": 0.008, "embedding_size": 192, "epochs": 100,
    "batch_size": 500, "learning_rate": 0.03,
}  # fmt: skip
TRIALS = ({}, WITHOUT_ORDER, {"embedding_size": 128, "reg": 0.06})


class Factors(nn.Module):
    """The vectors of all users and items, and the items' bias."""

    def __init__(self, interactions: Interactions, data: TrainingData, config: Config, rng: np.random.Generator):
        super().__init__()
        users, items = spectral_start(interactions.matrix, config.embedding_size, config.start_scale, rng)
        self.users, self.items = nn.Parameter(users), nn.Parameter(items)  # (U, D), (I, D)
        bias = item_log_share(data)  # (I,)
        is_squared = config.unobserved_weight > 0  # zero is what a pair without an event ought to score
        self.bias = nn.Parameter(bias * (not is_squared), requires_grad=not is_squared)

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
