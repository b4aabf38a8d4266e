"""Rankers: a world whose answer is known, the exported graph against the network, the measures against definitions."""

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.artifacts import ITEM_FEATURES, RANKER_MODELS, USER_FEATURES
from recsys.errors import CheckFailed, RecsysError
from training import ranker

FEATURES = {"user_features": USER_FEATURES, "item_features": ITEM_FEATURES}
U = len(USER_FEATURES)


def world(n: int = 3000, seed: int = 1) -> ranker.Examples:
    """A user likes an item where both mean ratings are on the same side of 3: neither alone says anything."""
    rng = np.random.default_rng(seed)
    numbers = np.column_stack([rng.gamma(2, 50, (n, U + len(ITEM_FEATURES)))]).astype(np.float32)
    numbers[:, U - 1], numbers[:, -1] = rng.uniform(1, 5, n), rng.uniform(1, 5, n)
    likes = (numbers[:, U - 1] > 3) == (numbers[:, -1] > 3)
    numbers[rng.random(numbers.shape) < 0.05] = np.nan
    return ranker.Examples(numbers, likes.astype(np.float32))


def tiny(name: str, **more):
    module = ranker.module_of(name)
    return module, module.Config(
        **{"layers": (16,), "epochs": 8, "batch_size": 100, "learning_rate": 0.01, "dropout": 0.0, **more}
    )


@pytest.fixture(scope="module")
def fitted():
    made = {}

    def get(name: str):
        if name not in made:
            module, config = tiny(name)
            made[name] = module.fit(world(), world(800, seed=2), config, 1, 1)
        return made[name]

    return get


@pytest.mark.parametrize("name", RANKER_MODELS)
def test_it_finds_what_only_a_pair_of_features_says(fitted, name):
    test = world(1000, seed=3)
    predicted = fitted(name).predict(test)
    assert ranker.auc(predicted, test.labels) > 0.85
    assert ranker.auc(np.nan_to_num(test.numbers[:, -1]), test.labels) < 0.6


@pytest.mark.parametrize("name", RANKER_MODELS)
def test_the_exported_graph_answers_like_the_network(fitted, tmp_path, name):
    ranker.write_ranker(tmp_path, fitted(name), FEATURES, {"model": name})
    session = onnxruntime.InferenceSession(str(tmp_path / ranker.MODEL_FILE))
    asked = world(50, seed=4).numbers
    asked[:, :U] = asked[0, :U]
    (scores,) = session.run(["scores"], {"user_features": asked[:1, :U], "item_features": asked[:, U:]})
    native = fitted(name).predict(ranker.Examples(asked, np.zeros(50, np.float32)))
    assert scores.shape == (50,)
    np.testing.assert_allclose(scores, native, atol=1e-5)
    if "logits" in [output.name for output in session.get_outputs()]:
        (logits,) = session.run(["logits"], {"user_features": asked[:1, :U], "item_features": asked[:, U:]})
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), scores, atol=1e-6)
    else:
        assert name == "mmoe"  # its score is a product of two probabilities


def test_the_signature_names_the_features_of_each_side(fitted, tmp_path):
    ranker.write_ranker(tmp_path, fitted("dcn_v2"), FEATURES, {"model": "dcn_v2"})
    said = (tmp_path / ranker.SIGNATURE_FILE).read_text()
    assert all(name in said for name in (*USER_FEATURES, *ITEM_FEATURES))


@pytest.mark.parametrize("name", RANKER_MODELS)
def test_categories_are_learned_and_stay_out_of_serving(name):
    rng = np.random.default_rng(5)
    users, items = rng.integers(1, 9, (2, 2000), dtype=np.int32)
    genres = np.stack([items % 3 + 1, np.zeros_like(items)], 1)
    examples = ranker.Examples(
        np.zeros((2000, 0), np.float32), (users % 2 == items % 2).astype(np.float32),
        {"user": users, "item": items, "genres": genres},
    )  # fmt: skip
    module, config = tiny(name, embedding_size=4)
    model = module.fit(examples, examples, config, 1, 1)
    assert ranker.auc(model.predict(examples), examples.labels) > 0.95
    strangers = {"user": users[:2] * 0 + [0, 40], "item": items[:2] * 0 + 1, "genres": genres[:2] * 0 + [[50, 0]] * 2}
    unknown, unseen = model.predict(ranker.Examples(np.zeros((2, 0), np.float32), np.zeros(2, np.float32), strangers))
    assert unseen == pytest.approx(unknown, abs=1e-6), "what training has not seen is unknown"
    with pytest.raises(RecsysError, match="Serving has numbers only"):
        model.to_onnx(1)


@pytest.mark.parametrize("name", RANKER_MODELS)
def test_a_training_that_diverges_stops_with_a_sentence(name):
    module, config = tiny(name, learning_rate=1e30)
    with pytest.raises(CheckFailed, match="diverged"):
        module.fit(world(400), world(100), config, 1, 1)


def two_tasks(n: int, seed: int) -> ranker.Examples:
    """A click as in `world`; of what is clicked, an item with many events is bought. Purchases of half the clicks are
    not known."""
    examples, rng = world(n, seed), np.random.default_rng(seed + 100)
    buys = examples.labels * (np.nan_to_num(examples.numbers[:, U], nan=100) > 90)
    buys[rng.random(n) < 0.5] = np.nan
    return ranker.Examples(examples.numbers, np.column_stack([examples.labels, buys]).astype(np.float32))


def test_two_tasks_share_their_experts_and_the_score_is_of_both():
    module, config = tiny("mmoe", epochs=30, patience=5)
    model = module.fit(two_tasks(6000, 1), two_tasks(800, 2), config, 1, 1)
    test = two_tasks(2000, 3)
    predicted = model.predict(test)
    assert predicted.shape == test.labels.shape
    assert ranker.auc(predicted[:, 0], test.labels[:, 0]) > 0.85
    known = np.isfinite(test.labels[:, 1])
    assert ranker.auc(predicted[known, 1], test.labels[known, 1]) > 0.85
    assert ranker.calibration_error(predicted[known, 1], test.labels[known, 1]) < 0.1
    session = onnxruntime.InferenceSession(model.to_onnx(U))
    asked = test.numbers[:1, :U], test.numbers[:9, U:]
    (scores,) = session.run(["scores"], {"user_features": asked[0], "item_features": asked[1]})
    joined = np.column_stack([np.repeat(asked[0], 9, 0), asked[1]])
    both = model.predict(ranker.Examples(joined, np.zeros((9, 2), np.float32)))
    np.testing.assert_allclose(scores, both[:, 0] * both[:, 1] ** config.other_weight, atol=1e-5)


def test_gates_of_tasks_that_want_other_things_choose_other_experts():
    module, config = tiny("mmoe", experts=2, epochs=20, patience=20)
    rng = np.random.default_rng(3)
    numbers = rng.normal(0, 1, (4000, 2)).astype(np.float32)
    labels = (numbers * [1, -1] > 0).astype(np.float32)
    model = module.fit(ranker.Examples(numbers, labels), ranker.Examples(numbers, labels), config, 1, 1)
    predicted = model.predict(ranker.Examples(numbers, labels))
    assert min(ranker.auc(predicted[:, task], labels[:, task]) for task in range(2)) > 0.97


def test_an_unknown_ranker_is_refused():
    with pytest.raises(RecsysError, match="Choose among dcn_v2"):
        ranker.module_of("crystal_ball")


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=12))
def test_auc_is_the_share_of_pairs_in_order(pairs):
    scores, labels = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs], float)
    above = [(a > b) + (a == b) / 2 for a in scores[labels == 1] for b in scores[labels == 0]]
    value = ranker.auc(scores, labels)
    assert np.isnan(value) if not above else value == pytest.approx(np.mean(above))


def test_calibration_error_of_the_truth_is_nothing_and_of_a_lie_its_size():
    labels = np.tile([1, 0, 0, 0], 250).astype(np.float32)
    assert ranker.calibration_error(np.full(1000, 0.25), labels) == pytest.approx(0, abs=1e-9)
    assert ranker.calibration_error(np.full(1000, 0.45), labels) == pytest.approx(0.2)


def test_calibration_undoes_a_stretch_of_the_logits():
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 1.5, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    slope, offset = ranker.platt(3 * truth + 1, labels)
    assert slope == pytest.approx(1 / 3, abs=0.02)
    assert offset == pytest.approx(-1 / 3, abs=0.04)
    assert ranker.platt(truth, np.ones(20_000)) == (1.0, 0.0)
