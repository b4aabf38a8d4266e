"""The one shape of all rankers: a module in `training/rankers/` with `FRAMEWORK`, `Config` and `fit`.

    fit(train: Examples, validation: Examples, config: Config, seed: int, threads: int) -> Ranker

A ranker says how likely it is that a user likes an item that was already chosen for this user. What it reads are
categories (codes with vectors of their own, for the published task) and numbers (features from the feature store, for
the product). A ranker of numbers alone can be exported to serving: `write_ranker`. Shapes: n examples, F numbers, U of
them the user's and I the item's, M values of a category that has several, T tasks.
"""

import importlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from scipy.stats import rankdata

from recsys.artifacts import RANKER_FILES, RANKER_MODELS
from recsys.errors import CheckFailed, RecsysError

MODEL_FILE, SIGNATURE_FILE = RANKER_FILES
LIMIT = 5.0
"""Standardised numbers are clipped here."""


@dataclass(frozen=True)
class Examples:
    """Pairs of a user and an item with what came of them."""

    numbers: np.ndarray
    """Raw, NaN where unknown; the user's first, then the item's. float32 (n, F)"""
    labels: np.ndarray
    """0 or 1; NaN where a task does not say. float32 (n,) or (n, T)"""
    categories: dict[str, np.ndarray] = field(default_factory=dict)
    """Name → codes from 1, 0 is unknown or none. int32 (n,) or (n, M)"""

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, chosen: np.ndarray) -> "Examples":
        """Return some of the examples."""
        categories = {name: codes[chosen] for name, codes in self.categories.items()}
        return Examples(self.numbers[chosen], self.labels[chosen], categories)


def known(codes: np.ndarray, size: int) -> np.ndarray:
    """Return codes of a category with those that training has not seen, `size` and above, as unknown. int32, alike"""
    return np.where(codes < size, codes, 0)


class Ranker(Protocol):
    """A fitted ranker."""

    def predict(self, examples: Examples) -> np.ndarray:
        """Return the probability of each task, float32 (n,) or (n, T)."""
        ...

    def to_onnx(self, n_user: int) -> bytes:
        """Return user_features (1, U) and item_features (n, I), raw → scores (n,) and, as a rule, logits (n,), as ONNX.

        Raises:
            RecsysError: it reads categories, which serving has not.
        """
        ...


def module_of(name: str) -> ModuleType:
    """Import a ranker's module, and with it its framework.

    Raises:
        RecsysError: there is no such ranker.
    """
    if name not in RANKER_MODELS:
        raise RecsysError("ranker", name, f"Choose among {', '.join(RANKER_MODELS)}")
    return importlib.import_module(f"training.rankers.{name}")


class Scaling:
    """Puts numbers on one scale: logarithm where they are counts, mean 0, deviation 1; an unknown one is the mean."""

    def __init__(self, numbers: np.ndarray):
        with np.errstate(invalid="ignore"):
            self.is_count = np.nanmax(np.where(np.isfinite(numbers), numbers, 0), axis=0, initial=0) > 20  # (F,)
        read = self._read(numbers)
        known = np.isfinite(read)
        counts = np.maximum(known.sum(0), 1)
        self.mean = np.where(known, read, 0).sum(0, dtype=np.float64) / counts  # (F,)
        deviation = np.sqrt((np.where(known, read - self.mean, 0.0) ** 2).sum(0) / counts)
        self.scale = np.where(deviation > 1e-6, deviation, 1.0)  # (F,)

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.where(self.is_count, np.log1p(np.maximum(numbers, 0)), numbers)

    def apply(self, numbers: np.ndarray) -> np.ndarray:
        scaled = np.nan_to_num((self._read(numbers) - self.mean) / self.scale, nan=0.0)
        return np.clip(scaled, -LIMIT, LIMIT).astype(np.float32)


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of pairs of a positive and a negative that the scores put in order; ties count half.

    NaN where one kind is missing.
    """
    positive = labels > 0.5
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def log_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of -log p of what happened."""
    p = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.where(labels > 0.5, np.log(p), np.log1p(-p)).mean())


def calibration_error(scores: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Return by how much the stated probability is off the share that happened, on average over equally large bins of
    the examples by probability (expected calibration error: Naeini, Cooper, Hauskrecht 2015)."""
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [abs(scores[part].mean() - labels[part].mean()) * len(part) for part in parts]
    return float(sum(gaps) / len(scores))


def platt(logits: np.ndarray, labels: np.ndarray, steps: int = 20) -> tuple[float, float]:
    """Return slope and offset of the logistic regression of labels on logits, by Newton's steps from (1, 0).

    Where the labels are all alike or the logits are, it stays at (1, 0): nothing can be learned.
    """
    if labels.min() == labels.max() or np.ptp(logits) < 1e-6:
        return 1.0, 0.0
    inputs = np.column_stack([logits, np.ones(len(logits))]).astype(np.float64)  # (n, 2)
    found = np.array([1.0, 0.0])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(inputs @ found, -30, 30)))
        slope = inputs.T @ (p - labels) + 1e-3 * (found - [1.0, 0.0])
        curve = (inputs * (p * (1 - p))[:, None]).T @ inputs + 1e-3 * np.eye(2)
        move = np.linalg.solve(curve, slope)
        found -= move * min(1.0, 1.0 / np.abs(move).max())
    return float(found[0]), float(found[1])


def write_ranker(folder: Path, model: Ranker, features: dict[str, tuple[str, ...]], said: dict[str, Any]) -> None:
    """Write what serving reads into an existing folder: `ranker.onnx` and `ranker.json`.

    Args:
        features: `user_features` and `item_features`, the names of the inputs' columns in their order.
        said: further facts: model, framework, cut, metrics.

    Raises:
        CheckFailed: the graph gives something that is no number.
    """
    import onnxruntime

    n_user, n_item = (len(features[side]) for side in ("user_features", "item_features"))
    graph = model.to_onnx(n_user)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    unknown = np.full((1, n_user), np.nan, np.float32), np.full((3, n_item), np.nan, np.float32)
    (scores,) = session.run(["scores"], {"user_features": unknown[0], "item_features": unknown[1]})
    if scores.shape != (3,) or not np.isfinite(scores).all():
        raise CheckFailed("scores of the ranker for unknown features", scores, "The training diverged; not registered")
    (folder / MODEL_FILE).write_bytes(graph)
    signature = {**{side: list(names) for side, names in features.items()}, **said}
    (folder / SIGNATURE_FILE).write_text(json.dumps(signature, indent=2, default=str))
