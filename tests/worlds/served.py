"""A world where even users like even items: bundles of each kind whose best lists are known by construction.

Twelve films `movielens:00` … `movielens:11` and four books `goodbooks:00` … `goodbooks:03`, in ascending order of id:
the books stand first. Items with an even number point one way, the others the other way, so that all even items tie and
the order of ids decides. Popularity grows with the position, so that the popular list is the catalogue backwards.
"""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper

from recsys.bundle import WITH_ENCODER, Catalogue, Kind, Manifest, write_bundle

BOOKS = [f"goodbooks:{n:02}" for n in range(4)]
FILMS = [f"movielens:{n:02}" for n in range(12)]
ITEMS = BOOKS + FILMS
EVEN = [item for item in ITEMS if int(item[-2:]) % 2 == 0]
ODD = [item for item in ITEMS if int(item[-2:]) % 2 == 1]
POPULAR = ITEMS[::-1]
KINDS: tuple[Kind, ...] = ("popularity", "ials", "mean", "onnx", "linear", "scorer")


def write_world(folder: Path, kind: Kind = "mean", version: str | None = "1", backwards: bool = False) -> Path:
    """Write the bundle and its deployment; return the folder.

    Args:
        version: None leaves the deployment out.
        backwards: popularity the other way round, for a second model that visibly answers differently.
    """
    popularity = np.arange(1, len(ITEMS) + 1, dtype=np.float32)
    arrays = {"popularity": popularity[::-1] if backwards else popularity}
    if kind != "popularity":
        vectors = np.array([[1, 0] if item in EVEN else [0, 1] for item in ITEMS], np.float32)  # (16, 2)
        arrays["item_vectors"] = vectors
        arrays["gram"] = vectors.T @ vectors
    if kind == "linear":
        arrays = {"popularity": arrays["popularity"], **_alike_as_rows(vectors)}
    write_bundle(
        folder,
        Manifest(
            model=f"even_{kind}",
            framework="numpy",
            kind=kind,
            cut_id="cut-even",
            as_of="2020-01-01T00:00:00Z",
            recency_exponent=0.0 if kind in {"popularity", *WITH_ENCODER} else 1.0,
            unobserved_weight=0.1 if kind == "ials" else 0.0,
            reg=0.01 if kind == "ials" else 0.0,
        ),
        Catalogue(
            item_id=ITEMS,
            domain=["books"] * len(BOOKS) + ["movies"] * len(FILMS),
            title=[f"Title of {item}" for item in ITEMS],
            categories=[["Even" if item in EVEN else "Odd"] for item in ITEMS],
            published_year=[None] * len(ITEMS),
        ),
        arrays,
        _encoder(vectors, kind) if kind in WITH_ENCODER else None,
    )
    if version is not None:
        deployment = {"model_version": version, "run_id": "run", "registered_model": "recommender"}
        (folder / "deployment.json").write_text(json.dumps(deployment))
    return folder


def _alike_as_rows(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Return item-item weights as sparse rows: 1 for items that point the same way."""
    row, item = np.nonzero(vectors @ vectors.T)
    return {
        "weight_start": np.searchsorted(row, np.arange(len(vectors) + 1)),
        "weight_item": item,
        "weight_value": np.ones(len(item)),
    }


def _encoder(vectors: np.ndarray, kind: Kind) -> bytes:
    """Return an encoder whose user is the sum of the history's vectors, by ONNX's own operators; for kind `scorer` with
    the product with all vectors behind it."""
    output, width = ("user_vector", vectors.shape[1]) if kind == "onnx" else ("scores", len(vectors))
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["vectors", "history"], ["gathered"]),  # (B, L, D)
            helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),  # (B, L, 1)
            helper.make_node("Mul", ["gathered", "weights"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "middle"], ["user_vector"], keepdims=0),  # (B, D)
            *([helper.make_node("MatMul", ["user_vector", "across"], ["scores"])] if kind == "scorer" else []),
        ],
        "encoder",
        [
            helper.make_tensor_value_info("history", TensorProto.INT64, ["B", "L"]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["B", "L"]),
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["B", width])],
        [
            helper.make_tensor("vectors", TensorProto.FLOAT, vectors.shape, vectors.ravel()),
            helper.make_tensor("across", TensorProto.FLOAT, vectors.T.shape, vectors.T.ravel()),
            helper.make_tensor("last", TensorProto.INT64, [1], [2]),
            helper.make_tensor("middle", TensorProto.INT64, [1], [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    return model.SerializeToString()
