"""The cross-encoder on the checkerboard: whose titles the user has read says which candidate comes next."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.errors import CheckFailed
from tests.worlds import checkerboard as world
from training.rankers import cross_encoder
from training.rankers.cross_encoder import Config, Lists, quality

TINY = {
    "layers": 1,
    "epochs": 4,
    "learning_rate": 0.001,
    "negatives": 2,
    "batch_size": 16,
    "lists": 100,
    "max_tokens": 40,
}
CANDIDATES = 8


def lists(n: int, seed: int) -> Lists:
    """Candidates of both colours in an order that says nothing; the target is the only one of the user's colour."""
    rng, histories, candidates, targets = np.random.default_rng(seed), [], [], []
    for number in range(n):
        own, other = (rng.permutation(np.arange(colour, world.ITEMS, 2)) for colour in (number % 2, 1 - number % 2))
        histories.append(own[:3])
        targets.append(own[3])
        candidates.append(rng.permutation(np.append(other[: CANDIDATES - 1], own[3])))
    return Lists(histories, np.array(candidates), rng.normal(0, 1, (n, CANDIDATES)), np.array(targets))


@pytest.fixture(scope="module")
def fitted() -> cross_encoder.CrossEncoder:
    return cross_encoder.fit(lists(140, 1), world.texts(), Config(**TINY), 1, 1)


def test_it_finds_the_candidate_that_reads_like_the_history(fitted):
    asked = lists(40, 2)
    before, after = (quality(order, asked.targets, 5).mean() for order in (asked.candidates, fitted.rerank(asked)))
    assert fitted.weight > 0
    assert after > before + 0.2
    assert after > 0.8


def test_a_list_keeps_its_candidates_and_does_not_depend_on_who_else_asks(fitted):
    asked = lists(6, 3)
    together = fitted.rerank(asked)
    np.testing.assert_array_equal(np.sort(together, 1), np.sort(asked.candidates, 1))
    np.testing.assert_array_equal(fitted.rerank(asked.rows(np.array([2])))[0], together[2])


def test_where_reading_helps_nothing_the_order_stays():
    asked = lists(140, 4)
    perfect = replace(asked, scores=(asked.candidates == asked.targets[:, None]) * 5.0)
    order = np.argsort(-perfect.scores, axis=1, kind="stable")
    perfect = Lists(
        perfect.histories,
        np.take_along_axis(perfect.candidates, order, 1),
        np.take_along_axis(perfect.scores, order, 1),
        perfect.targets,
    )
    model = cross_encoder.fit(perfect, world.texts(), Config(**{**TINY, "epochs": 1, "lists": 16}), 1, 1)
    assert model.weight == 0
    np.testing.assert_array_equal(model.rerank(perfect), perfect.candidates)


def test_the_seed_decides():
    config, asked = Config(**{**TINY, "epochs": 1, "lists": 16}), lists(5, 6)
    first, again, other = (
        cross_encoder.fit(lists(40, 5), world.texts(), config, seed, 1).opinion(asked) for seed in (1, 1, 2)
    )
    np.testing.assert_allclose(first, again, atol=1e-5)
    assert np.abs(first - other).max() > 1e-4


def test_lists_without_what_came_next_are_refused():
    asked = lists(40, 7)
    with pytest.raises(CheckFailed, match="more candidates"):
        cross_encoder.fit(replace(asked, targets=np.full(40, -1)), world.texts(), Config(**TINY), 1, 1)


def test_a_training_that_diverges_stops_with_a_sentence():
    with pytest.raises(CheckFailed, match="diverged"):
        cross_encoder.fit(lists(140, 1), world.texts(), Config(**{**TINY, "learning_rate": 1e30}), 1, 1)
