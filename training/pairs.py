"""The squared loss over all pairs of users and items, for factors whose interactions have no order.

Hu, Koren, Volinsky 2008, "Collaborative Filtering for Implicit Feedback Datasets": a pair with an event ought to
score one, any other zero, and that weighs `unobserved_weight`. A vector's regularisation grows with what it is
learned from: Rendle, Krichene, Zhang, Koren 2021, "Revisiting the Performance of iALS". It is the loss of
training/models/ials.py, here for whatever can be trained by its gradient. Shapes: U users, I items, B users of a
batch, J items of a batch, L items of a history, D factors.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from training.collaborative import Batch, Interactions
from training.encoders import ConjugateFoldIn, dot


class AllPairs(torch.autograd.Function):
    """Σ_observed x (1 - s)² + α Σ_others s², s = u · V + bias, and its gradient, without a second matrix of users by
    items.

    Arguments: users (B, D), vectors (J, D), bias (J,), row and column of the observed pairs, x > 0 of each, (n,), α.
    """

    @staticmethod
    def forward(
        ctx, users: Tensor, vectors: Tensor, bias: Tensor, row: Tensor, column: Tensor, x: Tensor, alpha: float
    ) -> Tensor:
        scores = torch.addmm(bias, users, vectors.T)  # (B, J)
        own = scores[row, column]
        others = scores.square().sum() - own.square().sum()
        half_slope = scores.mul_(alpha)  # in place
        half_slope[row, column] = x * (own - 1)
        ctx.save_for_backward(users, vectors, half_slope)
        return (x * (1 - own).square()).sum() + alpha * others

    @staticmethod
    def backward(ctx, weight: Tensor) -> tuple[Tensor | None, ...]:
        users, vectors, half_slope = ctx.saved_tensors
        by_users, by_vectors, by_bias = half_slope @ vectors, half_slope.T @ users, half_slope.sum(0)
        return 2 * weight * by_users, 2 * weight * by_vectors, 2 * weight * by_bias, None, None, None, None


class PairLoss:
    """The loss of a batch, a user: all its pairs, and `reg` (Σ x + α I) ‖u‖², with the items' share of the same."""

    def __init__(self, network: nn.Module, interactions: Interactions, config: Any):
        """`network()` gives users (U, D), items (I, D), the items' bias (I,). Of `config`: reg, unobserved_weight."""
        self.network, self.reg, self.alpha = network, config.reg, config.unobserved_weight
        self.matrix = interactions.matrix
        matrix, (n_users, n_items) = interactions.matrix, interactions.matrix.shape
        self.of_users, self.of_items = (
            torch.from_numpy((self.reg * (matrix.sum(axis) + self.alpha * others)).astype(np.float32))
            for axis, others in ((1, n_items), (0, n_users))
        )  # (U,), (I,)

    def __call__(self, batch: Batch) -> Tensor:
        users, items, bias = self.network()
        own, rated = users[batch.users], items[batch.items]  # (B, D), (J, D)
        used = batch.used.tocoo()
        row, column = (torch.from_numpy(index.astype(np.int64)) for index in used.coords)
        loss = AllPairs.apply(own, rated, bias[batch.items], row, column, torch.from_numpy(used.data), self.alpha)
        ridge = (self.of_users[batch.users] * own.square().sum(1)).sum()
        share = len(own) / len(users)
        ridge_of_items = share * (self.of_items[batch.items] * rated.square().sum(1)).sum()
        return ((loss + ridge_of_items) / batch.share + ridge) / len(own)

    def solved(self, users: Tensor, items: Tensor, bias: Tensor) -> Tensor:
        """Return the vectors that the loss gives the users while the items stay as they are, exactly: better than those
        that were trained beside moving items. (U, D)"""
        vectors, own_bias, found = items.numpy(), bias.numpy(), np.empty(users.shape, np.float32)
        gram = self.alpha * (vectors.T @ vectors)  # (D, D)
        pull = self.alpha * (own_bias @ vectors)  # (D,)
        ridge = (self.reg * (self.matrix.sum(1) + self.alpha * len(vectors))).astype(np.float32)  # (U,)
        for row, (start, end) in enumerate(pairwise(self.matrix.indptr)):
            used, x = self.matrix.indices[start:end], self.matrix.data[start:end]
            own = vectors[used]  # (n, D)
            left = gram + (own.T * (x - self.alpha)) @ own
            left[np.diag_indices_from(left)] += ridge[row]
            right = (x * (1 - own_bias[used]) + self.alpha * own_bias[used]) @ own - pull
            found[row] = scipy.linalg.solve(left, right, assume_a="pos", check_finite=False)
        return torch.from_numpy(found)

    def curvature(self, vectors: Tensor) -> Tensor:
        """Return half the second derivative of the pairs without an event, that of all users alike. (D, D)"""
        return self.alpha * (vectors.T @ vectors)

    def fold_in(self, vectors: Tensor, bias: Tensor, variance: Tensor, recency_exponent: float) -> "PairFoldIn":
        return PairFoldIn(vectors, bias, variance, self.reg, self.alpha, recency_exponent)


class PairFoldIn(ConjugateFoldIn):
    """What the bundle's encoder.onnx does: history and mask, right-aligned → the vector that the loss gives the user
    while the items stay as they are. Derivatives are halved: the loss is a sum of squares."""

    def __init__(
        self,
        vectors: Tensor,
        bias: Tensor,
        variance: Tensor,
        reg: float,
        unobserved_weight: float,
        recency_exponent: float,
        steps: int = 12,
    ):
        """As `ConjugateFoldIn`; the curvature's diagonal, (D,)."""
        super().__init__(vectors, bias, recency_exponent, steps)
        self.register_buffer("squared", vectors.square())
        self.register_buffer("variance", variance)
        self.reg, self.alpha = reg, unobserved_weight

    def diagonal(self, used: Tensor) -> tuple[Tensor, Tensor]:
        ridge = self.reg * (used.sum(1, keepdim=True) + self.alpha * len(self.bias))  # (B, 1)
        return self.variance + used @ self.squared + ridge, ridge

    def slope(self, used: Tensor, scores: Tensor) -> Tensor:
        return self.weight(used) * scores - used

    def bend(self, used: Tensor, scores: Tensor, moved: Tensor) -> Tensor:
        return dot(self.weight(used), moved.square())

    def weight(self, used: Tensor) -> Tensor:
        """Return what a pair weighs, with an event or without one. (B, I)"""
        return torch.where(used > 0, used, self.alpha)
