"""A trained factorisation, and how it serves users whom training has not seen.

A score is a dot product of factors and an item's bias, read as the logit of a softmax over the catalogue. Users of the
training have vectors of their own. Anybody else gets the vector that the same loss gives to the history while the items
stay as they are,

    min_u  Σ_i w_i · -log softmax(u · V + bias)_i + ridge (Σ w)^ridge_exponent ‖u‖²,

by a few Newton steps from zero with the covariance of the items under their popularity in place of the softmax's own:
it is the same for everybody, and diagonal once the factors are rotated onto its axes. So a step is two products with
V and a division, and the whole is an encoder that ONNX can hold. Shapes: U users, I items, B histories of L items, D
factors.
"""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.collaborative import Batch, CollaborativeConfig, Interactions, train
from training.dataset import TrainingData
from training.model import Parts, Workplace, popularity, recency_shift
from training.pairs import PairLoss

ONNX_OPSET = 18
MAX_HISTORY = 1000
SCORED_AT_ONCE = 256
"""Histories that are padded to one length together."""


class FoldIn(nn.Module):
    """What the bundle's encoder.onnx does: history and mask, right-aligned → the user's vector."""

    def __init__(
        self,
        vectors: Tensor,
        bias: Tensor,
        curvature: Tensor,
        ridge: float,
        ridge_exponent: float,
        recency_exponent: float,
        steps: int = 8,
        stride: float = 0.7,
    ):
        """Items (I, D), rotated; bias (I,); the variance of each factor, (D,)."""
        super().__init__()
        self.register_buffer("items", vectors)
        self.register_buffer("bias", bias)
        self.register_buffer("curvature", curvature)
        self.ridge, self.ridge_exponent, self.recency_exponent = ridge, ridge_exponent, recency_exponent
        self.steps, self.stride = steps, stride

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        age = mask.sum(1, keepdim=True) - mask.cumsum(1)  # (B, L), 0 is the latest
        weights = mask * (1 + age) ** -self.recency_exponent
        total = weights.sum(1, keepdim=True)  # (B, 1)
        ridge = 2 * self.ridge * total**self.ridge_exponent
        liked = as_rows(history, weights, len(self.bias)) @ self.items  # (B, D)
        step = 1 / (total * self.curvature + ridge)  # (B, D)
        user = torch.zeros_like(liked)
        for number in range(self.steps):
            expected = (user @ self.items.T + self.bias).softmax(-1) @ self.items  # (B, D)
            slope = total * expected - liked + ridge * user
            user = user - (self.stride if number else 1.0) * step * slope
        return user


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

    def curvature(self, vectors: Tensor) -> Tensor:
        """Return the covariance of the items' vectors under their popularity, which stands for the softmax's. (D, D)"""
        centred = vectors - self.share @ vectors
        return (centred * self.share[:, None]).T @ centred

    def fold_in(self, vectors: Tensor, bias: Tensor, variance: Tensor, recency_exponent: float) -> FoldIn:
        """A user's part of the loss, divided by the user's weight, has `ridge` before n^exponent ‖u‖²."""
        ridge = self.reg / (len(self.weight) * self.unit)
        return FoldIn(vectors, bias, variance, ridge, self.exponent, recency_exponent)


class FactorModel:
    """Users and items as vectors. Serves by vectors of its own whom it has trained on, everybody else by fold-in."""

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
        recency = config.recency_exponent if data.is_ordered else 0.0
        self.encoder = loss.fold_in(self.vectors, bias, variance.clamp(min=1e-6), recency).eval()

    @torch.no_grad()
    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        users = torch.cat(
            [
                self.encoder(*padded(histories[start : start + SCORED_AT_ONCE]))
                for start in range(0, len(histories), SCORED_AT_ONCE)
            ]
        )  # (B, D)
        return (users @ self.vectors.T + self.bias).numpy()  # (B, I)

    def score_users(self, users: np.ndarray) -> np.ndarray:
        """Return the scores of users by their codes in the training data. (B,) → float32 (B, I)"""
        own = self.users[torch.from_numpy(self.interactions.places(users))]
        return (own @ self.vectors.T + self.bias).numpy()

    def parts(self) -> Parts:
        arrays = {"popularity": self.counts, "item_vectors": self.vectors.numpy(), "item_bias": self.bias.numpy()}
        return Parts("onnx", arrays, to_onnx(self.encoder, "user_vector"), {"max_history": MAX_HISTORY})

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
    return FactorModel(users, items, bias, loss, interactions, data, config)


def item_log_share(data: TrainingData) -> Tensor:
    """Return the logarithm of each item's share of the events, one added to each, the largest zero. (I,)"""
    counts = np.bincount(data.items, minlength=data.n_items) + 1
    return torch.from_numpy(np.log(counts / counts.max()).astype(np.float32))


def as_rows(history: Tensor, weights: Tensor, n_items: int) -> Tensor:
    """Return histories and weights, both (B, L), as rows of all items, (B, I): items' vectors for each place of each
    history, (B, L, D), would be many times larger."""
    return weights.new_zeros(history.shape[0], n_items).scatter_add(1, history, weights)


def padded(histories: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return items and mask of histories, the latest item last. Both (B, L)"""
    recent = [history[-MAX_HISTORY:] for history in histories]
    longest = max(len(history) for history in recent)
    items, mask = torch.zeros(len(recent), longest, dtype=torch.long), torch.zeros(len(recent), longest)
    for row, history in enumerate(recent):
        items[row, longest - len(history) :] = torch.from_numpy(history.astype(np.int64))
        mask[row, longest - len(history) :] = 1
    return items, mask


def to_onnx(encoder: nn.Module, output: str) -> bytes:
    """Return an encoder of history and mask as ONNX. `output`: name of what it gives."""
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=MAX_HISTORY)
    program = torch.onnx.export(
        encoder,
        (torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3)),
        input_names=["history", "mask"],
        output_names=[output],
        dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
        opset_version=ONNX_OPSET,
        dynamo=True,
        verbose=False,
    )
    buffer = io.BytesIO()
    program.save(buffer)
    return buffer.getvalue()
