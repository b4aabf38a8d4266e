"""The first look in eight bits: what it says of a score is true, and the product is the one that is written down."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from recsys.bundle import Catalogue, Manifest, write_bundle
from recsys.eight_bit import PRODUCT, TOGETHER, EightBit
from recsys.retriever import GROUP_SIZE, Retriever, top_k


def test_the_written_product_is_what_the_library_makes():
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["users", "items", "zero"], ["sums"])], "product",
        [value("users", TensorProto.UINT8, ["B", "D"]), value("zero", TensorProto.UINT8, [])],
        [value("sums", TensorProto.INT32, ["B", "I"])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert model.SerializeToString(deterministic=True) == PRODUCT


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    items=st.integers(1, 300),
    size=st.integers(1, 40),
    spread=st.sampled_from([1e-6, 1.0, 1e4]),
    biased=st.booleans(),
)
def test_no_score_is_further_off_than_is_said(seed, items, size, spread, biased):
    chance = np.random.default_rng(seed)
    vectors = (chance.standard_t(3, (items, size)) * spread).astype(np.float32)
    users = chance.standard_t(3, (TOGETHER + 3, size)).astype(np.float32)
    bias = chance.normal(size=items).astype(np.float32) * np.float32(spread) if biased else None
    product = EightBit(vectors, bias)
    for user, look in zip(users, product.looks(users), strict=True):
        true = vectors.astype(float) @ user.astype(float) + (0 if bias is None else bias)
        rounding, off = 1e-6 * np.abs(true).max(), look.off * look.step
        assert np.abs(look.steps * look.step - true).max() <= off + rounding
        assert product.exact(user, np.arange(items)) == pytest.approx(true, rel=1e-4, abs=off * 1e-2 + rounding)


def test_vectors_of_nothing_score_nothing():
    (look,) = EightBit(np.zeros((3, 4), np.float32), None).looks(np.zeros((1, 4), np.float32))
    assert look.steps.tolist() == [0, 0, 0]
    assert look.candidates(0).tolist() == [0, 1, 2]
    look.leave_out(np.array([1]))
    assert look.candidates(-np.inf).tolist() == [0, 2]


def bundle_of(folder, chance: np.random.Generator, items: int, biased: bool, ties: bool) -> Retriever:
    vectors = chance.normal(size=(items, 8)).astype(np.float32)
    if ties:  # few different rows: the order of ids decides
        vectors = vectors[chance.integers(5, size=items)]
    manifest = Manifest(model="m", framework="numpy", kind="mean", cut_id="c", as_of="2020-01-01T00:00:00Z")
    names = [f"i{number:05}" for number in range(items)]
    catalogue = Catalogue(
        item_id=names, domain=["movies"] * items, title=names, categories=[[]] * items, published_year=[None] * items
    )
    arrays = {"popularity": chance.random(items), "item_vectors": vectors}
    arrays |= {"item_bias": chance.normal(size=items)} if biased else {}
    write_bundle(folder, manifest, catalogue, arrays)
    return Retriever(folder)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_the_lists_are_those_of_a_full_sort(tmp_path, monkeypatch, biased, ties):
    monkeypatch.setattr("recsys.retriever.LARGE_CATALOGUE", 100)
    monkeypatch.setattr("recsys.retriever.MANY", 0.5)
    chance = np.random.default_rng(4)
    retriever = bundle_of(tmp_path, chance, 3000, biased, ties)
    assert retriever._eight_bit is not None
    histories = [chance.choice(3000, length, replace=False) for length in (3, 0, 20, 1)]
    barred = chance.choice(3000, 100, replace=False)
    lengths = [10, 10, 3000, 1]
    found = retriever.best(histories, None, lengths, [[barred, history] for history in histories])
    allowed = np.ones(3000, bool)
    allowed[barred] = False
    assert len(found) == 4
    for history, length, (items, scores) in zip(histories, lengths, found, strict=True):
        expected, expected_scores = retriever.recommend([history], length, allowed=allowed)
        shown = expected[0] >= 0
        assert items.tolist() == expected[0][shown].tolist()
        assert scores == pytest.approx(expected_scores[0][shown], abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 12), levels=st.sampled_from([2, 50, 10_000]))
def test_the_best_by_group_maxima_are_those_of_a_full_sort(seed, k, levels):
    chance = np.random.default_rng(seed)
    items = 2 * k * GROUP_SIZE + int(chance.integers(100))  # as many as it takes to go by groups, and a broken one
    row = chance.integers(levels, size=items).astype(np.float32)
    row[chance.random(items) < chance.random()] = -np.inf
    ((best, values),) = zip(*top_k(row[None], k), strict=True)
    order = np.lexsort((np.arange(items), -row))[:k]
    order = order[row[order] > -np.inf]
    assert best[: len(order)].tolist() == order.tolist()
    assert values[: len(order)].tolist() == row[order].tolist()
    assert (best[len(order) :] == -1).all()
