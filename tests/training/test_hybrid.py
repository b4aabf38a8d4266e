"""The learnt blend: its lines between knots, and that it trusts whom it should at each length of history."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tests.worlds import checkerboard
from training.models import hybrid

ITEMS, FAR = 40, 17


def test_a_weight_is_a_line_between_its_knots_and_level_beyond_them():
    blend = hybrid.Blend(torch.tensor([2.0, 1.0, 1.0]))
    blend.raw.data[:, 0] = torch.tensor([1.0, 2.0, 4.0, 5.0, 9.0])
    at_knots = nn.functional.softplus(blend.raw.detach()[:, 0]) / 2
    said = blend(torch.tensor(hybrid.KNOTS))[:, 0].detach()
    np.testing.assert_allclose(said, at_knots, rtol=1e-5)
    middle = (hybrid.KNOTS[1] * hybrid.KNOTS[2]) ** 0.5
    below, between, above = blend(torch.tensor([0.0, middle, 5000.0]))[:, 0].tolist()
    assert below == pytest.approx(float(at_knots[0]))
    assert between == pytest.approx(float(at_knots[1:3].mean()), rel=1e-4)
    assert above == pytest.approx(float(at_knots[-1]))


class Taste(nn.Module):
    """Knows the next item of whoever has used eight items or more, and guesses for the others."""

    def forward(self, history, mask):
        taste = nn.functional.one_hot((history[:, -1] + FAR) % ITEMS, ITEMS).float()
        guess = torch.randn(len(history), ITEMS, generator=torch.Generator().manual_seed(3))
        return torch.where(mask.sum(1, keepdim=True) >= 8, taste, guess)


def test_the_content_speaks_for_the_new_and_taste_for_the_known():
    rng, angle = np.random.default_rng(1), np.arange(ITEMS) * 2 * np.pi / ITEMS
    texts = torch.tensor(np.column_stack([np.cos(angle), np.sin(angle)]), dtype=torch.float32)  # neighbours are alike
    lengths = rng.choice([1, 2, 10, 20], 800)
    histories = [rng.permutation(ITEMS)[:length] for length in lengths]
    # who has used little goes on to what is alike, who has used much to what only taste knows, a third to anything
    targets = np.array([(history[-1] + (FAR if len(history) >= 8 else 1)) % ITEMS for history in histories])
    targets = np.where(rng.random(len(targets)) < 0.33, rng.integers(0, ITEMS, len(targets)), targets)
    kept = [row for row, target in enumerate(targets) if target not in histories[row]]
    histories, targets = [histories[row] for row in kept], targets[kept]
    factors = SimpleNamespace(encoder=Taste(), vectors=torch.eye(ITEMS), bias=torch.zeros(ITEMS))
    data = SimpleNamespace(
        items=np.arange(ITEMS), n_items=ITEMS, instants=np.zeros(ITEMS, int), cut_at=1, is_ordered=True
    )
    config = hybrid.Config(text_recency=20.0)
    blend = hybrid.learn(factors, data, texts, histories, targets, config, seed=1)
    new, known = (blend(torch.tensor([length]))[0] * blend.scale for length in (1.0, 20.0))
    assert new[1] > new[0]
    assert known[0] > known[1]
    assert known[0] > 2 * new[0]


def test_popularity_steps_back_where_it_takes_the_places_of_what_is_wanted():
    """Of whoever has used much the target comes first by taste and text, unless popularity is as loud as it was learnt;
    of whoever has used little it is popular itself. What lies between follows its own users."""
    rng, n_users = np.random.default_rng(1), 600
    lengths = torch.tensor(rng.choice([1.0, 30.0, 60.0], n_users), dtype=torch.float32)
    popular = torch.linspace(1, 0, ITEMS)
    wanted = torch.where(lengths < 5, torch.randint(0, 5, (n_users,)), torch.randint(20, ITEMS, (n_users,)))
    taste = nn.functional.one_hot(wanted, ITEMS).float() * (lengths[:, None] > 5) * 0.3
    said = torch.stack([taste, torch.zeros(n_users, ITEMS), popular.expand(n_users, -1)], -1)
    blend = hybrid.Blend(torch.ones(3)).requires_grad_(False)
    for knot in range(len(hybrid.KNOTS)):
        blend.set(knot, torch.tensor([1.0, 0.1, 1.0]))
    seen = torch.zeros(n_users, ITEMS, dtype=torch.bool)
    before = hybrid.places_filled(blend, said, seen, lengths, wanted)
    hybrid.refine(blend, said, seen, lengths, wanted)
    weight = blend(torch.tensor([1.0, 60.0]))
    assert weight[0].tolist() == pytest.approx([1.0, 0.1, 1.0], rel=1e-4), "where it helps it stays as it was learnt"
    assert weight[1, :2].tolist() == pytest.approx([1.0, 0.1], rel=1e-4)
    assert weight[1, 2] < 0.21
    assert hybrid.places_filled(blend, said, seen, lengths, wanted) > before


def test_nothing_that_is_taken_away_is_left_in_the_training_part():
    data = checkerboard.training_data()
    rest, histories, targets = hybrid.taken_away(data, seed=1)
    assert len(targets) == checkerboard.USERS
    assert len(rest.items) == len(data.items) - len(targets)
    assert {len(history) for history in histories} > {1}
    left = set(zip(rest.users.tolist(), rest.items.tolist(), strict=True))
    gone = set(zip(data.users.tolist(), data.items.tolist(), strict=True)) - left
    assert sorted(item for _, item in gone) == sorted(targets.tolist())
