"""Bundles: what is written is what is read, and what is no bundle is refused."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from recsys import bundle
from recsys.errors import UnusableInput
from recsys.retriever import Retriever
from tests.kernel_models.test_retriever import ITEMS, catalogue, manifest

POPULARITY = {"popularity": np.arange(ITEMS, dtype=np.float32)}


def test_what_is_written_is_what_is_read(tmp_path):
    arrays = {**POPULARITY, "item_vectors": np.random.default_rng(0).random((ITEMS, 3))}
    written = manifest("mean", hyper_parameters={"epochs": 3, "half_life": 1.5, "flag": True}, seed=7)
    bundle.write_bundle(tmp_path / "new" / "bundle", written, catalogue(), arrays)
    folder = tmp_path / "new" / "bundle"
    assert bundle.read_manifest(folder) == written
    assert bundle.read_catalogue(folder) == catalogue()
    read = bundle.read_arrays(folder)
    assert sorted(read) == ["item_vectors", "popularity"]
    assert all(array.dtype == np.float32 for array in read.values())
    np.testing.assert_array_equal(read["item_vectors"], arrays["item_vectors"].astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "arrays"),
        ({"popularity": np.array([np.nan] * ITEMS)}, "NaN"),
        ({"popularity": np.array([np.inf] * ITEMS)}, "NaN"),
        ({"popularity": np.ones(ITEMS + 1)}, "rows"),
        ({**POPULARITY, "item_vectors": np.ones((ITEMS - 1, 2))}, "rows"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        bundle.write_bundle(tmp_path / "b", manifest("popularity"), catalogue(), arrays)
    assert not (tmp_path / "b" / bundle.MANIFEST).exists()


@pytest.mark.parametrize("ids", [[], ["b", "a"], ["a", "a"]])
def test_ids_must_ascend(tmp_path, ids):
    items = bundle.Catalogue(
        item_id=ids,
        domain=["movies"] * len(ids),
        title=ids,
        categories=[[]] * len(ids),
        published_year=[None] * len(ids),
    )
    with pytest.raises(ValueError, match="ascending"):
        bundle.write_bundle(tmp_path, manifest("popularity"), items, {"popularity": np.ones(len(ids))})


def test_an_encoder_comes_with_kind_onnx_and_no_other(tmp_path):
    with pytest.raises(ValueError, match="encoder"):
        bundle.write_bundle(tmp_path, manifest("onnx"), catalogue(), POPULARITY)
    with pytest.raises(ValueError, match="encoder"):
        bundle.write_bundle(tmp_path, manifest("popularity"), catalogue(), POPULARITY, encoder=b"x")


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    bundle.write_bundle(tmp_path, manifest("popularity"), catalogue(), POPULARITY)
    (tmp_path / bundle.MANIFEST).unlink()
    with pytest.raises(UnusableInput, match="train and deploy again"):
        Retriever(tmp_path)


def test_a_bundle_of_another_format_is_refused(tmp_path):
    bundle.write_bundle(tmp_path, manifest("popularity"), catalogue(), POPULARITY)
    path = tmp_path / bundle.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(UnusableInput):
        bundle.read_manifest(tmp_path)


def test_pickled_arrays_are_refused(tmp_path):
    bundle.write_bundle(tmp_path, manifest("popularity"), catalogue(), POPULARITY)
    np.save(tmp_path / "item_vectors.npy", np.array([{"runs": "anything"}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        Retriever(tmp_path)


def test_a_manifest_takes_no_unknown_field_and_no_negative_weight():
    with pytest.raises(ValidationError):
        manifest("ials", surprise=1)
    with pytest.raises(ValidationError):
        manifest("ials", recency_exponent=-1)
