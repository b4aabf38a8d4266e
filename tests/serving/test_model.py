"""Loading a model, refusing a broken one, and changing it while it answers."""

import json
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import UnusableInput
from serving.adapters import FolderModels
from serving.metrics import Metrics
from serving.model import load
from serving.recommend import Query, recommend
from tests.worlds.served import EVEN, ITEMS, KINDS, write_world


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_loads_under_its_version(tmp_path, kind):
    model = load(write_world(tmp_path, kind, version="7"))
    assert (model.version, model.manifest.kind, model.retriever.n_items) == ("7", kind, len(ITEMS))
    assert model.domains == ("books", "movies")


def test_a_bare_bundle_is_served_under_its_cut(tmp_path):
    assert load(write_world(tmp_path, version=None)).version == "cut-even"


def test_unavailable_items_are_never_shown(tmp_path):
    write_world(tmp_path)
    deployment = {"model_version": "1", "unavailable_items": [EVEN[1], "gone:1"], "from_a_newer_deploy": True}
    (tmp_path / "deployment.json").write_text(json.dumps(deployment))
    (ranking,) = recommend(load(tmp_path), [Query(k=100, history=[EVEN[0]])])
    assert {ITEMS[item] for item in ranking.items} == set(ITEMS) - {EVEN[0], EVEN[1]}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def saves(name: str, array: np.ndarray):
    return lambda folder: np.save(folder / f"{name}.npy", array)


BROKEN = {
    "no manifest": ("mean", lambda folder: (folder / "manifest.json").unlink()),
    "manifest cut short": ("mean", lambda folder: truncate(folder / "manifest.json")),
    "no items": ("mean", lambda folder: (folder / "items.json").unlink()),
    "items cut short": ("mean", lambda folder: truncate(folder / "items.json")),
    "no popularity": ("mean", lambda folder: (folder / "popularity.npy").unlink()),
    "array cut short": ("mean", lambda folder: truncate(folder / "popularity.npy")),
    "array empty": ("mean", lambda folder: (folder / "popularity.npy").write_bytes(b"")),
    "array of objects": ("mean", lambda folder: np.save(folder / "popularity.npy", np.array([{}]), allow_pickle=True)),
    "popularity too short": ("popularity", lambda folder: np.save(folder / "popularity.npy", np.ones(3, np.float32))),
    "no vectors": ("mean", lambda folder: (folder / "item_vectors.npy").unlink()),
    "vectors too few": ("mean", lambda folder: np.save(folder / "item_vectors.npy", np.ones((3, 2), np.float32))),
    "bias too short": ("mean", lambda folder: np.save(folder / "item_bias.npy", np.ones(3, np.float32))),
    "no gram": ("ials", lambda folder: (folder / "gram.npy").unlink()),
    "gram of another width": ("ials", lambda folder: np.save(folder / "gram.npy", np.ones((3, 3), np.float32))),
    "no weights": ("linear", lambda folder: (folder / "weight_value.npy").unlink()),
    "weights cut short": ("linear", lambda folder: truncate(folder / "weight_value.npy")),
    "weights are noise": ("linear", lambda folder: (folder / "weight_item.npy").write_bytes(b"noise" * 9)),
    "weights too few": ("linear", saves("weight_value", np.ones(3, np.float32))),
    "weights of another type": ("linear", saves("weight_item", np.zeros(128, np.float32))),
    "weights of another shape": ("linear", saves("weight_value", np.ones((64, 2), np.float32))),
    "weights that are no numbers": ("linear", saves("weight_value", np.full(128, np.nan, np.float32))),
    "weights of unknown items": ("linear", saves("weight_item", np.tile(np.arange(9, 17, dtype=np.int32), 16))),
    "weights of items below zero": ("linear", saves("weight_item", np.tile(np.arange(-1, 7, dtype=np.int32), 16))),
    "weights of an item twice": ("linear", saves("weight_item", np.zeros(128, np.int32))),
    "no starts": ("linear", lambda folder: (folder / "weight_start.npy").unlink()),
    "starts too few": ("linear", saves("weight_start", np.array([0, 128]))),
    "starts empty": ("linear", saves("weight_start", np.array([], np.int64))),
    "starts that fall": ("linear", saves("weight_start", np.array([0, 128, *[0] * 14, 128]))),
    "starts beyond the weights": ("linear", saves("weight_start", np.arange(17) * 9)),
    "bias of linear too short": ("linear", saves("item_bias", np.ones(3, np.float32))),
    "no encoder": ("onnx", lambda folder: (folder / "encoder.onnx").unlink()),
    "encoder is noise": ("onnx", lambda folder: (folder / "encoder.onnx").write_bytes(b"noise" * 9)),
    "encoder empty": ("onnx", lambda folder: (folder / "encoder.onnx").write_bytes(b"")),
    "deployment is no JSON": ("mean", lambda folder: (folder / "deployment.json").write_text("{")),
    "deployment without version": ("mean", lambda folder: (folder / "deployment.json").write_text("{}")),
}


@pytest.mark.parametrize(("kind", "breaks"), BROKEN.values(), ids=BROKEN)
def test_a_broken_model_is_refused_and_the_earlier_one_goes_on(tmp_path, kind, breaks):
    metrics, current = Metrics(), tmp_path / "current"
    current.symlink_to(write_world(tmp_path / "good", version="1"))
    models = FolderModels(current, metrics)
    models.refresh()
    broken = write_world(tmp_path / "broken", kind, version="2")
    breaks(broken)
    with pytest.raises(UnusableInput, match="model bundle"):
        load(broken)
    current.unlink()
    current.symlink_to(broken)
    models.refresh()
    models.refresh()
    assert models.current is not None
    assert models.current.version == "1"
    assert metrics.registry.get_sample_value("recsys_model_reloads_total", {"outcome": "broken"}) == 1


def test_a_moved_link_is_another_model_and_the_same_one_is_not_loaded_again(tmp_path):
    metrics, current = Metrics(), tmp_path / "current"
    models = FolderModels(current, metrics)
    models.refresh()
    assert models.current is None
    for version in ("1", "2"):
        next_link = tmp_path / "next"
        next_link.symlink_to(write_world(tmp_path / version, version=version))
        next_link.replace(current)
        models.refresh()
        models.refresh()
        assert models.current is not None
        assert models.current.version == version
    assert metrics.registry.get_sample_value("recsys_model_reloads_total", {"outcome": "loaded"}) == 2
    names = [sample.labels["model_version"] for family in metrics.registry.collect()
             if family.name == "recsys_model_info" for sample in family.samples]  # fmt: skip
    assert names == ["2"]


def test_a_folder_that_vanishes_costs_nothing(tmp_path):
    current = tmp_path / "current"
    current.symlink_to(write_world(tmp_path / "one"))
    models = FolderModels(current, Metrics())
    models.refresh()
    current.unlink()
    models.refresh()
    assert models.current is not None
