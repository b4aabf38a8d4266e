"""AdamW over tables of which a step sees few rows: the others wait, and are brought up to date when they are next seen.

A batch of a sequential model names a tenth of the catalogue. PyTorch's AdamW pays for all of it, in the gradient's
zeros, two moments and the weights; its SparseAdam leaves the rows that were not seen where they are, which is another
optimiser: there a row has no momentum to carry it on and its second moment never fades, so it moves less the rarer it
is seen. Here a row gets at its next step all that AdamW would have done to it without a gradient in between: of a row
last seen at step s the moments are m·β1^j and v·β2^j by step s + j, so that it has moved by

    m / √v · Σ_j a(s + j) · r^j,    r = β1 / √β2,    a(t) = rate(t) · √(1 - β2^t) / (1 - β1^t).

The sums are kept one a step, the same for all rows. What differs from AdamW is rounding and ε, which does not fade.
Shapes: R rows of a table, n of them in a step, D numbers a row.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

NEGLIGIBLE = 1e-9
"""Of r^j: a row moves no more when it was not seen for so long."""
FIRST_STEPS = 1024
"""For which there is room at the start."""


class RowAdam:
    """AdamW for tables that are looked up by the same rows, each (R, D_t), its moments included.

    vectors, bias = optimiser.take(rows)     # leaves, as of now
    loss(vectors, bias).backward()
    optimiser.step(learning_rate)
    ...
    optimiser.settle()                       # once, before the tables are read
    """

    def __init__(
        self,
        tables: list[nn.Parameter],
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.0,
        eps: float = 1e-8,
    ):
        if betas[0] ** 2 >= betas[1]:
            raise ValueError(f"betas {betas}: a row that is not seen would move for ever")
        self.tables, self.betas, self.weight_decay, self.eps = tables, betas, weight_decay, eps
        self.moments = [(torch.zeros_like(table.data), torch.zeros_like(table.data)) for table in tables]
        self.seen = np.zeros(len(tables[0]), np.int64)  # the step that each row is up to date with, (R,)
        self.steps = 0
        self.carried = np.zeros(FIRST_STEPS)  # Σ_j a(s + j) · r^j up to now, by s
        self.faded = np.zeros(FIRST_STEPS)  # log of what weight decay has left by each step
        ratio = betas[0] / math.sqrt(betas[1])
        self.ratios = ratio ** np.arange(1, 1 + math.ceil(math.log(NEGLIGIBLE) / math.log(ratio)))[::-1]
        self.taken: tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]] | None = None

    def take(self, rows: Tensor) -> list[Tensor]:
        """Return these rows of each table as of now, to take the gradient at. Each row once. (n,) → (n, D_t) each"""
        self.taken = rows, self._as_of_now(rows)
        return [weights.requires_grad_() for weights, *_ in self.taken[1]]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move the rows that were taken against their gradients, and count a step for all."""
        rows, found = self.taken
        self.taken = None
        weights, means, squares = map(list, zip(*found, strict=True))
        counts = [torch.tensor(float(self.steps)) for _ in weights]
        adamw(
            weights, [leaf.grad for leaf in weights], means, squares, [], counts, fused=True, amsgrad=False,
            maximize=False, beta1=self.betas[0], beta2=self.betas[1], lr=learning_rate, eps=self.eps,
            weight_decay=self.weight_decay,
        )  # fmt: skip
        self.steps += 1
        self._count(learning_rate)
        self._put(rows, found)

    def _count(self, learning_rate: float) -> None:
        """Let all rows know of a step: what moves those that are not in it."""
        first, second = self.betas
        size = learning_rate * math.sqrt(1 - second**self.steps) / (1 - first**self.steps)
        if self.steps == len(self.carried):
            self.carried, self.faded = (np.append(kept, np.zeros_like(kept)) for kept in (self.carried, self.faded))
        if self.weight_decay:
            self.carried[: self.steps] *= 1 - learning_rate * self.weight_decay
        begin = max(0, self.steps - len(self.ratios))
        self.carried[begin : self.steps] += size * self.ratios[len(self.ratios) - (self.steps - begin) :]
        self.faded[self.steps] = self.faded[self.steps - 1] + math.log1p(-learning_rate * self.weight_decay)

    def settle(self) -> None:
        """Bring all rows up to date."""
        rows = torch.arange(len(self.seen))
        self._put(rows, self._as_of_now(rows))

    @torch.no_grad()
    def _as_of_now(self, rows: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return these rows of each table and of its two moments after all steps up to now."""
        seen = self.seen[rows.numpy()]
        gap = self.steps - seen
        moved, left = self.carried[seen], np.exp(self.faded[self.steps] - self.faded[seen])
        factors = (moved, left, self.betas[0] ** gap, self.betas[1] ** gap)
        moved, left, first, second = (torch.from_numpy(one.astype(np.float32))[:, None] for one in factors)  # (n, 1)
        found = []
        for table, moments in zip(self.tables, self.moments, strict=True):
            weights, mean, square = (values.index_select(0, rows) for values in (table, *moments))  # (n, D)
            if self.weight_decay:
                weights *= left
            weights.addcdiv_(mean * moved, square.sqrt().add_(self.eps), value=-1)
            found.append((weights, mean.mul_(first), square.mul_(second)))
        return found

    def _put(self, rows: Tensor, found: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Write what `_as_of_now` read, in a third of the time that PyTorch's index_copy_ takes."""
        for table, moments, new in zip(self.tables, self.moments, found, strict=True):
            for values, current in zip((table, *moments), new, strict=True):
                values.detach().numpy()[rows.numpy()] = current.detach().numpy()
        self.seen[rows.numpy()] = self.steps

    def state_dict(self) -> dict[str, Any]:
        """Return all that a killed training needs to go on, beside the tables."""
        counted = {name: torch.from_numpy(getattr(self, name).copy()) for name in ("seen", "carried", "faded")}
        return {**counted, "moments": [list(pair) for pair in self.moments], "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("seen", "carried", "faded"):
            setattr(self, name, state[name].numpy().copy())
        self.moments = [tuple(moment.clone() for moment in pair) for pair in state["moments"]]
        self.steps = state["steps"]
