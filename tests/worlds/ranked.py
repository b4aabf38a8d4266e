"""A ranker whose order is known by construction, beside the world of `served.py`.

It likes an item by `item_mean_rating`, which here is the place of the item in the catalogue, and the more so the larger
`user_mean_rating`: logit = (user + item) / 8 with unknown numbers as 0. Item 3 has no rating.
"""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper

from recsys.artifacts import ITEM_FACTS_FILE, ITEM_FEATURES, RANKER_FILES
from tests.worlds.served import ITEMS

USER, ITEM = ("user_mean_rating",), ("item_mean_rating",)
UNRATED = 3


def write_ranker(folder: Path, version: str = "5", facts: bool = True, logits: bool = False) -> None:
    """Put ranker and items' facts beside a bundle; with `logits` the graph gives these too."""
    outputs = ("scores", "logits") if logits else ("scores",)
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", ["user_features"], ["no_user"]),
            helper.make_node("IsNaN", ["item_features"], ["no_item"]),
            helper.make_node("Where", ["no_user", "nothing", "user_features"], ["user"]),
            helper.make_node("Where", ["no_item", "nothing", "item_features"], ["item"]),
            helper.make_node("Add", ["user", "item"], ["both"]),  # (n, 1)
            helper.make_node("Div", ["both", "eight"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["likely"]),
            helper.make_node("Squeeze", ["likely", "last"], ["scores"]),
            helper.make_node("Squeeze", ["logit", "last"], ["logits"]),
        ],
        "ranker",
        [
            helper.make_tensor_value_info("user_features", TensorProto.FLOAT, [1, 1]),
            helper.make_tensor_value_info("item_features", TensorProto.FLOAT, ["n", 1]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in outputs],
        [
            helper.make_tensor("nothing", TensorProto.FLOAT, [1], [0.0]),
            helper.make_tensor("eight", TensorProto.FLOAT, [1], [8.0]),
            helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    signature = {"user_features": USER, "item_features": ITEM, "model": "by_place", "version": version, "cut_id": "c"}
    (folder / RANKER_FILES[0]).write_bytes(model.SerializeToString())
    (folder / RANKER_FILES[1]).write_text(json.dumps(signature))
    if facts:
        write_facts(folder)


def write_facts(folder: Path) -> None:
    """Put the items' facts beside a bundle: the rating is the place, the price ten times the place."""
    place = np.arange(len(ITEMS), dtype=np.float32)
    rating = np.where(place == UNRATED, np.nan, place).astype(np.float32)
    columns = {name: rating if name == ITEM[0] else place for name in ITEM_FEATURES}
    np.savez(folder / ITEM_FACTS_FILE, price=np.where(place == UNRATED, np.nan, 10 * place), **columns)
