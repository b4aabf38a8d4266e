"""EASE, item-kNN and the spectral filter against their formulas, written out densely in float64."""

from dataclasses import replace

import numpy as np
import pytest

from tests.worlds import checkerboard as world
from training.item_weights import interaction_matrix, strongest_of_columns
from training.model import Workplace
from training.models import ease, item_knn, spectral


def random_data(n_users: int = 50, seed: int = 4):
    """A world without any pattern; two items are never used."""
    rng, data = np.random.default_rng(seed), world.training_data()
    used = [rng.permutation(world.ITEMS - 2)[: rng.integers(1, 14)] for _ in range(n_users)]
    users = np.repeat(np.arange(n_users), [len(items) for items in used]).astype(np.int32)
    return replace(data, users=users, items=np.concatenate(used).astype(np.int32), instants=np.arange(len(users)))


def fitted(module, tmp_path, **config):
    return module.fit(random_data(), module.Config(**config), 1, Workplace(1, tmp_path)).weights.toarray()


def dense() -> np.ndarray:
    return interaction_matrix(random_data()).toarray().astype(float)


def closed_form(reg: float, user_exponent: float, item_exponent: float = 0.0) -> np.ndarray:
    x = dense()
    per_user = x.sum(1, keepdims=True) ** -user_exponent
    gram = x.T @ (per_user * x)
    squares = np.diag(gram)
    ridge = reg * (squares / squares[squares > 0].mean()) ** item_exponent
    p = np.linalg.inv(gram + np.diag(np.where(squares > 0, ridge, 1)))
    b = np.eye(len(p)) - p / np.diag(p)
    used = x.sum(0) > 0
    return b * used[:, None] * used[None]


@pytest.mark.parametrize("user_exponent", [0.0, 0.5])
def test_ease_is_the_closed_form(tmp_path, user_exponent):
    weights = fitted(ease, tmp_path, reg=3.0, user_exponent=user_exponent)
    np.testing.assert_allclose(weights, closed_form(3.0, user_exponent), atol=1e-5)
    assert (np.diag(weights) == 0).all()


@pytest.mark.parametrize("user_exponent", [0.0, 0.5])
def test_ease_by_neighbours_is_the_closed_form_where_all_are_neighbours(tmp_path, user_exponent):
    weights = fitted(ease, tmp_path, reg=3.0, user_exponent=user_exponent, max_exact_items=1)
    np.testing.assert_allclose(weights, closed_form(3.0, user_exponent), atol=5e-4)


@pytest.mark.parametrize("max_exact_items", [100, 1], ids=["exact", "by neighbours"])
def test_a_ridge_that_grows_with_the_use_of_an_item_is_that_of_the_closed_form(tmp_path, max_exact_items):
    weights = fitted(ease, tmp_path, reg=3.0, item_exponent=0.5, max_exact_items=max_exact_items)
    np.testing.assert_allclose(weights, closed_form(3.0, 0.0, 0.5), atol=2e-4)
    assert np.abs(weights - closed_form(3.0, 0.0)).max() > 0.01


@pytest.mark.parametrize("max_exact_items", [100, 1], ids=["exact", "by neighbours"])
def test_a_popular_item_gets_by_the_power_of_its_users(tmp_path, max_exact_items):
    weights = fitted(ease, tmp_path, reg=3.0, popularity_exponent=-0.4, max_exact_items=max_exact_items)
    per_item = np.maximum(dense().sum(0), 1)
    np.testing.assert_allclose(weights, closed_form(3.0, 0.0) * per_item**-0.4, atol=2e-4)


def test_few_neighbours_solve_the_regression_on_them(tmp_path):
    weights, x = fitted(ease, tmp_path, reg=3.0, max_exact_items=1, neighbours=4), dense()
    assert 0 < np.count_nonzero(weights, axis=0).max() <= 4
    for item in range(3):
        kept = np.flatnonzero(weights[:, item])
        left = x[:, kept].T @ x[:, kept] + 3 * np.eye(len(kept))
        np.testing.assert_allclose(weights[kept, item], np.linalg.solve(left, x[:, kept].T @ x[:, item]), atol=1e-4)


def test_what_is_seldom_used_predicts_nothing_beyond_the_inputs(tmp_path):
    weights = fitted(ease, tmp_path, reg=3.0, max_exact_items=1, max_inputs=10)
    assert (weights != 0).any(1).sum() == 10
    assert (weights != 0).any(0).sum() == world.ITEMS - 2


def test_item_knn_is_the_shrunk_cosine(tmp_path):
    x = dense()
    together, norms = x.T @ x, np.sqrt(x.sum(0))
    expected = together / (np.outer(norms, norms) + 5)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(fitted(item_knn, tmp_path, shrinkage=5.0), expected, atol=1e-6)
    few = fitted(item_knn, tmp_path, shrinkage=5.0, neighbours=3)
    assert (np.count_nonzero(few, axis=0) <= 3).all()
    np.testing.assert_allclose(few.max(0), expected.max(0), atol=1e-6)


def test_the_spectral_filter_is_gf_cf(tmp_path):
    x = dense()
    per_user, per_item = x.sum(1, keepdims=True), np.maximum(x.sum(0), 1)
    r = x / np.sqrt(per_user * per_item)
    v = np.linalg.svd(r)[2][:3].T
    low_pass = (v / np.sqrt(per_item)[:, None]) @ (v * np.sqrt(per_item)[:, None]).T
    np.testing.assert_allclose(fitted(spectral, tmp_path, components=3), r.T @ r + 0.3 * low_pass, atol=1e-4)
    np.testing.assert_allclose(fitted(spectral, tmp_path, components=0, power=0.5), (r.T @ r) ** 0.5, atol=1e-5)
    moved = fitted(spectral, tmp_path, components=3, popularity_exponent=-0.4)
    np.testing.assert_allclose(moved, (r.T @ r + 0.3 * low_pass) * per_item**-0.4, atol=1e-4)


@pytest.mark.parametrize(("components", "is_dense"), [(100, True), (3, True), (2, False)])
def test_tikhonov_lessens_the_strongest_patterns(tmp_path, monkeypatch, components, is_dense):
    """All patterns give the ridge regression; of a few the rest stays linear; both decompositions say the same."""
    monkeypatch.setattr(spectral, "DENSE_SHARE", 0.0 if is_dense else 1.0)
    x, b = dense(), 0.3
    per_user, per_item = x.sum(1, keepdims=True), np.maximum(x.sum(0), 1)
    r = x * per_user**-0.4 * per_item**-b
    s, v = np.linalg.eigh(r.T @ r)
    s, v = np.maximum(s, 0)[::-1], v[:, ::-1]
    reg = 0.2 * s[0]
    response = np.where(np.arange(len(s)) < components, s / (s + reg), s / reg)
    expected = per_item[:, None] ** -b * (reg * (v * response) @ v.T) * per_item ** (b - 0.15)
    settings = {"user_exponent": 0.4, "item_exponent": b, "popularity_exponent": -0.15}
    found = fitted(spectral, tmp_path, components=components, reg=0.2, **settings)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    if components > len(s):
        gram = x.T @ (x * per_user**-0.8)
        ridge = np.linalg.solve(gram + np.diag(reg * per_item ** (2 * b)), gram)
        np.testing.assert_allclose(found, reg * ridge * per_item**-0.15, atol=1e-4)


def test_columns_keep_their_strongest():
    whole = np.array([[3.0, 0, 1], [-4, 0, 2], [1, 5, -3]])
    kept = strongest_of_columns(item_knn.scipy.sparse.csc_array(whole), 2).toarray()
    np.testing.assert_array_equal(kept, [[3, 0, 0], [-4, 0, 2], [0, 5, -3]])
