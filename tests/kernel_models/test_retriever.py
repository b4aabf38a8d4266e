"""The retriever against brute force, on bundles written by hand."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from recsys.bundle import Catalogue, Manifest, write_bundle
from recsys.errors import UnusableInput
from recsys.retriever import Retriever, by_latest_event, top_k

ITEMS, SIZE = 9, 4


def catalogue(n_items: int = ITEMS) -> Catalogue:
    return Catalogue(
        item_id=[f"i{item:02d}" for item in range(n_items)],
        domain=["movies"] * n_items,
        title=[f"Film {item}" for item in range(n_items)],
        categories=[[]] * n_items,
        published_year=[None] * n_items,
    )


def manifest(kind: str, **more) -> Manifest:
    return Manifest(model="m", framework="numpy", kind=kind, cut_id="c", as_of="2020-01-01T00:00:00+00:00", **more)


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ITEMS, SIZE)).astype(np.float32)


@pytest.fixture
def popularity() -> np.ndarray:
    return np.array([3, 9, 1, 9, 0, 2, 7, 5, 4], np.float32)


scores = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 12)),
    elements=st.sampled_from([-np.inf, -1, 0, 0.5, 2, np.float32(1e30)]),
)


@settings(deadline=None)  # a busy machine is no property of the code
@given(scores, st.integers(1, 15))
def test_top_k_is_a_stable_sort(values, k):
    best, found = top_k(values, k)
    for row, line in enumerate(values):
        expected = [column for column in np.argsort(-line, kind="stable") if line[column] > -np.inf][:k]
        assert best[row].tolist() == expected + [-1] * (k - len(expected))
        assert found[row].tolist() == line[expected].tolist() + [-np.inf] * (k - len(expected))


def test_a_list_of_no_length_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        top_k(np.zeros((1, 3), np.float32), 0)


@settings(deadline=None)  # a busy machine is no property of the code
@given(hnp.arrays(np.int64, st.integers(0, 20), elements=st.integers(0, 5)))
def test_a_history_keeps_each_item_once_in_the_order_of_its_latest_event(history):
    expected = list(dict.fromkeys(reversed(history.tolist())))[::-1]
    assert by_latest_event(history).tolist() == expected


def test_ials_solves_the_weighted_normal_equations(tmp_path, vectors, popularity):
    alpha, reg, exponent, recency = 0.5, 0.1, 0.7, 0.75
    arrays = {"popularity": popularity, "item_vectors": vectors, "gram": vectors.T @ vectors}
    more = {"unobserved_weight": alpha, "reg": reg, "reg_exponent": exponent, "recency_exponent": recency}
    write_bundle(tmp_path, manifest("ials", **more), catalogue(), arrays)
    history, weights = np.array([2, 7, 4]), (1 + np.array([2.0, 1.0, 0.0])) ** -recency

    ridge = reg * (weights.sum() + alpha * ITEMS) ** exponent

    def loss(user: np.ndarray) -> float:
        observed = weights @ (1 - vectors[history] @ user) ** 2
        return observed + alpha * ((vectors @ user) ** 2).sum() + ridge * user @ user

    user = Retriever(tmp_path).encode([history])[0].astype(np.float64)
    rng = np.random.default_rng(1)
    nearby = [loss(user + rng.normal(0, 0.01, SIZE)) for _ in range(200)]
    assert loss(user) < min(nearby)
    np.testing.assert_allclose(Retriever(tmp_path).score([history])[0], vectors @ user, atol=1e-5)


def test_mean_weighs_by_recency_and_adds_the_bias(tmp_path, vectors, popularity):
    bias = np.arange(ITEMS, dtype=np.float32)
    arrays = {"popularity": popularity, "item_vectors": vectors, "item_bias": bias}
    write_bundle(tmp_path, manifest("mean", recency_exponent=1.0, max_history=2), catalogue(), arrays)
    user = (vectors[3] * 0.5 + vectors[5]) / 1.5  # of 8, 3, 5 the latest two
    np.testing.assert_allclose(
        Retriever(tmp_path).score([np.array([8, 3, 5])])[0], vectors @ user + bias, rtol=1e-5, atol=1e-6
    )


def onnx_encoder(vectors: np.ndarray, with_features: bool) -> bytes:
    """Sum of the history's vectors, plus the features' sum in every place."""
    inputs = [
        helper.make_tensor_value_info("history", TensorProto.INT64, ["b", "l"]),
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["b", "l"]),
    ]
    nodes = [
        helper.make_node("Gather", ["items", "history"], ["v"]),
        helper.make_node("Unsqueeze", ["mask", "two"], ["m"]),
        helper.make_node("Mul", ["v", "m"], ["vm"]),
        helper.make_node("ReduceSum", ["vm", "one"], ["sum" if with_features else "user_vector"], keepdims=0),
    ]
    if with_features:
        inputs.append(helper.make_tensor_value_info("user_features", TensorProto.FLOAT, ["b", 2]))
        nodes += [
            helper.make_node("ReduceSum", ["user_features", "one"], ["f"], keepdims=1),
            helper.make_node("Add", ["sum", "f"], ["user_vector"]),
        ]
    constants = {"items": vectors, "one": np.array([1]), "two": np.array([2])}
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [helper.make_tensor_value_info("user_vector", TensorProto.FLOAT, ["b", SIZE])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def test_onnx_reads_the_latest_items_and_nothing_of_the_padding(tmp_path, vectors, popularity):
    arrays = {"popularity": popularity, "item_vectors": vectors}
    encoder = onnx_encoder(vectors, with_features=False)
    write_bundle(tmp_path, manifest("onnx", max_history=3), catalogue(), arrays, encoder)
    users = Retriever(tmp_path).encode([np.array([1]), np.array([5, 6, 7, 8])])
    np.testing.assert_allclose(users, [vectors[1], vectors[6:9].sum(0)], rtol=1e-5)


def test_features_are_standardised_clipped_and_the_mean_where_unknown(tmp_path, vectors, popularity):
    more = {"user_features": ("a", "b"), "feature_mean": (10.0, 0.0), "feature_scale": (2.0, 1.0)}
    arrays = {"popularity": popularity, "item_vectors": vectors}
    encoder = onnx_encoder(vectors, with_features=True)
    write_bundle(tmp_path, manifest("onnx", **more), catalogue(), arrays, encoder)
    retriever, history = Retriever(tmp_path), np.array([0])
    users = retriever.encode([history] * 3, np.array([[14.0, 1.0], [np.nan, np.nan], [1e9, 0.0]]))
    np.testing.assert_allclose(users - vectors[0], np.tile([[3.0], [0.0], [5.0]], SIZE), atol=1e-5)
    np.testing.assert_allclose(retriever.encode([history]), users[1:2])


def as_rows(dense: np.ndarray) -> dict[str, np.ndarray]:
    row, item = np.nonzero(dense)
    start = np.searchsorted(row, np.arange(len(dense) + 1))
    return {"weight_start": start, "weight_item": item, "weight_value": dense[row, item]}


@settings(deadline=None)  # a busy machine is no property of the code
@given(
    hnp.arrays(np.float32, (6, 6), elements=st.sampled_from([0, 0, 0, 1, -2, 0.5])),
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=1, max_size=4),
)
def test_linear_is_a_product_with_the_dense_weights(tmp_path_factory, dense, listed):
    folder = tmp_path_factory.mktemp("linear")
    arrays = {"popularity": np.ones(6), "item_bias": np.arange(6), **as_rows(dense)}
    write_bundle(folder, manifest("linear", recency_exponent=0.5, max_history=4), catalogue(6), arrays)
    retriever, histories = Retriever(folder), [np.array(history) for history in listed]
    for history, scores in zip(histories, retriever.score(histories), strict=True):
        latest = by_latest_event(history)[-4:]
        weights = (1.0 + np.arange(len(latest))[::-1]) ** -0.5
        np.testing.assert_allclose(scores, weights @ dense[latest] + np.arange(6), atol=1e-5)


def test_items_like_one_of_a_linear_model_are_those_that_it_makes_likely(tmp_path):
    dense = np.zeros((4, 4))
    dense[0] = [9, 1, 3, -1]
    arrays = {"popularity": np.array([1, 4, 2, 3]), **as_rows(dense)}
    write_bundle(tmp_path, manifest("linear"), catalogue(4), arrays)
    items, scores = Retriever(tmp_path).similar_items(0, 3)
    assert (items.tolist(), scores.tolist()) == ([2, 1, 3], [3, 1, -1])
    assert Retriever(tmp_path).similar_items(1, 3)[0].tolist() == [3, 2, 0], "without weights by popularity"


def test_weights_that_are_no_matrix_are_not_written_and_not_read(tmp_path, popularity):
    arrays = {"popularity": popularity, **as_rows(np.eye(ITEMS))}
    with pytest.raises(ValueError, match="starts"):
        write_bundle(tmp_path / "new", manifest("linear"), catalogue(), {**arrays, "weight_value": np.ones(2)})
    assert not (tmp_path / "new").exists()
    write_bundle(tmp_path, manifest("linear"), catalogue(), arrays)
    np.save(tmp_path / "weight_start.npy", np.zeros(3, np.int64))
    with pytest.raises(UnusableInput, match="weights cannot be read"):
        Retriever(tmp_path)


def test_an_empty_history_gets_the_popularity_whatever_the_kind(tmp_path, vectors, popularity):
    arrays = {"popularity": popularity, "item_vectors": vectors, "gram": vectors.T @ vectors}
    write_bundle(tmp_path, manifest("ials", unobserved_weight=1.0, reg=0.1), catalogue(), arrays)
    items, scores = Retriever(tmp_path).recommend([np.array([], np.int64), np.array([1])], 4)
    assert items[0].tolist() == [1, 3, 6, 7]  # equal counts by id
    assert scores[0].tolist() == [9, 9, 7, 5]
    assert 1 not in items[1]


def test_what_is_not_allowed_or_seen_is_not_shown(tmp_path, popularity):
    write_bundle(tmp_path, manifest("popularity"), catalogue(), {"popularity": popularity})
    allowed = np.ones(ITEMS, bool)
    allowed[[1, 6]] = False
    retriever = Retriever(tmp_path)
    items, _ = retriever.recommend([np.array([3])], ITEMS, allowed=allowed)
    assert items[0].tolist() == [7, 8, 0, 5, 2, 4, -1, -1, -1]
    items, _ = retriever.recommend([np.array([3])], 2, filter_seen=False)
    assert items[0].tolist() == [1, 3]
    assert retriever.popularity.tolist() == popularity.tolist(), "an answer must not change the model"


def test_similar_items_of_a_model_without_vectors_are_the_popular_ones(tmp_path, popularity):
    write_bundle(tmp_path, manifest("popularity"), catalogue(), {"popularity": popularity})
    assert Retriever(tmp_path).similar_items(1, 3)[0].tolist() == [3, 6, 7]


@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_many_columns_are_those_of_a_full_sort(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 40, (6, 1501)).astype(np.float32)  # many ties, and a last column outside the groups
    scores[:, -1] = 40
    scores[0, 3:] = -np.inf
    items, values = top_k(scores, 9)
    for row, line in enumerate(scores):
        expected = [column for column in np.argsort(-line, kind="stable")[:9].tolist() if line[column] > -np.inf]
        assert items[row][items[row] >= 0].tolist() == expected
        assert values[row][: len(expected)].tolist() == line[expected].tolist()
