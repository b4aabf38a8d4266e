"""A retraining begins where the served model is, and is as good in half of the epochs."""

from dataclasses import replace

import numpy as np
import pytest

from tests.worlds import checkerboard as world
from training.dataset import begin_folder
from training.model import Workplace, module_of, write_model
from training.warm_start import of_served, served_cut

CONFIG = {"embedding_size": 8, "epochs": 8}
ORIGIN = {
    "framework": "numpy", "cut_id": "cut-1", "as_of": "2020-01-01T00:00:00Z", "hyper_parameters": {}, "seed": 1
}  # fmt: skip


@pytest.fixture
def served(tmp_path):
    """The bundle of a model after eight epochs."""
    module, data = module_of("ials"), world.training_data()
    model = module.fit(data, module.Config(**CONFIG), 1, Workplace(1, tmp_path))
    draft = begin_folder(tmp_path / "ials")
    write_model(draft, "ials", model, data, ORIGIN)
    return draft / "bundle", model


def test_a_warm_fit_goes_on_and_takes_half_the_epochs(served, tmp_path, monkeypatch):
    folder, cold = served
    module, warm, sides = module_of("ials"), of_served(folder, "ials"), []
    solve = module.solve_side
    monkeypatch.setattr(module, "solve_side", lambda *given: sides.append(1) or solve(*given))
    again = module.fit(world.training_data(), module.Config(**CONFIG), 2, Workplace(1, tmp_path, warm=warm))
    assert len(sides) == 2 * 4  # users and items, four epochs
    longer = module.fit(world.training_data(), module.Config(**CONFIG | {"epochs": 12}), 1, Workplace(1, tmp_path))
    np.testing.assert_allclose(again.item_vectors, longer.item_vectors, rtol=1e-3, atol=1e-4)
    assert not np.allclose(cold.item_vectors, longer.item_vectors, rtol=1e-6, atol=1e-7)


def test_what_the_served_model_does_not_know_begins_cold(served):
    folder, model = served
    warm = of_served(folder, "ials")
    cold = np.full((3, 8), 7.0, np.float32)
    begun = warm.begin(["unknown", *warm.item_id[:2]], cold)
    assert (begun[0] == 7).all()
    np.testing.assert_array_equal(begun[1:], model.item_vectors[:2])
    assert warm.begin(list(warm.item_id[:3]), cold[:, :4]).shape == (3, 4)
    assert (replace(warm, item_id=()).begin(["x"] * 3, cold) == 7).all()


def test_another_model_or_none_gives_nothing(served, tmp_path):
    folder, _ = served
    assert served_cut(folder, "ials") == "cut-1"
    assert of_served(folder, "ease") is None
    assert served_cut(tmp_path / "nothing", "ials") is None
