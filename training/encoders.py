"""What turns a history into a user, in PyTorch: the parts that encoders and the models around them have in common.

An encoder is a module that takes histories and their mask, both (B, L), right-aligned with the latest item last, and
gives what the bundle's encoder.onnx gives: the user's vector, (B, D), or the scores of all items, (B, I). The same
module answers in the framework and is exported, so that both say the same. Shapes: B histories of L items, I items, D
factors.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from training.model import Parts, padded_blocks

ONNX_OPSET = 18
MAX_HISTORY = 1000
"""Latest items that are read, of models that do not say."""
ENCODED_AT_ONCE = 256
"""Histories that are padded to one length together."""
FOLDED_AT_ONCE = 64
"""The same where each of them takes a row of the catalogue's length: what a core's cache holds."""
TINY = 1e-20
"""What stands for nothing below a fraction: who has arrived stays."""


def recency_weights(mask: Tensor, exponent: float) -> Tensor:
    """Return what each place weighs: (1 + a)^-exponent for the item `a` places before the latest, 0 for padding.
    (B, L)"""
    age = mask.sum(1, keepdim=True) - mask.cumsum(1)  # 0 is the latest
    return mask * (1 + age) ** -exponent


def as_rows(history: Tensor, weights: Tensor, n_items: int) -> Tensor:
    """Return histories and weights, both (B, L), as rows of all items, (B, I): items' vectors for each place of each
    history, (B, L, D), would be many times larger."""
    return weights.new_zeros(history.shape[0], n_items).scatter_add(1, history, weights)


def weighted_sum(history: Tensor, weights: Tensor, vectors: Tensor) -> Tensor:
    """Return the sum of the histories' vectors, each times its weight: (B, L), (B, L), (I, D) → (B, D).

    In the exported graph a product with all items, which its runtime knows; here one with those that are there: on
    50 000 items and 600 factors that is a thousandth of the operations."""
    if torch.compiler.is_exporting():
        return as_rows(history, weights, len(vectors)) @ vectors
    return nn.functional.embedding_bag(history, vectors, per_sample_weights=weights, mode="sum")


class ConjugateFoldIn(nn.Module):
    """The vector that a convex loss gives a user while the items stay as they are: a few steps of conjugate gradients.

    Polak and Ribière 1969, from zero. The preconditioner is the diagonal of a second derivative that stands for the
    loss's own, which the items are rotated onto. Each step goes as far along its direction as the loss's true second
    derivative there asks, so that no length is to be chosen. With the scores kept, a step is two products with the
    items, and ONNX can hold the whole. A subclass says what the loss is.
    """

    def __init__(self, vectors: Tensor, bias: Tensor, recency_exponent: float, steps: int):
        """Items (I, D), rotated; bias (I,)."""
        super().__init__()
        self.register_buffer("items", vectors)
        self.register_buffer("bias", bias)
        self.recency_exponent, self.steps = recency_exponent, steps

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        used = as_rows(history, recency_weights(mask, self.recency_exponent), len(self.bias))  # (B, I)
        diagonal, ridge = self.diagonal(used)
        scores, user = self.bias.expand_as(used), used.new_zeros(used.shape[0], self.items.shape[1])  # (B, I), (B, D)
        slope, fall, direction = user, user.new_ones(used.shape[0], 1), user
        for _ in range(self.steps):
            former, former_fall = slope, fall
            slope = self.slope(used, scores) @ self.items + ridge * user
            steepest = slope / diagonal
            fall = dot(steepest, slope)
            kept = (dot(steepest, slope - former) / former_fall.clamp(min=TINY)).clamp(min=0)
            direction = kept * direction - steepest  # nothing is kept at first, since that direction is zero
            moved = direction @ self.items.T  # (B, I)
            bend = self.bend(used, scores, moved) + ridge * dot(direction, direction)
            length = self.damped(-dot(slope, direction) / bend.clamp(min=TINY), moved)  # (B, 1)
            user, scores = user + length * direction, scores + length * moved
        return user

    def diagonal(self, used: Tensor) -> tuple[Tensor, Tensor]:
        """Return the preconditioner, (B, D), and the ridge, (B, 1), which it contains, for users who used this.
        (B, I)"""
        raise NotImplementedError

    def slope(self, used: Tensor, scores: Tensor) -> Tensor:
        """Return the loss's first derivative in the scores. (B, I)"""
        raise NotImplementedError

    def bend(self, used: Tensor, scores: Tensor, moved: Tensor) -> Tensor:
        """Return the loss's second derivative where the scores move so. (B, 1)"""
        raise NotImplementedError

    def damped(self, length: Tensor, moved: Tensor) -> Tensor:
        """Return a Newton step's length as it is to be gone. (B, 1)"""
        return length


def dot(left: Tensor, right: Tensor) -> Tensor:
    """Row by row: (B, D), (B, D) → (B, 1)"""
    return (left * right).sum(1, keepdim=True)


@torch.no_grad()
def encoded(
    encoder: Callable[[Tensor, Tensor], Tensor],
    histories: list[np.ndarray],
    longest: int = MAX_HISTORY,
    at_once: int = ENCODED_AT_ONCE,
) -> Tensor:
    """Return what an encoder says of each history, cut to its `longest` latest items. (B, D) or (B, I)"""
    said = torch.empty(0)
    for rows, items, mask in padded_blocks(histories, longest, at_once):
        block = encoder(torch.from_numpy(items), torch.from_numpy(mask))
        said = said if len(said) else block.new_empty(len(histories), block.shape[1])
        said[torch.from_numpy(rows)] = block
    return said


def to_onnx(encoder: nn.Module, output: str, longest: int = MAX_HISTORY) -> bytes:
    """Return an encoder as ONNX. `output`: name of what it gives; `longest`: places that it can read."""
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=longest)}
    examples = {"history": torch.zeros(2, 3, dtype=torch.long), "mask": torch.ones(2, 3)}
    return graph_of(encoder, examples, output, (free, free))


def graph_of(module: nn.Module, examples: dict[str, Tensor], output: str, free: tuple[dict, ...]) -> bytes:
    """Return a module as ONNX.

    Args:
        examples: name → a value of each input, in the order in which the module takes them.
        free: of each input the axes that may be of any length, and what that length is called.
    """
    program = torch.onnx.export(
        module,
        tuple(examples.values()),
        input_names=list(examples),
        output_names=[output],
        dynamic_shapes=free,
        opset_version=ONNX_OPSET,
        dynamo=True,
        verbose=False,
    )
    buffer = io.BytesIO()
    program.save(buffer)
    return buffer.getvalue()


class DotProductModel:
    """What a model does whose score is the encoder's vector times the item's, and the item's bias."""

    encoder: nn.Module
    vectors: Tensor  # (I, D)
    bias: Tensor  # (I,)
    counts: np.ndarray  # (I,)
    max_history: int = MAX_HISTORY
    at_once: int = ENCODED_AT_ONCE

    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        users = encoded(self.encoder, histories, self.max_history, self.at_once)  # (B, D)
        return (users @ self.vectors.T + self.bias).numpy()  # (B, I)

    def parts(self) -> Parts:
        arrays = {"popularity": self.counts, "item_vectors": self.vectors.numpy(), "item_bias": self.bias.numpy()}
        graph = to_onnx(self.encoder, "user_vector", self.max_history)
        return Parts("onnx", arrays, graph, {"max_history": self.max_history})
