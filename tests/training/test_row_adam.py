"""Rows that wait end where AdamW over the whole table brings them."""

import numpy as np
import pytest
import torch
from torch import nn

from training import row_adam
from training.row_adam import RowAdam

ROWS = 40


def tables() -> list[nn.Parameter]:
    torch.manual_seed(3)
    return [nn.Parameter(torch.randn(ROWS, 6)), nn.Parameter(torch.randn(ROWS, 1))]


def batch(step: int) -> tuple[torch.Tensor, float]:
    """Rows of this step, the low ones more often, and its learning rate: a rise and a fall."""
    drawn = np.random.default_rng(step).integers(0, ROWS - 1, 5) ** 2 // ROWS  # the last row is never seen
    return torch.from_numpy(np.unique(drawn)), 0.02 * min(1, (step + 1) / 20) * (1 - step / 150)


def loss(vectors: torch.Tensor, bias: torch.Tensor, step: int) -> torch.Tensor:
    wanted = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(step))
    return ((vectors - wanted) ** 2).mean() + (bias.sin() * vectors[:, :1]).sum()


def learn(optimiser: RowAdam, steps: range) -> None:
    for step in steps:
        rows, learning_rate = batch(step)
        loss(*optimiser.take(rows), step).backward()
        optimiser.step(learning_rate)


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_it_is_adamw(monkeypatch, weight_decay):
    monkeypatch.setattr(row_adam, "FIRST_STEPS", 8)  # so that what is counted has to grow
    ours, theirs, before = tables(), tables(), tables()
    mine = RowAdam(ours, weight_decay=weight_decay)
    learn(mine, range(140))
    mine.settle()
    whole = torch.optim.AdamW(theirs, betas=(0.9, 0.98), weight_decay=weight_decay)
    for step in range(140):
        rows, whole.param_groups[0]["lr"] = batch(step)
        whole.zero_grad()
        loss(theirs[0][rows], theirs[1][rows], step).backward()
        whole.step()
    for mine_now, theirs_now, begun in zip(ours, theirs, before, strict=True):
        assert (theirs_now - begun)[:-1].abs().max() > 0.1
        torch.testing.assert_close(mine_now, theirs_now, rtol=0, atol=2e-4)
    assert weight_decay or torch.equal(ours[0][-1], before[0][-1]), "what was never seen stays"


def test_a_row_is_given_as_it_is_by_now():
    waiting, settled = (RowAdam(tables()) for _ in range(2))
    for optimiser in (waiting, settled):
        learn(optimiser, range(30))
    stored = waiting.tables[0].detach().clone()
    settled.settle()
    rows = torch.arange(ROWS)
    assert (settled.tables[0] - stored).abs().max() > 1e-4, "somebody had waited"
    for given, table in zip(waiting.take(rows), settled.tables, strict=True):
        assert torch.equal(given, table)
    assert torch.equal(waiting.tables[0], stored), "a row that is looked at stays as it is"


def test_a_killed_training_goes_on():
    whole, first = RowAdam(tables()), RowAdam(tables())
    learn(whole, range(60))
    learn(first, range(35))
    second = RowAdam([nn.Parameter(table.detach().clone()) for table in first.tables])
    second.load_state_dict(first.state_dict())
    learn(second, range(35, 60))
    for one, other in zip(whole.tables, second.tables, strict=True):
        assert torch.equal(one, other)


def test_momentum_that_outlasts_the_second_moment_is_refused():
    with pytest.raises(ValueError, match="for ever"):
        RowAdam(tables(), betas=(0.99, 0.9))
