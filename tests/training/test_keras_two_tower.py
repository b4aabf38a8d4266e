"""The parts of the Keras two-tower against their formulas, written out in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.worlds import checkerboard as world
from training.keras_layers import Forgetting, Thinning
from training.models import keras_two_tower as subject

SIZE = 4


@pytest.fixture(autouse=True, scope="module")
def threads():
    """TensorFlow takes the bound before its first operation only, and later tests of this process want the same."""
    subject.set_threads(1)


def test_a_state_is_the_mean_that_forgets():
    rng = np.random.default_rng(1)
    vectors, mask = rng.normal(size=(3, 5, SIZE)).astype(np.float32), np.ones((3, 5), np.float32)
    mask[0, :3] = 0  # right-aligned: what is left out stands before
    layer = Forgetting(2)
    found = layer(vectors, mask).numpy().reshape(3, 5, 2, SIZE)
    for speed, rate in enumerate((2.0, 0.03)):
        for row in range(3):
            for place in np.flatnonzero(mask[row]):
                weights = np.exp(-rate * (place - np.arange(place + 1))) * mask[row, : place + 1]
                expected = weights @ vectors[row, : place + 1] / weights.sum()
                np.testing.assert_allclose(found[row, place, speed], expected, atol=1e-5)
    assert (found[0, :3] == 0).all()


def test_thinning_keeps_the_mean_and_is_off_when_the_model_answers():
    keras.utils.set_random_seed(1)
    layer, values = Thinning(0.3), tf.ones((40, 50, 33))
    thinned = layer(values, training=True).numpy()
    assert abs((thinned == 0).mean() - 0.3) < 0.01
    assert abs(thinned.mean() - 1) < 0.01
    assert (layer(values, training=True).numpy() != thinned).any()
    np.testing.assert_array_equal(layer(values, training=False), values)


def loss_and_batch(**config):
    """The model's loss of one batch, that batch, and the variables behind it."""
    data, rng = world.training_data(), np.random.default_rng(1)
    settings = subject.Config(embedding_size=SIZE, dropout=0.0, learned_share=1.0, batch_size=4, **config)
    keras.utils.set_random_seed(1)
    tower = subject.user_tower(settings, True)
    items = keras.Variable(rng.normal(size=(data.n_items, SIZE)), dtype="float32")
    bias = keras.Variable(rng.normal(size=data.n_items), dtype="float32")
    share = np.bincount(data.items, minlength=data.n_items) / len(data.items)
    features = np.zeros((len(data.items), len(subject.FEATURES)), np.float32)
    loss_of, _, batches_of = subject.of_windows(tower, items, bias, data, features, share, settings, rng)
    return loss_of, next(batches_of()), tower, items.numpy(), bias.numpy()


@pytest.mark.parametrize("temperature", [0.0, 0.1])
@pytest.mark.parametrize("compared", [{"negatives": 10_000}, {"negatives": 3}, {"in_batch_negatives": 2}, {}])
def test_a_target_is_held_against_the_candidates_once(temperature, compared):
    """Among all items the loss is the cross-entropy; among some each stands for as many as its chance says, but the
    target for itself."""
    loss_of, batch, tower, items, bias = loss_and_batch(temperature=temperature, **compared)
    present, asked, seen, aimed, correction, _, mask, learned, features = batch
    users = tower([items[present][seen], mask, features]).numpy().reshape(-1, SIZE)[learned].astype(float)
    vectors = subject.scaled(tf.constant(items), temperature).numpy().astype(float)
    expected = []
    for user, target in zip(users, present[aimed], strict=True):
        logits = vectors @ user + bias
        others = present[asked] != target
        total = np.exp(logits[target]) + np.exp(logits[present[asked]] + correction)[others].sum()
        expected.append(np.log(total) - logits[target])
    np.testing.assert_allclose(loss_of(*map(tf.convert_to_tensor, batch)).numpy(), np.mean(expected), rtol=1e-4)
    if "in_batch_negatives" in compared:
        assert len(asked) <= 2 < len(np.unique(aimed))
        assert set(present[asked]) <= set(present[aimed])
    if compared.get("negatives") == 10_000:
        np.testing.assert_array_equal(correction, 0)
        assert len(asked) == len(bias)
