"""What the collaborative filters in PyTorch share: interactions as a matrix, the softmax over the catalogue, the loop
of training.

Every training step takes some users and scores all of the catalogue for them (a random part where it is large), so
that a loss has no negatives to be drawn: Liang et al. 2018, "Variational Autoencoders for Collaborative Filtering",
whose multinomial likelihood it is. Shapes: U users in training, I items, B users of a batch, J items of a batch, D
factors.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from training.checkpoint import Checkpoint
from training.dataset import TrainingData
from training.model import ModelConfig, Workplace, check_finite

TIME_COUNTS_FROM = 0.2
"""Share of the allowed time before which the rate follows the steps alone: who has time enough gets the same weights in
any hour."""
log = logging.getLogger(__name__)


class CollaborativeConfig(ModelConfig):
    """What all of them have; the defaults stand in each model's file."""

    epochs: int
    min_steps: int = 80
    batch_size: int
    """Users of a step."""
    learning_rate: float
    reg: float
    recency_exponent: float = 0.0
    """Where the order of events means something, the item `a` places back weighs (1 + a)^-exponent in the loss."""
    max_candidates: int = 8192
    """Items that a step looks at; where there are more, they are drawn evenly for each step."""


@dataclass(frozen=True)
class Interactions:
    """Who used what."""

    users: np.ndarray
    """Codes of the users in training, ascending. (U,)"""
    matrix: scipy.sparse.csr_array
    """Weight of each user's items, above zero where there is one. float32 (U, I)"""

    @classmethod
    def of(cls, data: TrainingData, recency_exponent: float = 0.0) -> "Interactions":
        """Return each pair of user and item once, at its first event."""
        rows = data.sequences()
        lengths = np.array([len(own) for own in rows])
        events = np.concatenate(rows)
        users, codes = np.unique(data.users[events], return_inverse=True)
        age = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(events))  # 0 is the user's latest
        weights = (1.0 + age) ** -(recency_exponent if data.is_ordered else 0.0)
        matrix = scipy.sparse.csr_array(
            (weights.astype(np.float32), (codes, data.items[events])), shape=(len(users), data.n_items)
        )
        matrix.sort_indices()
        return cls(users, matrix)

    def places(self, users: np.ndarray) -> np.ndarray:
        """Return the rows of users by their codes. (B,)"""
        return np.searchsorted(self.users, users)


def as_tensor(matrix: scipy.sparse.csr_array) -> Tensor:
    """Return a sparse matrix as PyTorch multiplies it fastest on a processor."""
    rows = matrix.tocsr()
    return torch.sparse_csr_tensor(
        *(torch.from_numpy(index.astype(np.int32)) for index in (rows.indptr, rows.indices)),
        torch.from_numpy(rows.data.astype(np.float32)),
        size=rows.shape,
        check_invariants=False,
    )


class Multiply(torch.autograd.Function):
    """A constant sparse matrix (N, M) times a dense one (M, D). Its transpose is given, for the way back."""

    @staticmethod
    def forward(ctx, dense: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix @ dense

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.transposed @ gradient.contiguous(), None, None


class CatalogueSoftmax(torch.autograd.Function):
    """Σ_u Σ_i x_ui · -log softmax(u · V + bias)_i, and its gradient, without a second matrix of users by items.

    Arguments: users (B, D), vectors (J, D), bias (J,), x sparse (B, J) and its transpose, each row's sum of x (B,).
    """

    @staticmethod
    def forward(
        ctx, users: Tensor, vectors: Tensor, bias: Tensor, used: Tensor, transposed: Tensor, total: Tensor
    ) -> Tensor:
        logits = torch.addmm(bias, users, vectors.T)  # (B, J)
        highest = logits.amax(1, keepdim=True)
        weights = logits.sub_(highest).exp_()  # in place
        summed = weights.sum(1)  # (B,)
        liked = used @ vectors  # (B, D)
        ctx.save_for_backward(users, vectors, weights, liked, (total / summed)[:, None])
        ctx.transposed = transposed
        ones = torch.ones(len(users), 1)
        own_bias = (bias * (transposed @ ones)[:, 0]).sum()
        return (total * (highest[:, 0] + summed.log())).sum() - (liked * users).sum() - own_bias

    @staticmethod
    def backward(ctx, weight: Tensor) -> tuple[Tensor | None, ...]:
        users, vectors, weights, liked, scale = ctx.saved_tensors
        by_users = scale * (weights @ vectors) - liked
        by_vectors = weights.T @ (scale * users) - ctx.transposed @ users
        by_bias = (weights.T @ scale - ctx.transposed @ torch.ones(len(users), 1))[:, 0]
        return weight * by_users, weight * by_vectors, weight * by_bias, None, None, None


@dataclass(frozen=True)
class Batch:
    """The users and the items of one step."""

    users: Tensor
    """Rows of the matrix. (B,)"""
    items: Tensor | slice
    """Items among which the users' own are to be found: (J,), or all."""
    used: scipy.sparse.csr_array
    """Weights of the users' items among them. (B, J)"""
    share: float
    """J / I, so that a sum over the users' items here, divided by it, is that over all on average."""
    done: float
    """Share of the training that lies behind."""
    rng: np.random.Generator

    def softmax(self, users: Tensor, vectors: Tensor, bias: Tensor, weight: np.ndarray) -> Tensor:
        """Return the loss of the users' vectors (B, D) against the items' (J, D), each user weighing `weight` (B,)."""
        used = scipy.sparse.diags_array(weight.astype(np.float32) / np.float32(self.share)) @ self.used
        total = torch.from_numpy(np.asarray(used.sum(1), np.float32))
        return CatalogueSoftmax.apply(users, vectors, bias, as_tensor(used), as_tensor(used.T), total)


def batches(
    matrix: scipy.sparse.csr_array, steps: int, config: CollaborativeConfig, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Deal all users into batches, at random, and draw each one's items, None for all."""
    n_items, size = matrix.shape[1], config.max_candidates
    dealt = np.array_split(rng.permutation(matrix.shape[0]), steps)
    return [
        (np.sort(users), None if size >= n_items else np.sort(rng.choice(n_items, size, replace=False)))
        for users in dealt
    ]


def train(
    name: str,
    network: nn.Module,
    loss_of: Callable[[Batch], Tensor],
    interactions: Interactions,
    data: TrainingData,
    config: CollaborativeConfig,
    seed: int,
    workplace: Workplace,
) -> None:
    """Train for the configured epochs, or for as long as the workplace allows, whichever ends first.

    The rate rises for a few steps and falls to nothing in a straight line: Adam's early steps are as long as any.

    Raises:
        CheckFailed: the loss is no longer finite.
    """
    matrix = interactions.matrix
    steps = math.ceil(matrix.shape[0] / config.batch_size)  # an epoch's
    epochs = max(config.epochs, math.ceil(config.min_steps / steps))
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
    checkpoint = Checkpoint.of(name, data, config, seed, workplace)
    for epoch in checkpoint.epochs(network, optimiser, epochs):
        rng = np.random.default_rng([seed, epoch])
        torch.manual_seed(int(rng.integers(2**63)))
        losses = []
        for users, items in batches(matrix, steps, config, rng):
            done, spent = (epoch + len(losses) / steps) / epochs, workplace.spent()
            done = max(done, spent) if spent > TIME_COUNTS_FROM else done
            if done >= 1:
                log.warning("%s stops in epoch %d of %d: its time is over", name, epoch + 1, epochs)
                checkpoint.remove()
                return
            optimiser.param_groups[0]["lr"] = (
                config.learning_rate * min(1, done * epochs * steps / 10 + 0.1) * (max(0.02, 1 - done))
            )
            used = matrix[users] if items is None else matrix[users][:, items]
            share = 1.0 if items is None else len(items) / matrix.shape[1]
            where = slice(None) if items is None else torch.from_numpy(items)
            optimiser.zero_grad()
            loss = loss_of(Batch(torch.from_numpy(users), where, used, share, done, rng))
            losses.append(loss.item())
            check_finite(losses[-1], name, epoch * steps + len(losses))
            loss.backward()
            optimiser.step()
        log.info("%s epoch %d of %d: loss %.4f", name, epoch + 1, epochs, np.mean(losses))


def normalised(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Return each entry over the root of its row's and its column's sum; nothing where there is none. (U, I)"""
    by_row, by_column = (scipy.sparse.diags_array(np.maximum(matrix.sum(axis), 1e-12) ** -0.5) for axis in (1, 0))
    return (by_row @ matrix @ by_column).tocsr().astype(np.float32)


def spectral_start(
    matrix: scipy.sparse.csr_array, size: int, scale: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return users (U, D) and items (I, D) from the largest singular vectors of the normalised matrix, with some noise.

    A training that starts from noise spends most of its steps on finding this space. A column is as long as its
    singular value, the first one `scale` on average over the rows. Where there are fewer columns than D the rest is
    noise.
    """
    users, items = (rng.normal(0, 0.01, (length, size)).astype(np.float32) for length in matrix.shape)
    rank = min(size, *matrix.shape)
    left, values, right = largest_singular_vectors(normalised(matrix), rank, rng)
    stretch = scale * values / max(float(values.max()), 1e-12)
    users[:, :rank] += left * stretch * np.sqrt(matrix.shape[0])
    items[:, :rank] += right * stretch * np.sqrt(matrix.shape[1])
    return torch.from_numpy(users), torch.from_numpy(items)


def largest_singular_vectors(
    matrix: scipy.sparse.csr_array, rank: int, rng: np.random.Generator, passes: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the left (U, R) and right (I, R) vectors and the values (R,), nearly: the last of them by a few per cent.

    Halko, Martinsson, Tropp 2011, "Finding Structure with Randomness". A Lanczos method is exact and takes ten times as
    long from some hundred vectors on.
    """
    width = min(rank + 16, *matrix.shape)
    space = rng.normal(size=(matrix.shape[1], width)).astype(np.float32)
    for _ in range(passes):
        space = np.linalg.qr(matrix @ space)[0]  # (U, W)
        space = np.linalg.qr(matrix.T @ space)[0]  # (I, W)
    left, values, right = np.linalg.svd(matrix @ space, full_matrices=False)
    return left[:, :rank], values[:rank], (space @ right.T)[:, :rank]
