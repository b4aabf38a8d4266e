"""One model of another library, fitted and asked in that library's own environment; bench/peers.py calls it.

    .venv/peers/bin/python bench/peer_lists.py FOLDER

FOLDER holds task.json (`library`, `model`, `settings`, `ranks`, `seed`) and data.npz: `users` and `items` of the
training events by user, then by time, both (n,), and who is asked, `asked` (B,). Written beside them: lists.npy, the
first items of each of them, best first and without those used, int64 (B, K), -1 pads; cost.json, processor seconds,
peak memory and the libraries' versions. One thread. Nothing of ours is imported: this environment holds none of it.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits


def rectools_lists(task: dict, users: np.ndarray, items: np.ndarray, asked: np.ndarray, fitted: Callable) -> np.ndarray:
    """EASE, iALS (its wrapper of `implicit`) and SASRec of RecTools."""
    from implicit.als import AlternatingLeastSquares
    from rectools.dataset import Dataset
    from rectools.models import EASEModel, ImplicitALSWrapperModel, SASRecModel

    place = np.arange(len(users)) - np.searchsorted(users, users)  # of an event among its user's own
    table = {"user_id": users, "item_id": items, "weight": 1.0, "datetime": pd.to_datetime(place, unit="s")}
    data = Dataset.construct(pd.DataFrame(table))
    settings = task["settings"]
    if task["model"] == "ease":
        model = EASEModel(**settings, recommend_n_threads=1, recommend_use_gpu_ranking=False)
    elif task["model"] == "ials":
        factors = AlternatingLeastSquares(**settings, num_threads=1, random_state=task["seed"])
        model = ImplicitALSWrapperModel(factors, recommend_n_threads=1, recommend_use_gpu_ranking=False)
    else:
        model = SASRecModel(**settings, recommend_torch_device="cpu")
    model.fit(data)
    fitted()
    told = model.recommend(users=asked, dataset=data, k=task["ranks"], filter_viewed=True)
    lists = np.full((len(asked), task["ranks"]), -1, np.int64)
    lists[np.searchsorted(asked, told["user_id"]), told["rank"] - 1] = told["item_id"]
    return lists


def recbole_lists(task: dict, users: np.ndarray, items: np.ndarray, asked: np.ndarray, fitted: Callable) -> np.ndarray:
    """LightGCN of RecBole.

    It fills its graph by a method of SciPy's that went with release 1.13; here the method is given back.
    """
    import scipy.sparse

    scipy.sparse.dok_matrix._update = lambda matrix, values: matrix._dict.update(values)
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    folder = Path("split")
    folder.mkdir()
    table = pd.DataFrame({"user_id:token": users, "item_id:token": items})
    table.to_csv(folder / "split.inter", sep="\t", index=False)
    own = {
        "data_path": str(Path.cwd()), "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id",
        "load_col": {"inter": ["user_id", "item_id"]}, "use_gpu": False, "worker": 0, "seed": task["seed"],
        "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "RO", "group_by": "user", "mode": "full"},
    }  # fmt: skip
    config = Config(model="LightGCN", dataset="split", config_dict=own | task["settings"])
    init_seed(task["seed"], True)
    train, _, _ = data_preparation(config, create_dataset(config))
    model = get_model("LightGCN")(config, train.dataset)
    get_trainer(config["MODEL_TYPE"], config["model"])(config, model).fit(train, saved=False, show_progress=False)
    fitted()
    with torch.no_grad():
        by_user, by_item = (vectors.numpy() for vectors in model.forward())
    known = train.dataset.field2id_token["item_id"][1:].astype(np.int64)  # place 0 pads
    rows = train.dataset.token2id("user_id", asked.astype(str))
    scores = np.full((len(asked), items.max() + 1), -np.inf, np.float32)
    scores[:, known] = by_user[rows] @ by_item[1:].T
    return best(scores, users, items, asked, task["ranks"])


def best(scores: np.ndarray, users: np.ndarray, items: np.ndarray, asked: np.ndarray, ranks: int) -> np.ndarray:
    """Return the first items of each row of scores (B, I) without what its user has used. int64 (B, K)"""
    is_asked = np.isin(users, asked)
    scores[np.searchsorted(asked, users[is_asked]), items[is_asked]] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :ranks]
    return np.where(np.isfinite(np.take_along_axis(scores, order, 1)), order, -1)


LIBRARIES = {"rectools": rectools_lists, "recbole": recbole_lists}


def main() -> None:
    os.chdir(sys.argv[1])
    task, data = json.loads(Path("task.json").read_text()), np.load("data.npz")
    torch.set_num_threads(1)
    torch.manual_seed(task["seed"])
    began, ends = process_time(), []
    with threadpool_limits(1):
        lists = LIBRARIES[task["library"]](
            task, data["users"], data["items"], data["asked"], lambda: ends.append(process_time())
        )
    np.save("lists.npy", lists)
    cost = {
        "cpu_seconds": process_time(),
        "fit_cpu_seconds": ends[0] - began,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "version": version(task["library"]),
    }
    Path("cost.json").write_text(json.dumps(cost))


if __name__ == "__main__":
    main()
