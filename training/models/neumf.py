"""NeuMF in PyTorch: a factorisation beside a network over the pair of user and item, added up by one last layer.

He, Liao, Zhang, Nie, Hu, Chua 2017, "Neural Collaborative Filtering": user and item have vectors for the product
(GMF) and others that go through layers together (MLP),

    score = h · [p_u ∘ q_i ; MLP([p'_u ; q'_i])] + bias_i,

where ours has a bias of the item, as training/models/mf.py has. The paper pre-trains both parts pair by pair with
four random negatives each. Here a step takes some hundred users against some hundred items drawn evenly, all pairs of
them, by a softmax among these items; the product begins at the largest singular vectors and the network's part of h
at nothing, so that it learns what the product leaves over. The first layer is linear in both vectors before its ReLU:
it is computed once a user and once an item, not once a pair. Where events have no order the product is trained first,
alone, as the paper does, and the loss is the squared one over all pairs (training/pairs.py).

A score is no dot product, so the bundle's encoder gives the scores themselves. A user whom training has not seen gets
both vectors from the mean of the history's item vectors, by a ridge regression over the users that it has seen.

Chosen on NCF's MovieLens 1M as in training/models/mf.py, hit rate / ndcg@10, 12 epochs, 64 factors: recency_exponent
0 at reg .03 .7035 / .4229; .5 at .06 .7709 / .5114; .75 at .03 .7801 / .5349 (the choice); 1 at .03 .7584 / .5257. By
fold-in the same four have .6952 / .4247, .7669 / .5128, .7849 / .5471 and .7637 / .5412. By the loss of all pairs
without order, 128 factors, 8 epochs after 100 of the product: .7454 / .4570; by a logistic loss instead .7475 / .4590.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.collaborative import Batch, CollaborativeConfig, Interactions, spectral_start, train
from training.dataset import TrainingData
from training.encoders import MAX_HISTORY, encoded, recency_weights, to_onnx, weighted_sum
from training.factors import item_log_share
from training.model import Between, OneOf, Parts, Workplace, popularity, recency_shift, to_answer_with
from training.models import mf
from training.pairs import PairLoss

FRAMEWORK = "pytorch"
FEATURES: tuple[str, ...] = ()
STOPS_IN_TIME = True
SCORED_ITEMS = 8192
"""Items whose hidden layers are held at once, so that they stay in a core's own cache."""
SPACE = {
    "embedding_size": OneOf((32, 64, 128)),
    "reg": Between(0.003, 0.3, log=True),
    "user_exponent": Between(0.0, 1.0),
    "recency_exponent": Between(0.0, 1.5),
    "learning_rate": Between(0.002, 0.03, log=True),
}

WITHOUT_ORDER = {
    "recency_exponent": 0.0, "unobserved_weight": 0.15, "reg": 0.008, "embedding_size": 128, "epochs": 8,
    "learning_rate": 0.003, "max_candidates": 1024,
}  # fmt: skip
TRIALS = ({}, WITHOUT_ORDER)


class Config(CollaborativeConfig):
    embedding_size: int = 64
    """Of the product; the network's vectors are half as long."""
    layers: tuple[int, ...] = (32, 16, 8)
    epochs: int = 12
    min_steps: int = 80
    batch_size: int = 500
    learning_rate: float = 0.01
    reg: float = 0.03
    user_exponent: float = 0.5
    start_scale: float = 0.7
    recency_exponent: float = 0.75
    max_candidates: int = 512
    fold_in_reg: float = 1.0
    unobserved_weight: float = 0.0
    """Above zero: the product is trained first, alone, and both parts then together, by the squared loss over all
    pairs (training/pairs.py) where a pair without an event weighs this; user_exponent is not read."""
    product_epochs: int = 100
    """Of the product alone."""


class Network(nn.Module):
    """Vectors of users and items, and what is made of a pair of them."""

    def __init__(self, interactions: Interactions, data: TrainingData, config: Config, rng: np.random.Generator):
        super().__init__()
        size, (first, *rest) = config.embedding_size, config.layers
        users, items = spectral_start(interactions.matrix, size, config.start_scale, rng)
        self.users, self.items = nn.Parameter(users), nn.Parameter(items)  # (U, D), (I, D)
        self.net_users, self.net_items = (nn.Parameter(torch.randn(len(of), size // 2) * 0.1) for of in (users, items))
        self.from_user, self.from_item = nn.Linear(size // 2, first), nn.Linear(size // 2, first, bias=False)
        widths = [first, *rest]
        self.between = nn.Sequential(
            *(part for wide, narrow in zip(widths, rest, strict=False) for part in (nn.Linear(wide, narrow), nn.ReLU()))
        )
        self.last_product = nn.Parameter(torch.ones(size))
        self.last_net = nn.Parameter(torch.zeros(widths[-1]))
        self.bias = nn.Parameter(item_log_share(data))  # (I,)

    def forward(self, users: Tensor, net_users: Tensor, items: Tensor | slice = slice(None)) -> Tensor:
        """Return the scores of users by both of their vectors, (B, D) and (B, D / 2), for some items. (B, J)"""
        product = (users * self.last_product) @ self.items[items].T  # (B, J)
        pair = self.from_user(net_users)[:, None] + self.from_item(self.net_items[items])[None]  # (B, J, H)
        return product + self.between(pair.relu()) @ self.last_net + self.bias[items]


class Loss:
    """The loss of a batch of users, weighed as in training/factors.py."""

    def __init__(self, network: Network, interactions: Interactions, config: Config):
        self.network, self.reg = network, config.reg
        events = np.asarray(interactions.matrix.sum(1))  # (U,)
        weight = events**-config.user_exponent
        self.weight = torch.from_numpy(weight / (weight * events).sum()).float()  # (U,)

    def __call__(self, batch: Batch) -> Tensor:
        network = self.network
        users, net_users = network.users[batch.users], network.net_users[batch.users]
        log_share = network(users, net_users, batch.items).log_softmax(1)  # (B, J)
        used = torch.from_numpy(batch.used.toarray()) / batch.share
        scale = len(network.users) / len(users)
        loss = -scale * (self.weight[batch.users] * (used * log_share).sum(1)).sum()
        vectors = (users, network.items, net_users, network.net_items)
        return loss + self.reg * sum(part.square().sum(1).mean() for part in vectors)


class LossOfPairs:
    """The squared loss of a batch of users, a user, with the regularisation of training/pairs.py for all vectors."""

    def __init__(self, network: Network, product: PairLoss):
        self.network, self.product = network, product

    def __call__(self, batch: Batch) -> Tensor:
        network, product = self.network, self.product
        users, net_users = network.users[batch.users], network.net_users[batch.users]
        scores = network(users, net_users, batch.items)  # (B, J)
        used = torch.from_numpy(batch.used.toarray())
        loss = (used * (1 - scores).square() + product.alpha * (used == 0) * scores.square()).sum()
        of_users, of_items = (
            (weight * (one.square().sum(1) + other.square().sum(1))).sum()
            for weight, one, other in (
                (product.of_users[batch.users], users, net_users),
                (product.of_items[batch.items], network.items[batch.items], network.net_items[batch.items]),
            )
        )
        share = len(users) / len(network.users)
        return ((loss + share * of_items) / batch.share + of_users) / len(users)


class Scorer:
    """What `Network` says of all items, without a gradient: a user at a time, in blocks of items, in place.

    Six times as fast as the same formula over a batch of users, whose layers are too large for a cache.
    """

    def __init__(self, network: Network, shift: Tensor):
        """`shift`: what is added to each item's bias. (I,)"""
        self.from_user, self.last_net = network.from_user, network.last_net
        self.items, self.bias = (network.items * network.last_product).T, network.bias + shift  # (D, I), (I,)
        self.of_items = network.from_item(network.net_items).T.contiguous()  # (H, I)
        linear = [part for part in network.between if isinstance(part, nn.Linear)]
        self.layers = [(part.weight, part.bias[:, None]) for part in linear]

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return the scores of users by both of their vectors, one behind the other. (B, 1.5 D) → (B, I)"""
        size = len(self.items)
        scores = torch.addmm(self.bias, vectors[:, :size], self.items)
        for row, of_user in zip(scores, self.from_user(vectors[:, size:])[:, :, None], strict=True):
            blocks = zip(row.split(SCORED_ITEMS), self.of_items.split(SCORED_ITEMS, 1), strict=True)
            for block, of_items in blocks:
                hidden = (of_user + of_items).relu_()  # (H, J)
                for weight, bias in self.layers:
                    hidden = torch.addmm(bias, weight, hidden).relu_()
                block += self.last_net @ hidden
        return scores


class Encoder(nn.Module):
    """What the bundle's encoder.onnx does: history and mask, right-aligned → the scores of all items."""

    def __init__(self, network: Network, folded: Tensor, shift: Tensor, recency_exponent: float):
        """`folded`: what an item of the history adds to its user's vectors; the last row is for all. (I + 1, 1.5 D)"""
        super().__init__()
        self.network, self.recency_exponent = network, recency_exponent
        self.register_buffer("folded", folded)
        self.register_buffer("shift", shift)  # (I,)

    def users(self, history: Tensor, mask: Tensor) -> Tensor:
        """Return both vectors of users by their histories, one behind the other. (B, 1.5 D)"""
        weights = recency_weights(mask, self.recency_exponent)
        share = weights / weights.sum(1, keepdim=True)
        return weighted_sum(history, share, self.folded[:-1]) + self.folded[-1]

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        vectors, size = self.users(history, mask), self.network.users.shape[1]
        return self.network(vectors[:, :size], vectors[:, size:]) + self.shift


class NeuMF:
    """The trained network."""

    def __init__(self, network: Network, interactions: Interactions, data: TrainingData, config: Config):
        self.network, self.interactions, self.counts = network.eval(), interactions, popularity(data)  # counts (I,)
        with torch.no_grad():
            folded = folded_items(network, interactions, config.fold_in_reg)
            shift = torch.from_numpy(recency_shift(data))
            self.scorer = Scorer(network, shift)
        exponent = to_answer_with(config, data).recency_exponent
        self.encoder = Encoder(network, folded, shift, exponent).eval()

    @torch.no_grad()
    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        return self.scorer(encoded(self.encoder.users, histories)).numpy()

    @torch.no_grad()
    def score_users(self, users: np.ndarray) -> np.ndarray:
        """Return the scores of users by their codes in the training data. (B,) → float32 (B, I)"""
        rows, network = torch.from_numpy(self.interactions.places(users)), self.network
        return self.scorer(torch.cat([network.users[rows], network.net_users[rows]], 1)).numpy()

    def parts(self) -> Parts:
        arrays = {"popularity": self.counts, "item_vectors": self.network.items.detach().numpy()}
        return Parts("scorer", arrays, to_onnx(self.encoder, "scores"), {"max_history": MAX_HISTORY})

    def save_native(self, folder: Path) -> None:
        torch.save(self.network.state_dict(), folder / "network.pt")


def folded_items(network: Network, interactions: Interactions, reg: float) -> Tensor:
    """Return the ridge regression of users' vectors on the mean of their items', as a row an item and one for all."""
    known = torch.cat([network.users, network.net_users], 1).numpy().astype(np.float64)  # (U, 1.5 D)
    items = torch.cat([network.items, network.net_items], 1).numpy().astype(np.float64)  # (I, 1.5 D)
    matrix = interactions.matrix
    read = (matrix @ items) / np.asarray(matrix.sum(1))[:, None]  # (U, 1.5 D)
    centre, target = read.mean(0), known.mean(0)
    left = (read - centre).T @ (read - centre) + reg * np.eye(read.shape[1])
    slope = np.linalg.solve(left, (read - centre).T @ (known - target))  # (1.5 D, 1.5 D)
    return torch.from_numpy(np.vstack([items @ slope, target - centre @ slope]).astype(np.float32))


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> NeuMF:
    """Train both parts together; the product alone before that, where the loss is that of all pairs.

    Raises:
        CheckFailed: the loss is no longer finite.
    """
    torch.set_num_threads(workplace.threads)
    interactions = Interactions.of(data, config.recency_exponent)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(interactions, data, config, np.random.default_rng(seed))
        if config.unobserved_weight:
            loss = LossOfPairs(network, train_product(network, interactions, data, config, seed, workplace))
        else:
            loss = Loss(network, interactions, config)
        train("neumf", network, loss, interactions, data, config, seed, workplace)
    return NeuMF(network, interactions, data, config)


def train_product(
    network: Network, interactions: Interactions, data: TrainingData, config: Config, seed: int, workplace: Workplace
) -> PairLoss:
    """Train the product's vectors and the bias as training/models/mf.py does, in half of the time at most."""
    alone = mf.Config(**mf.WITHOUT_ORDER | {
        "embedding_size": config.embedding_size, "epochs": config.product_epochs, "reg": config.reg,
        "recency_exponent": config.recency_exponent, "unobserved_weight": config.unobserved_weight,
    })  # fmt: skip
    factors = mf.Factors(interactions, data, alone, np.random.default_rng(seed))
    loss = PairLoss(factors, interactions, alone)
    train("neumf-product", factors, loss, interactions, data, alone, seed, workplace.part(0.5))
    with torch.no_grad():
        network.users.copy_(factors.users)
        network.items.copy_(factors.items)
        network.bias.copy_(factors.bias).requires_grad_(False)
    return loss
