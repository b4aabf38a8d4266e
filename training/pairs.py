"""The squared loss over all pairs of users and items, for factors whose interactions have no order.

Hu, Koren, Volinsky 2008, "Collaborative Filtering for Implicit Feedback Datasets": a pair with an event ought to
score one, any other zero, and that weighs `unobserved_weight`. A vector's regularisation grows with what it is
learned from: Rendle, Krichene, Zhang, Koren 2021, "Revisiting the Performance of iALS". It is the loss of
training/models/ials.py, here for whatever can be trained by its gradient. Shapes: U users, I items, B users of a
batch, J items of a batch, L items of a history, D factors.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.collaborative import Batch, Interactions


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

    def curvature(self, vectors: Tensor) -> Tensor:
        """Return half the second derivative of the pairs without an event, that of all users alike. (D, D)"""
        return self.alpha * (vectors.T @ vectors)

    def fold_in(self, vectors: Tensor, bias: Tensor, variance: Tensor, recency_exponent: float) -> "PairFoldIn":
        return PairFoldIn(vectors, bias, variance, self.reg, self.alpha, recency_exponent)


class PairFoldIn(nn.Module):
    """What the bundle's encoder.onnx does: history and mask, right-aligned → the vector that the loss gives the user
    while the items stay as they are, by Newton steps on the diagonal once the factors lie on the curvature's axes."""

    def __init__(
        self,
        vectors: Tensor,
        bias: Tensor,
        variance: Tensor,
        reg: float,
        unobserved_weight: float,
        recency_exponent: float,
        steps: int = 12,
        stride: float = 0.7,
    ):
        """Items (I, D), rotated; bias (I,); the curvature's diagonal, (D,)."""
        super().__init__()
        self.register_buffer("items", vectors)
        self.register_buffer("squared", vectors.square())
        self.register_buffer("bias", bias)
        self.register_buffer("variance", variance)
        self.reg, self.alpha, self.recency_exponent = reg, unobserved_weight, recency_exponent
        self.steps, self.stride = steps, stride

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        age = mask.sum(1, keepdim=True) - mask.cumsum(1)  # (B, L), 0 is the latest
        weights = mask * (1 + age) ** -self.recency_exponent
        used = weights.new_zeros(history.shape[0], len(self.bias)).scatter_add(1, history, weights)  # (B, I)
        rest = self.alpha * (used == 0).to(used.dtype)
        ridge = self.reg * (weights.sum(1, keepdim=True) + self.alpha * len(self.bias))  # (B, 1)
        user = used.new_zeros(history.shape[0], self.items.shape[1])
        curvature = self.variance + used @ self.squared + ridge
        for _ in range(self.steps):
            scores = user @ self.items.T + self.bias  # (B, I)
            half_slope = (rest * scores - used * (1 - scores)) @ self.items + ridge * user
            user = user - self.stride * half_slope / curvature
        return user
