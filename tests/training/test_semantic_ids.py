"""Semantic ids: one item an id, like items with a like beginning, and a search that ends at real items only."""

import numpy as np
import pytest
import torch

from recsys.errors import UnusableInput
from training.models import generative
from training.semantic_ids import Trie, semantic_ids


def vectors() -> np.ndarray:
    """Four clusters of ten items."""
    rng = np.random.default_rng(1)
    return np.repeat(np.eye(4) * 10, 10, axis=0) + rng.normal(0, 0.3, (40, 4))


def test_each_item_has_an_id_of_its_own_and_clusters_share_the_beginning():
    codes = semantic_ids(vectors(), 4, 4, seed=1)
    assert len(np.unique(codes, axis=0)) == 40
    firsts = [set(codes[start : start + 10, 0].tolist()) for start in range(0, 40, 10)]
    assert all(len(first) == 1 for first in firsts)
    assert len(set.union(*firsts)) == 4


def test_twins_are_told_apart_by_the_last_code():
    codes = semantic_ids(np.repeat(np.eye(2), 3, axis=0), 2, 4, seed=1)
    assert len(np.unique(codes, axis=0)) == 6
    assert len(np.unique(codes[:3, 0])) == 1


def test_more_twins_than_codes_are_refused():
    with pytest.raises(UnusableInput, match="Take more codes"):
        semantic_ids(np.ones((5, 2)), 2, 4, seed=1)


def test_the_tree_leads_to_each_item():
    codes = semantic_ids(vectors(), 3, 8, seed=2)
    trie = Trie.of(codes, 8)
    node = np.zeros(40, np.int64)
    for level, table in enumerate(trie.children):
        node = table[node, codes[:, level]]
    assert node.tolist() == list(range(40))
    assert sum((table >= 0).sum() for table in trie.children[-1:]) == 40


@pytest.mark.parametrize("codes", [[[0, 1], [0, 1]], [[0, 9], [1, 1]], [[-1, 0], [0, 0]]])
def test_ids_that_are_none_are_refused(codes):
    with pytest.raises(ValueError, match=r"share their id|codes from"):
        Trie.of(np.array(codes), 8)


def test_an_untrained_network_spells_real_items_only_and_a_full_beam_finds_the_exact_order():
    config = generative.Config(
        levels=3, codes=8, embedding_size=16, hidden_size=16, heads=2, layers=1, decoder_layers=1, beams=40
    )
    torch.manual_seed(3)
    network = generative.Network(Trie.of(semantic_ids(vectors(), 3, 8, seed=2), 8), config).eval()
    history = torch.tensor([[3, 17, 30], [0, 5, 39]])
    with torch.inference_mode():
        items, scores = network.search(history, torch.ones(2, 3))
        exact = torch.stack(  # -loss of a row with one place is the target's log-probability
            [_log_probability(network, history[row : row + 1], item) for row, item in ((0, 7), (1, 25))]
        )
    for row in items.tolist():
        assert sorted(row) == list(range(40))
    assert (scores.diff(dim=1) <= 0).all()
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(2), atol=1e-4, rtol=0)
    found = torch.stack([scores[0][items[0] == 7][0], scores[1][items[1] == 25][0]])
    torch.testing.assert_close(found, exact, atol=1e-4, rtol=0)


def _log_probability(network: generative.Network, history: torch.Tensor, item: int) -> torch.Tensor:
    """As training sees it: all places spell at once, the last place's own part is looked at."""
    places = torch.arange(history.shape[1])[None]
    targets = torch.tensor([[1, 2, item]])
    whole = network.loss(history, places, targets) * 3
    without = network.loss(history[:, :2], places[:, :2], targets[:, :2]) * 2
    return without - whole


def test_a_place_sees_nothing_of_what_follows_nor_of_another_user():
    config = generative.Config(
        levels=3, codes=8, embedding_size=16, hidden_size=16, heads=2, layers=1, decoder_layers=1
    )
    torch.manual_seed(4)
    network = generative.Network(Trie.of(semantic_ids(vectors(), 3, 8, seed=2), 8), config).eval()
    place = torch.tensor([[0, 1, 0, 1]])  # two users in one row
    with torch.inference_mode():
        states, _ = network.encode(torch.tensor([[1, 2, 3, 4]]), place)
        changed, _ = network.encode(torch.tensor([[9, 8, 3, 5]]), place)
    torch.testing.assert_close(states[0, 2], changed[0, 2])
    assert (states[0, 3] - changed[0, 3]).abs().max() > 1e-3
