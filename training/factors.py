"""A trained factorisation, and how it serves users whom training has not seen.

A score is a dot product of factors and an item's bias, read as the logit of a softmax over the catalogue. Users of the
training have vectors of their own. Anybody else gets the vector that the same loss gives to the history while the items
stay as they are,

    min_u  Σ_i w_i · -log softmax(u · V + bias)_i + ridge (Σ w)^ridge_exponent ‖u‖²,

by a few steps of conjugate gradients from zero, with the covariance of the items under their popularity, the same for
everybody, as their preconditioner (training/encoders.py). Shapes: U users, I items, B histories of L items, D factors.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.collaborative import Batch, CollaborativeConfig, Interactions, train
from training.dataset import TrainingData
from training.encoders import FOLDED_AT_ONCE, ConjugateFoldIn, DotProductModel, dot
from training.model import Workplace, popularity, recency_shift, to_answer_with
from training.pairs import PairLoss


class FoldIn(ConjugateFoldIn):
    """What the bundle's encoder.onnx does: history and mask, right-aligned → the user's vector."""

    def __init__(
        self,
        vectors: Tensor,
        bias: Tensor,
        variance: Tensor,
        ridge: float,
        ridge_exponent: float,
        recency_exponent: float,
        steps: int = 8,
    ):
        """As `ConjugateFoldIn`; the variance of each factor, (D,)."""
        super().__init__(vectors, bias, recency_exponent, steps)
        self.register_buffer("variance", variance)
        self.ridge, self.ridge_exponent = ridge, ridge_exponent

    def diagonal(self, used: Tensor) -> tuple[Tensor, Tensor]:
        total = used.sum(1, keepdim=True)  # (B, 1)
        ridge = 2 * self.ridge * total**self.ridge_exponent
        return total * self.variance + ridge, ridge

    def slope(self, used: Tensor, scores: Tensor) -> Tensor:
        return used.sum(1, keepdim=True) * scores.softmax(-1) - used

    def bend(self, used: Tensor, scores: Tensor, moved: Tensor) -> Tensor:
        share = scores.softmax(-1)
        return used.sum(1, keepdim=True) * (dot(share, moved.square()) - dot(share, moved).square()).clamp(min=0)

    def damped(self, length: Tensor, moved: Tensor) -> Tensor:
        """A softmax may gather on few items along the way and bend more: Sun and Tran-Dinh 2019, "Generalized
        Self-Concordant Functions", whose step never raises the loss."""
        reach = (length.abs() * (moved.amax(1, keepdim=True) - moved.amin(1, keepdim=True))).clamp(min=1e-6)
        return length * reach.log1p() / reach


class FactorConfig(CollaborativeConfig):
    user_exponent: float = 0.5
    """A user whose events weigh n together counts as n^(1 - exponent) in the loss: judging counts users, not events."""
    unobserved_weight: float = 0.0
    """Above zero, the loss is the squared one over all pairs (training/pairs.py), where a pair without an event weighs
    this; user_exponent is not read. With zero it is the softmax."""


class FactorLoss:
    """The loss of a batch of users: the mean over events of -log softmax, and `reg` times what the vectors' squares sum
    up to on average over the users and over the items.
    """

    def __init__(self, network: nn.Module, interactions: Interactions, config: FactorConfig):
        """`network()` gives users (U, D), items (I, D) and the items' bias (I,)."""
        self.network, self.reg, self.exponent = network, config.reg, config.user_exponent
        share = np.bincount(interactions.matrix.indices, minlength=interactions.matrix.shape[1])
        self.share = torch.from_numpy(share / share.sum()).float()  # (I,)
        events = np.asarray(interactions.matrix.sum(1))  # (U,)
        self.unit = 1 / (events ** (1 - config.user_exponent)).sum()
        self.weight = self.unit * events**-config.user_exponent  # (U,)

    def __call__(self, batch: Batch) -> Tensor:
        users, items, bias = self.network()
        own = users[batch.users]  # (B, D)
        weight = self.weight[batch.users.numpy()] * (len(users) / len(own))
        loss = batch.softmax(own, items[batch.items], bias[batch.items], weight)
        return loss + self.reg * (own.square().sum(1).mean() + items.square().sum(1).mean())

    def solved(self, users: Tensor, items: Tensor, bias: Tensor) -> Tensor:
        """Return the users' vectors as they were trained. (U, D)"""
        return users

    def curvature(self, vectors: Tensor) -> Tensor:
        """Return the covariance of the items' vectors under their popularity, which stands for the softmax's. (D, D)"""
        centred = vectors - self.share @ vectors
        return (centred * self.share[:, None]).T @ centred

    def fold_in(self, vectors: Tensor, bias: Tensor, variance: Tensor, recency_exponent: float) -> FoldIn:
        """A user's part of the loss, divided by the user's weight, has `ridge` before n^exponent ‖u‖²."""
        ridge = self.reg / (len(self.weight) * self.unit)
        return FoldIn(vectors, bias, variance, ridge, self.exponent, recency_exponent)


class FactorModel(DotProductModel):
    """Users and items as vectors. Serves by vectors of its own whom it has trained on, everybody else by fold-in."""

    at_once = FOLDED_AT_ONCE

    def __init__(
        self,
        users: Tensor,
        vectors: Tensor,
        bias: Tensor,
        loss: "FactorLoss | PairLoss",
        interactions: Interactions,
        data: TrainingData,
        config: FactorConfig,
    ):
        self.interactions, self.counts = interactions, popularity(data)  # counts (I,)
        variance, axes = torch.linalg.eigh(loss.curvature(vectors))  # (D,), (D, D)
        self.users, self.vectors = users @ axes, vectors @ axes  # (U, D), (I, D)
        self.bias = bias + torch.from_numpy(recency_shift(data))  # (I,)
        recency = to_answer_with(config, data).recency_exponent
        self.encoder = loss.fold_in(self.vectors, bias, variance.clamp(min=1e-6), recency).eval()

    def score_users(self, users: np.ndarray) -> np.ndarray:
        """Return the scores of users by their codes in the training data. (B,) → float32 (B, I)"""
        own = self.users[torch.from_numpy(self.interactions.places(users))]
        return (own @ self.vectors.T + self.bias).numpy()

    def save_native(self, folder: Path) -> None:
        torch.save({"users": self.users, "items": self.vectors, "bias": self.bias}, folder / "factors.pt")


def fit_factors(
    name: str,
    network: nn.Module,
    interactions: Interactions,
    data: TrainingData,
    config: FactorConfig,
    seed: int,
    workplace: Workplace,
) -> FactorModel:
    """Train a network that gives users (U, D), items (I, D) and the items' bias (I,).

    Raises:
        CheckFailed: the loss is no longer finite.
    """
    torch.set_num_threads(workplace.threads)
    loss = (PairLoss if config.unobserved_weight else FactorLoss)(network, interactions, config)
    with torch.random.fork_rng():
        train(name, network, loss, interactions, data, config, seed, workplace)
    with torch.no_grad():
        users, items, bias = (part.detach() for part in network())
    return FactorModel(loss.solved(users, items, bias), items, bias, loss, interactions, data, config)


def item_log_share(data: TrainingData) -> Tensor:
    """Return the logarithm of each item's share of the events, one added to each, the largest zero. (I,)"""
    counts = np.bincount(data.items, minlength=data.n_items) + 1
    return torch.from_numpy(np.log(counts / counts.max()).astype(np.float32))
