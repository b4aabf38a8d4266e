"""The linear item model against hand-made answers and a ridge regression solved the long way."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.retriever import Retriever
from tests.worlds import checkerboard as world
from training.model import Workplace, popularity, write_model
from training.models import slist
from training.models.slist import Config, cut_rows, fit, prune, sequences_of, solve, used_items

EVERYTHING = Config(splits=99, half_life_days=1e9, reg=2.0, prior_rows=0.0, min_events=1, max_neighbours=world.ITEMS)


def fitted(data, config: Config, tmp_path):
    return fit(data, config, 1, Workplace(1, tmp_path))


def random_data(n_users: int = 30, longest: int = 12):
    """A world without any pattern, in which users differ in length and each uses an item at most once."""
    rng, data = np.random.default_rng(4), world.training_data()
    used = [rng.permutation(world.ITEMS - 2)[: rng.integers(1, longest)] for _ in range(n_users)]
    users = np.repeat(np.arange(n_users), [len(items) for items in used]).astype(np.int32)
    instants = np.sort(rng.integers(0, 10**11, len(users)))  # in order within each user as well
    return replace(
        data, users=users, items=np.concatenate(used).astype(np.int32), instants=instants, cut_at=int(instants[-1]) + 1
    )


def rows_of(data, config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source and target (R, I) and the rows' weights (R,), event by event in float64."""
    source, target, weights = [], [], []
    for user in np.unique(data.users):
        rows = np.flatnonzero(data.users == user)
        items, instants = data.items[rows], data.instants[rows]
        for cut in range(1, len(items)):
            before, after = np.zeros(data.n_items), np.zeros(data.n_items)
            for back, item in enumerate(items[:cut][::-1][: config.max_history]):
                before[item] = (1 + back) ** -config.recency_exponent
            for ahead, item in enumerate(items[cut:][: config.horizon]):
                after[item] = (1 + ahead) ** -config.target_exponent
            source.append(before)
            target.append(after)
            weights.append(0.5 ** ((data.cut_at - instants[cut]) / 86_400_000 / config.half_life_days))
    return np.array(source), np.array(target), np.array(weights)


def brute_force(data, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Weights (I, I) and means of the source (I,) by augmented least squares."""
    s, t, w = rows_of(data, config)
    mean_s, mean_t = w @ s / w.sum(), w @ t / w.sum()
    left = np.vstack([np.sqrt(w)[:, None] * (s - mean_s), np.sqrt(config.reg) * np.eye(data.n_items)])
    right = np.vstack([np.sqrt(w)[:, None] * (t - mean_t), np.zeros((data.n_items, data.n_items))])
    return np.linalg.lstsq(left, right, rcond=None)[0], mean_s


@pytest.mark.parametrize(
    "changes", [{}, {"half_life_days": 100.0}, {"max_history": 3, "horizon": 2, "target_exponent": 1.0}]
)
def test_the_weights_are_those_of_a_ridge_regression(tmp_path, changes):
    data, config = random_data(), EVERYTHING.model_copy(update=changes)
    model = fitted(data, config, tmp_path)
    expected, mean_source = brute_force(data, config)
    np.testing.assert_allclose(model.weights.toarray(), expected, atol=2e-5)

    counts = popularity(data)
    without = model.bias + mean_source @ expected  # what the intercept is before the weights explain their part
    assert counts[-2:].tolist() == [0, 0]
    np.testing.assert_allclose(without / without.sum(), counts / counts.sum(), atol=1e-5)


@pytest.mark.parametrize("neighbours", [4, 99])
def test_of_many_items_each_is_regressed_on_the_few_that_say_most_of_it(tmp_path, neighbours):
    changes = {"max_exact_items": 1, "neighbours": neighbours, "half_life_days": 100.0}
    data, config = random_data(), EVERYTHING.model_copy(update=changes)
    model = fitted(data, config, tmp_path)
    s, t, w = rows_of(data, config)
    s, t = (np.sqrt(w)[:, None] * (side - w @ side / w.sum()) for side in (s, t))
    weights = model.weights.toarray()
    assert 0 < np.count_nonzero(weights, axis=0).max() <= neighbours
    assert not np.diag(weights).any()
    for item in range(world.ITEMS - 2):
        kept = np.flatnonzero(weights[:, item])
        left = s[:, kept].T @ s[:, kept] + config.reg * np.eye(len(kept))
        np.testing.assert_allclose(weights[kept, item], np.linalg.solve(left, s[:, kept].T @ t[:, item]), atol=2e-3)
    assert abs(weights).max() > 0.02


def test_many_items_and_nobody_with_two_events_is_the_popularity(tmp_path):
    data = random_data(longest=2)
    model = fitted(data, EVERYTHING.model_copy(update={"max_exact_items": 1}), tmp_path)
    assert not model.weights.nnz
    np.testing.assert_allclose(model.score([np.array([0])])[0] / model.bias.sum(), model.bias / model.bias.sum())


def test_a_tiny_world_by_hand(tmp_path):
    """Two users, 0 then 1 and 2 then 3: the centred source of 0 is ±1/2, its target 1 is ±1/2, so with gram 1/2 on and
    -1/2 off the diagonal the weight is 1/2 / (1 + reg)."""
    data = world.training_data()
    start = int(data.instants[0])
    data = replace(
        data,
        users=np.array([0, 0, 1, 1], np.int32),
        items=np.array([0, 1, 2, 3], np.int32),
        instants=start + np.arange(4),
        cut_at=start + 4,
    )
    model = fitted(data, EVERYTHING.model_copy(update={"reg": 1.0}), tmp_path)
    weights = model.weights.toarray()
    np.testing.assert_allclose(weights[0, 1], 0.5 / 2, atol=1e-6)
    np.testing.assert_allclose(weights[2, 3], 0.5 / 2, atol=1e-6)
    np.testing.assert_allclose(weights[0, 3], -0.5 / 2, atol=1e-6)
    assert np.count_nonzero(weights) == 4
    # One target a row among four items as popular; what 0 and 2 give to 1 and 3 cancels out on average.
    np.testing.assert_allclose(model.bias[:4], [0.25] * 4, atol=1e-6)


def test_single_precision_is_enough(tmp_path):
    data, config = random_data(200, 20), EVERYTHING.model_copy(update={"reg": 0.5})
    used = used_items(data, config)
    source, target, weight = cut_rows(sequences_of(data, used), len(used), data.cut_at, config)
    s, t, w = source.toarray().astype(float), target.toarray().astype(float), weight.astype(float)[:, None]
    s, t = s - (w * s).sum(0) / w.sum(), t - (w * t).sum(0) / w.sum()
    double = solve(s.T @ (w * s), s.T @ (w * t), config.reg)
    assert double.dtype == np.float64
    single = fitted(data, config, tmp_path).weights.toarray()[np.ix_(used, used)]
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, double, atol=1e-4 * np.abs(double).max())


def test_rows_in_blocks_are_the_same_sum(tmp_path, monkeypatch):
    data = random_data()
    whole = fitted(data, EVERYTHING, tmp_path)
    monkeypatch.setattr(slist, "BLOCK_USERS", 4)
    blocks = fitted(data, EVERYTHING, tmp_path)
    np.testing.assert_allclose(blocks.weights.toarray(), whole.weights.toarray(), atol=1e-5)


def test_pruning_keeps_the_largest_and_nothing_is_lost_where_all_are_kept():
    dense = np.array([[3, -4, 1, 0], [0, 0, 0, 0], [1, 2, 3, 4], [-5, 0, 0, 1]], np.float32)
    np.testing.assert_array_equal(prune(dense, 4).toarray(), dense)
    kept = prune(dense, 2).toarray()
    np.testing.assert_array_equal(kept, [[3, -4, 0, 0], [0, 0, 0, 0], [0, 0, 3, 4], [-5, 0, 0, 1]])


@pytest.mark.parametrize("max_neighbours", [3, world.ITEMS])
def test_the_bundle_scores_like_the_dense_product(tmp_path, max_neighbours):
    data = random_data()
    model = fitted(data, EVERYTHING.model_copy(update={"max_neighbours": max_neighbours}), tmp_path)
    write_model(tmp_path, "slist", model, data, {"framework": "numpy", "cut_id": "c", "as_of": "d"})
    histories = [np.array([5]), np.array([1, 4, 9]), np.arange(world.ITEMS)]
    history = np.zeros((3, world.ITEMS))
    for row, items in enumerate(histories):
        history[row, items] = (1.0 + np.arange(len(items))[::-1]) ** -EVERYTHING.recency_exponent
    expected = history @ model.weights.toarray() + model.bias
    np.testing.assert_allclose(Retriever(tmp_path / "bundle").score(histories), expected, atol=1e-5)


@pytest.mark.parametrize("changes", [{"min_events": 13}, {"max_items": 10}])
def test_seldom_used_items_get_their_popularity_alone(tmp_path, changes):
    data = world.training_data()
    config = EVERYTHING.model_copy(update=changes)
    used = used_items(data, config)
    assert 0 < len(used) < world.ITEMS
    model = fitted(data, config, tmp_path)
    rest = np.setdiff1d(np.arange(world.ITEMS), used)
    dense = model.weights.toarray()
    assert np.count_nonzero(dense[used][:, used]) > 0
    assert np.count_nonzero(dense[rest]) == np.count_nonzero(dense[:, rest]) == 0
    counts = popularity(data)
    scores = model.score([np.array([used[0]]), np.array([rest[0]])])
    np.testing.assert_allclose(scores[0, rest], scores[1, rest])
    np.testing.assert_allclose(model.bias[rest] / model.bias[rest[0]], counts[rest] / counts[rest[0]], rtol=1e-5)


def test_the_less_data_the_nearer_to_popularity(tmp_path):
    data = world.training_data()
    weights = [
        np.abs(fitted(data, EVERYTHING.model_copy(update={"prior_rows": prior}), tmp_path).weights).max()
        for prior in (0.0, 1e3, 1e6)
    ]
    assert weights[0] > weights[1] > 10 * weights[2]
