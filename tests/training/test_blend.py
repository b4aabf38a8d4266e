"""The blend is SLIST's and SASRec's scores, each over its deviation, added."""

from dataclasses import replace

import numpy as np
import pytest

from tests.worlds import checkerboard as world
from training.model import Workplace
from training.models import blend, sasrec, slist

NETWORK = {"embedding_size": 8, "min_steps": 20, "epochs": 1}
HISTORIES = [np.array([0, 5, 2]), np.array([7]), np.arange(12)]


def fitted(tmp_path, **config) -> blend.Blend:
    settings = blend.Config(**NETWORK, **config)
    return blend.fit(world.training_data(), settings, 1, Workplace(1, tmp_path))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Both models fitted by themselves."""
    data, place = world.training_data(), Workplace(1, tmp_path_factory.mktemp("alone"))
    linear = slist.fit(data, slist.Config(reg=2.0, max_history=50, horizon=10, target_exponent=1.0), 1, place)
    return linear, sasrec.fit(data, sasrec.Config(**NETWORK), 1, place)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_scores_are_those_of_both_over_their_deviations(alone, tmp_path, share):
    found = fitted(tmp_path, share=share, linear_reg=2.0, horizon=10, target_exponent=1.0).score(HISTORIES)
    asked = blend.some_histories(world.training_data(), 50, np.random.default_rng(1))
    opinions = [model.score(HISTORIES) / blend.deviation(model, asked) for model in alone]
    np.testing.assert_allclose(found, share * opinions[0] + (1 - share) * opinions[1], rtol=1e-3, atol=1e-4)
    assert np.abs(opinions[0]).max() > 0.1 < np.abs(opinions[1]).max()


def test_of_an_items_weights_the_largest_are_kept(alone, tmp_path):
    few = fitted(tmp_path, linear_reg=2.0, horizon=10, target_exponent=1.0, max_followers=3).linear.weights.toarray()
    whole = alone[0].weights.toarray()
    assert (np.count_nonzero(few, axis=1) == np.minimum(np.count_nonzero(whole, axis=1), 3)).all()
    share = few[few != 0] / whole[few != 0]
    np.testing.assert_allclose(share, share[0], rtol=1e-3)
    for kept, row in zip(few, whole, strict=True):
        left_out = np.abs(row[kept == 0]).max(initial=0)
        assert (np.abs(row[kept != 0]) >= left_out).all()


def test_a_deviation_is_that_of_the_best_scores(monkeypatch):
    class Told:
        def score(self, histories):
            return np.array([[0.0, -100, 4, 2], [6.0, 6, 6, -5]])[: len(histories)]

    monkeypatch.setattr(blend, "SHORTLIST", 2)
    assert blend.deviation(Told(), HISTORIES[:2]) == pytest.approx(0.5)  # of 4 and 2: 1; of 6 and 6: 0
    assert blend.deviation(Told(), HISTORIES[:0] + HISTORIES[1:2]) == pytest.approx(1.0)
    monkeypatch.setattr(Told, "score", lambda self, histories: np.ones((len(histories), 4)))
    assert blend.deviation(Told(), HISTORIES[:2]) == 1  # all alike: nothing is divided by


def test_some_histories_are_the_latest_items_of_users():
    data = world.training_data()
    few = blend.some_histories(replace(data), 3, np.random.default_rng(0))
    assert len(few) == min(blend.MOST_ASKED, len(np.unique(data.users)))
    latest = {tuple(data.items[rows][-3:]) for rows in data.sequences()}
    assert {tuple(history) for history in few} == latest
