"""Where a retraining begins: at the vectors of the model that serves, not at random ones.

Only for a model of the same kind. Items that it does not know begin at random as ever. A fit by alternating least
squares then needs half of its epochs: the users are solved from the items first, so the items are all that is carried.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recsys.bundle import read_arrays, read_catalogue, read_manifest

VECTORS = "item_vectors"
EPOCHS_SHARE = 0.5
"""Of the epochs of a cold start."""


@dataclass(frozen=True)
class WarmStart:
    """The served model's vectors of items, (I, D), and the cut that they come from."""

    cut_id: str
    item_id: tuple[str, ...]
    vectors: np.ndarray

    def begin(self, items: list[str] | tuple[str, ...], cold: np.ndarray) -> np.ndarray:
        """Return vectors to begin with: the known ones, the others as in `cold`; all of them where the sizes differ.
        (I, D)"""
        if self.vectors.shape[1] != cold.shape[1]:
            return cold
        place = {item: number for number, item in enumerate(self.item_id)}
        known = np.array([place.get(item, -1) for item in items], int)
        return np.where((known >= 0)[:, None], self.vectors[known], cold).astype(cold.dtype)

    def epochs(self, cold: int) -> int:
        return max(1, round(cold * EPOCHS_SHARE))


def served_cut(folder: Path, model: str) -> str | None:
    """Return the cut of the served bundle if it is of this model and has vectors, else None."""
    if not (folder / "manifest.json").exists() or not (folder / f"{VECTORS}.npy").exists():
        return None
    manifest = read_manifest(folder)
    return manifest.cut_id if manifest.model == model else None


def of_served(folder: Path, model: str) -> WarmStart | None:
    """Return what the served bundle gives a new fit of this model, None where it gives nothing."""
    cut_id = served_cut(folder, model)
    if cut_id is None:
        return None
    return WarmStart(cut_id, tuple(read_catalogue(folder).item_id), np.array(read_arrays(folder)[VECTORS]))
