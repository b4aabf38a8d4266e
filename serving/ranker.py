"""The ranking stage's model, `ranker.onnx` beside the served bundle, and what is known of the items.

The items' features lie in the process (`item_facts.npz`, which the deployment writes from the marts that Feast offers);
the user's come with the user's state. Shapes: I items, n candidates, U and F names of features.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recsys.artifacts import ITEM_FACTS_FILE, RANKER_FILES

SCORES, LOGITS = "scores", "logits"
"""What a graph says of each candidate: a probability, and as a rule the logit of it as well, which is what is used."""

LEAST_LIKELY = float(1 / (1 + np.exp(15.0)))
"""Probabilities nearer to none or one are taken as this near: no logit is beyond 15."""


LENGTHS = 16
"""Lengths of lists that a thread keeps room for."""


class ItemFacts:
    """Columns of numbers, one an item of the catalogue; NaN is unknown."""

    def __init__(self, columns: Mapping[str, np.ndarray], digest: str = ""):
        self.columns, self.digest = columns, digest

    @classmethod
    def read(cls, folder: Path, n_items: int) -> "ItemFacts":
        """Read the file beside a bundle; none at all where there is no file.

        Raises:
            ValueError: it is of another catalogue.
        """
        path = folder / ITEM_FACTS_FILE
        if not path.exists():
            return cls({})
        with np.load(path, allow_pickle=False) as stored:
            columns = {name: stored[name].astype(np.float32) for name in stored.files}
        wrong = {name: values.shape for name, values in columns.items() if values.shape != (n_items,)}
        if wrong:
            raise ValueError(f"{ITEM_FACTS_FILE} holds {wrong} for {n_items} items")
        return cls(columns, blake2b(path.read_bytes(), digest_size=8).hexdigest())

    def column(self, name: str, n_items: int) -> np.ndarray:
        """Return a column, unknown throughout where there is none. float32 (I,)"""
        found = self.columns.get(name)
        return np.full(n_items, np.nan, np.float32) if found is None else found


class Signature(BaseModel):
    """What `ranker.json` says that serving needs."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    user_features: tuple[str, ...]
    item_features: tuple[str, ...]
    model: str = ""
    version: str = Field("", coerce_numbers_to_str=True)


class ServedRanker:
    """How likely this user likes each candidate. One thread."""

    def __init__(self, graph: bytes, signature: Signature, facts: ItemFacts, n_items: int):
        """Load the graph.

        Raises:
            ValueError: an item feature is not among the items' facts.
        """
        import onnxruntime  # a bundle without a ranker goes without

        missing = [name for name in signature.item_features if name not in facts.columns]
        if missing:
            raise ValueError(f"{ITEM_FACTS_FILE} lacks {', '.join(missing)}, which the ranker reads")
        self.signature = signature
        columns = [facts.column(name, n_items) for name in signature.item_features]
        self.item_features = np.stack(columns, axis=1) if columns else np.empty((n_items, 0), np.float32)  # (I, F)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._output = next((one.name for one in self._session.get_outputs() if one.name == LOGITS), SCORES)
        self._rooms = threading.local()

    @property
    def version(self) -> str:
        return self.signature.version

    def scores(self, user: Mapping[str, float], items: np.ndarray) -> np.ndarray:
        """Return the logit of each candidate (n,). float64 (n,)"""
        room = self._room(len(items))
        room.user[0] = [user.get(name, np.nan) for name in self.signature.user_features]
        self.item_features.take(items, axis=0, out=room.items, mode="clip")  # they are places of the catalogue
        self._session.run_with_iobinding(room.binding)
        return self._as_logits(room.said)

    def _room(self, n: int) -> "_Room":
        """Return where this thread writes the features of n candidates and reads what is said of them: lists have few
        lengths, and memory that is taken once stays near the processor."""
        rooms = self._rooms.__dict__
        if n not in rooms:
            if len(rooms) >= LENGTHS:
                rooms.clear()
            n_user, n_item = len(self.signature.user_features), self.item_features.shape[1]
            user, items = np.empty((1, n_user), np.float32), np.empty((n, n_item), np.float32)
            room = _Room(user, items, np.empty(n, np.float32), self._session.io_binding())
            room.binding.bind_cpu_input("user_features", user)
            room.binding.bind_cpu_input("item_features", items)
            room.binding.bind_output(self._output, "cpu", 0, np.float32, room.said.shape, room.said.ctypes.data)
            rooms[n] = room
        return rooms[n]

    def _logits(self, user: np.ndarray, items: np.ndarray) -> np.ndarray:
        (said,) = self._session.run([self._output], {"user_features": user, "item_features": items})
        return self._as_logits(said)

    def _as_logits(self, said: np.ndarray) -> np.ndarray:
        """Return what the graph says as logits, in memory of their own. float64 (n,)"""
        return said.astype(np.float64) if self._output == LOGITS else _logits(said)

    def contributions(self, user: Mapping[str, float | None], items: Sequence[Mapping[str, float | None]]) -> Any:
        """Return for each item by how much the logit falls when one feature is unknown: name → difference.

        What is asked is what was read when the list was made, as the record keeps it.
        """
        names = (*self.signature.user_features, *self.signature.item_features)
        numbers = np.array(
            [[_number({**user, **item}.get(name)) for name in names] for item in items], np.float32
        ).reshape(len(items), len(names))
        n_user = len(self.signature.user_features)
        whole = self._logits(numbers[:1, :n_user], numbers[:, n_user:])
        fallen = {}
        for place, name in enumerate(names):
            without = numbers.copy()
            without[:, place] = np.nan
            fallen[name] = whole - self._logits(without[:1, :n_user], without[:, n_user:])
        return [{name: float(values[row]) for name, values in fallen.items()} for row in range(len(items))]


class _Room(NamedTuple):
    """Inputs (1, U) and (n, F) and output (n,) of one run, float32, and what binds them."""

    user: np.ndarray
    items: np.ndarray
    said: np.ndarray
    binding: Any


def _logits(likely: np.ndarray) -> np.ndarray:
    """Return the logits of probabilities. float64, alike"""
    bounded = likely.astype(np.float64)
    np.minimum(np.maximum(bounded, LEAST_LIKELY, out=bounded), 1 - LEAST_LIKELY, out=bounded)
    return np.log(bounded / (1 - bounded))


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def read_ranker(folder: Path, facts: ItemFacts, n_items: int) -> ServedRanker | None:
    """Return the ranker beside a bundle, or None where there is none.

    Raises:
        ValueError: its files are none, or the items' facts lack what it reads. ONNX Runtime's own errors as they are.
        OSError: the graph is missing although `ranker.json` is there.
    """
    graph, signature = (folder / name for name in RANKER_FILES)
    if not signature.exists():
        return None
    return ServedRanker(graph.read_bytes(), Signature.model_validate(json.loads(signature.read_text())), facts, n_items)
