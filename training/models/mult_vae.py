"""Mult-VAE in PyTorch: a user's history through a bottleneck of chance, back to a softmax over the catalogue.

Liang, Krishnan, Hoffman, Jebara 2018, "Variational Autoencoders for Collaborative Filtering": the history as a vector
of length one, half of it dropped; a layer to `hidden_size`, one to mean and spread of `embedding_size` numbers, a
draw, and the way back; the loss is the multinomial likelihood of the whole history plus β times the divergence from a
standard normal, β rising from zero during the first part of the training. A user is nothing but the history, so
everybody is folded in.

The decoder's last layer is a dot product: what goes into it is the user's vector, its rows are the items'. At serving
the mean is taken for the draw.

On UltraGCN's MovieLens 1M with a fifth of the training items held out, recall@20 / ndcg@20 (EASE .2246 / .2631): 30
epochs at learning rate .005 .2292 / .2576 in 51 processor seconds (the choice); 20 epochs at .002 ndcg@10 .2311 against
.2422, not yet trained. On large and sparse data an epoch of that takes a minute: on KGAT's Amazon-book three of them
fit into a budget of 240 seconds, recall@20 / ndcg@20 .1220 / .0665; `LIGHT` goes through all thirty in 345 processor
seconds with its trial, .1402 / .0756.
"""

import math
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from training.collaborative import Batch, CollaborativeConfig, Interactions, Multiply, as_tensor, train
from training.dataset import TrainingData
from training.encoders import DotProductModel, weighted_sum
from training.factors import item_log_share
from training.model import Between, OneOf, Workplace, popularity, recency_shift

FRAMEWORK = "pytorch"
FEATURES: tuple[str, ...] = ()
STOPS_IN_TIME = True
SPACE = {
    "embedding_size": OneOf((64, 200, 400)),
    "dropout": Between(0.1, 0.8),
    "reg": Between(0.02, 1.0, log=True),
    "recency_exponent": Between(0.0, 1.5),
    "learning_rate": Between(0.001, 0.02, log=True),
}


LIGHT = {"hidden_size": 200, "embedding_size": 100, "max_candidates": 2048}
TRIALS = ({}, LIGHT)


class Config(CollaborativeConfig):
    embedding_size: int = 200
    hidden_size: int = 600
    epochs: int = 30
    min_steps: int = 200
    batch_size: int = 500
    learning_rate: float = 0.005
    dropout: float = 0.5
    reg: float = 0.2
    """β, where it has risen to."""
    rising_share: float = 0.4
    """Of the training, during which β rises."""


class Network(nn.Module):
    """Encoder and decoder."""

    def __init__(self, data: TrainingData, config: Config):
        super().__init__()
        wide, narrow = config.hidden_size, config.embedding_size
        self.item_in = nn.Parameter(torch.randn(data.n_items, wide) / math.sqrt(wide))  # (I, H)
        self.bias_in = nn.Parameter(torch.zeros(wide))
        self.narrow, self.widen = nn.Linear(wide, 2 * narrow), nn.Linear(narrow, wide)
        self.item_out = nn.Parameter(torch.randn(data.n_items, wide) * 0.01)  # (I, H)
        self.bias_out = nn.Parameter(item_log_share(data))  # (I,)

    def normal(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance, both (B, D), of users by what the first layer reads, (B, H)."""
        return self.narrow(torch.tanh(read + self.bias_in)).chunk(2, dim=-1)

    def user(self, code: Tensor) -> Tensor:
        """(B, D) → (B, H)"""
        return torch.tanh(self.widen(code))


class Loss:
    """The loss of a batch of users."""

    def __init__(self, network: Network, interactions: Interactions, config: Config):
        self.network, self.config = network, config
        lengths = np.sqrt(interactions.matrix.power(2).sum(1))  # (U,)
        self.read = (scipy.sparse.diags_array(1 / lengths) @ interactions.matrix).tocsr()  # (U, I), rows of length one

    def __call__(self, batch: Batch) -> Tensor:
        kept = self.read[batch.users.numpy()]  # (B, I)
        kept.data *= (batch.rng.random(len(kept.data)) >= self.config.dropout) / (1 - self.config.dropout)
        read = Multiply.apply(self.network.item_in, as_tensor(kept), as_tensor(kept.T))  # (B, H)
        mean, log_variance = self.network.normal(read)
        code = mean + torch.randn_like(mean) * torch.exp(log_variance / 2)
        vectors, bias = self.network.item_out[batch.items], self.network.bias_out[batch.items]
        even = np.full(len(code), 1 / len(code))
        likelihood = batch.softmax(self.network.user(code), vectors, bias, even)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        beta = self.config.reg * min(1.0, batch.done / self.config.rising_share)
        return likelihood + beta * divergence


class Encoder(nn.Module):
    """What the bundle's encoder.onnx does: history and mask → the user's vector."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        weights = mask * mask.sum(1, keepdim=True) ** -0.5  # (B, L)
        mean, _ = self.network.normal(weighted_sum(history, weights, self.network.item_in))
        return self.network.user(mean)  # (B, H)


class MultVAE(DotProductModel):
    """The trained network."""

    def __init__(self, network: Network, data: TrainingData):
        self.network, self.counts = network, popularity(data)  # (I,)
        self.encoder = Encoder(network).eval()
        self.vectors = network.item_out.detach()  # (I, H)
        self.bias = network.bias_out.detach() + torch.from_numpy(recency_shift(data))  # (I,)

    def save_native(self, folder: Path) -> None:
        torch.save(self.network.state_dict(), folder / "network.pt")


def estimate_seconds(data: TrainingData, config: Config) -> float:
    """Measured on one core of 2026: the products of a step, and Adam's way through both tables."""
    steps = max(config.min_steps, config.epochs * math.ceil(len(np.unique(data.users)) / config.batch_size))
    candidates = min(config.max_candidates, data.n_items)
    products = 1e-10 * config.batch_size * candidates * config.hidden_size
    return 1 + steps * (products + 2.3e-9 * 2 * data.n_items * config.hidden_size)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> MultVAE:
    """Train encoder and decoder together.

    Raises:
        CheckFailed: the loss is no longer finite.
    """
    torch.set_num_threads(workplace.threads)
    interactions = Interactions.of(data)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(data, config)
        train("mult_vae", network, Loss(network, interactions, config), interactions, data, config, seed, workplace)
    return MultVAE(network, data)
