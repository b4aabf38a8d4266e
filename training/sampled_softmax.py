"""The softmax over a large catalogue, estimated from a sample of items, and its gradient in the processor's cache.

Bengio and Senécal 2003 ("Quick Training of Probabilistic Neural Nets by Importance Sampling"). A loss on a few random
negatives, as SASRec's own, learns to tell the target from items that nobody would show; gBCE (Petrov and Macdonald
2023) mends its overconfidence by a factor to be tuned. The corrected sample has nothing to be tuned but its size, and
is the softmax itself where it holds all items.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.candidates import draw

SLICE = 128
"""Places whose logits are worked on at once: they stay in the cache, where all of a batch's would not."""
LARGEST_EXPONENT = 40.0
"""Up to here exponentials are summed as they are: cosines over a temperature stay below; else each place's largest is
taken off before."""


@dataclass(frozen=True)
class Sample:
    """The items among which a batch's targets are to be found, an estimate of all. N items, P places.

    In the sample are the batch's own targets and some items drawn evenly: the popular ones are nearly always there, as
    other places' targets, and the even draws see to the rest. An item that came in with probability π stands for 1/π
    items, so that the sum over the sample is that over all items on average (Horvitz and Thompson 1952): its logit is
    raised by -log π, the logQ correction, but not where it is the target itself, which is there for certain
    (Khrylchenko et al. 2025, "Correcting the LogQ Correction").
    """

    items: Tensor
    """(N,)"""
    wanted: Tensor
    """Each target's row in `items`. (P,)"""
    log_probability: Tensor
    """log π. (N,)"""

    @classmethod
    def draw(cls, targets: np.ndarray, share: np.ndarray, negatives: int, rng: np.random.Generator) -> "Sample":
        """Draw for these targets, (P,). `share`: of each item among all targets. (I,)"""
        return cls(*map(torch.from_numpy, draw(targets, share, negatives, rng)))

    def followed_by(self, items: np.ndarray, n_items: int) -> tuple[Tensor, Tensor]:
        """Return the sample's items and behind them the rest of these (B, L), each once, (n,), and where these are
        among them (B, L). `n_items`: of the catalogue."""
        row = np.full(n_items, -1)
        row[self.items.numpy()] = np.arange(len(self.items))
        rest = np.unique(items[row[items] < 0])
        row[rest] = np.arange(len(self.items), len(self.items) + len(rest))
        return torch.cat([self.items, torch.from_numpy(rest)]), torch.from_numpy(row[items])


class SampledSoftmax(torch.autograd.Function):
    """The mean cross-entropy of P places' targets among N items, and its gradients, in one pass over slices of places.

    Of exp(logit + bias) the second factor is the item's alone. It goes into the items' vectors, and what divides a
    place into the users': but for the exponential, nothing touches a slice's weights between the products.

    Arguments: users (P, D), vectors (N, D), bias (N,), wanted (P,) and log_probability (N,) of the sample.
    """

    @staticmethod
    def forward(ctx, users: Tensor, vectors: Tensor, bias: Tensor, wanted: Tensor, log_probability: Tensor) -> Tensor:
        corrected = bias - log_probability
        highest = corrected.max()
        factor, probability = (corrected - highest).exp(), log_probability.exp()  # (N,)
        scaled, own = vectors * factor[:, None], vectors.index_select(0, wanted)  # (N, D), (P, D)
        right = (users * own).sum(1) + bias[wanted]  # (P,)
        is_small = users.norm(dim=1).max() * vectors.norm(dim=1).max() < LARGEST_EXPONENT
        by_users, by_vectors, by_bias = torch.empty_like(users), torch.zeros_like(vectors), torch.zeros_like(bias)
        total, begin, room = -right.sum(), 0, users.new_empty(min(SLICE, len(users)), len(vectors))
        for part, target in zip(users.split(SLICE), wanted[:, None].split(SLICE), strict=True):
            weights, lifted = torch.mm(part, vectors.T, out=room[: len(part)]), highest  # (S, N)
            if not is_small:
                most = weights.amax(1, keepdim=True)
                weights, lifted = weights.sub_(most), highest + most[:, 0]
            weights.exp_()
            weights.scatter_(1, target, weights.gather(1, target) * probability[target])
            summed = weights @ factor  # (S,)
            total += (summed.log() + lifted).sum()
            share = 1 / summed
            torch.mul(weights @ scaled, share[:, None], out=by_users[begin : begin + len(part)])
            by_vectors.addmm_(weights.T, part * share[:, None])
            by_bias.addmv_(weights.T, share)
            begin += len(part)
        by_users -= own
        by_vectors.mul_(factor[:, None]).index_add_(0, wanted, users, alpha=-1)
        by_bias.mul_(factor).index_add_(0, wanted, torch.ones_like(right), alpha=-1)
        ctx.save_for_backward(*(gradient.div_(len(users)) for gradient in (by_users, by_vectors, by_bias)))
        return total / len(users)

    @staticmethod
    def backward(ctx, weight: Tensor) -> tuple[Tensor | None, ...]:
        return (*(weight * gradient for gradient in ctx.saved_tensors), None, None)
