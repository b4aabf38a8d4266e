"""The best items of a very large catalogue, nearly always: an inverted file of eight-bit vectors, by FAISS.

The catalogue is divided into cells; a user is compared with the items of the nearest cells only, first in eight bits,
and the best of those are scored in full, so that what is found has the scores that a full search gives it. How many
cells are looked at is tuned when the index is built, against a full search for real users.

    index.faiss   the inverted file          index.json   `Tuned`

Shapes: I items, D embedding size, B users, k places.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recsys.errors import CheckFailed

INDEX, TUNED = "index.faiss", "index.json"
DEPTH = 100
"""Recall is measured at so many places."""
OVERSAMPLED = 1.25
"""Items found in eight bits for one that is wanted: eight bits seldom put an item a quarter of the list too low."""
ITEMS_A_CENTRE, ROUNDS = 40, 10
"""Items that the division of the catalogue is learned from, for each cell, and rounds of that."""
CELLS_A_ROOT = 4
"""Cells for the square root of the catalogue; more of them are passed over sooner, and take longer to learn."""
FEW = 1024
"""Items left out that are dropped from what was found; more of them are kept from being found."""


class Tuned(BaseModel):
    """What the build found out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cells: int = Field(ge=1)
    probes: int = Field(ge=1, description="cells that are looked at")
    recall: float = Field(ge=0, le=1, description="share of the true best 100 that are found, for users not tuned on")
    users: int = Field(ge=1, description="users of both halves")
    items: int = Field(ge=1)


def with_bias(vectors: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Return vectors whose product with (user, 1) is the score. float32 (I, D) or (I, D + 1)"""
    whole = vectors if bias is None else np.column_stack([vectors, bias])
    return np.ascontiguousarray(whole, np.float32)


def build(
    folder: Path, vectors: np.ndarray, bias: np.ndarray | None, users: np.ndarray, wanted: float, seed: int = 1
) -> Tuned:
    """Build and tune the index and write it into a bundle's folder; `index.json` last.

    Args:
        users: vectors of real users (B, D), at least two; half of them tune, the other half is told.
        wanted: recall at 100 to be reached on the half that tunes.

    Raises:
        CheckFailed: not even looking at every cell reaches it.
    """
    import faiss  # 1 s and 60 MB: only where a catalogue is that large

    whole = with_bias(vectors, bias)
    asked = whole_users(users, bias)
    depth = min(DEPTH, len(whole))
    cells = min(1 << max(0, round(np.log2(CELLS_A_ROOT * np.sqrt(len(whole))))), max(1, len(whole) // 8))
    quantizer = faiss.IndexFlatIP(whole.shape[1])
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, whole.shape[1], cells, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.seed, index.cp.max_points_per_centroid, index.cp.niter = seed, ITEMS_A_CENTRE, ROUNDS
    sample = np.random.default_rng(seed).permutation(len(whole))[: max(cells * ITEMS_A_CENTRE, 1000)]
    index.train(whole[sample])
    index.add(whole)
    truth = [_exact(whole, user, depth) for user in asked]
    half = max(1, len(asked) // 2)

    def reached(probes: int) -> float:
        index.nprobe = probes
        return _recall(index, whole, asked[:half], truth[:half], depth)

    probes = _fewest(cells, lambda probes: reached(probes) >= wanted)
    if probes is None:
        found = round(reached(cells), 4)
        raise CheckFailed("recall of the index, looking everywhere", found, f"At least {wanted} is wanted")
    index.nprobe = probes
    told = _recall(index, whole, asked[half:] if len(asked) > half else asked, truth[half:] or truth, depth)
    tuned = Tuned(cells=cells, probes=probes, recall=told, users=len(asked), items=len(whole))
    faiss.write_index(index, str(folder / INDEX))
    (folder / TUNED).write_text(tuned.model_dump_json(indent=2))
    return tuned


def _fewest(most: int, enough: Callable[[int], bool]) -> int | None:
    """Return the smallest number that is enough, of 1 to `most`, where more is never worse; None: not even `most`."""
    above, below = 1, 0
    while not enough(above):
        if above == most:
            return None
        above, below = min(most, 2 * above), above
    while above - below > 1:
        middle = (above + below) // 2
        above, below = (middle, below) if enough(middle) else (above, middle)
    return above


def whole_users(users: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Return users that meet `with_bias`. float32 (B, D) or (B, D + 1)"""
    whole = users if bias is None else np.column_stack([users, np.ones(len(users))])
    return np.ascontiguousarray(whole, np.float32)


def _exact(whole: np.ndarray, user: np.ndarray, k: int) -> set[int]:
    scores = whole @ user
    return set(np.argpartition(-scores, k - 1)[:k].tolist())


def _recall(index: Any, whole: np.ndarray, users: np.ndarray, truth: Sequence[set[int]], k: int) -> float:
    _, listed = index.search(users, min(int(OVERSAMPLED * k), len(whole)))
    found = 0
    for user, candidates, best in zip(users, listed, truth, strict=True):
        known = candidates[candidates >= 0]
        ranked = known[np.argsort(-(whole[known] @ user), kind="stable")][:k]
        found += len(best.intersection(ranked.tolist()))
    return found / (k * len(truth))


def _without(items: np.ndarray, dropped: np.ndarray) -> np.ndarray:
    """Return the items that are not among some sorted ones: a quarter of the time of `np.isin`, which sorts both."""
    if not len(dropped):
        return items
    place = np.minimum(np.searchsorted(dropped, items), len(dropped) - 1)
    return items[dropped[place] != items]


class Approximate:
    """A tuned index over a bundle's vectors. One thread a call."""

    def __init__(self, folder: Path, vectors: np.ndarray, bias: np.ndarray | None):
        """Load it.

        Raises:
            ValueError: it is of another catalogue, or no index.
        """
        import faiss

        faiss.omp_set_num_threads(1)
        self.tuned = Tuned.model_validate(json.loads((folder / TUNED).read_text()))
        self._vectors, self._bias = vectors, bias
        try:
            self._index = faiss.read_index(str(folder / INDEX))
        except RuntimeError as error:  # FAISS's own word for an unreadable file
            raise ValueError(f"{INDEX} cannot be read: {error}") from error
        width = vectors.shape[1] + (bias is not None)
        if (self._index.ntotal, self._index.d) != (len(vectors), width):
            raise ValueError(f"{INDEX} is of {self._index.ntotal} × {self._index.d} for {len(vectors)} × {width}")
        self._faiss = faiss
        self._selectors: dict[int, tuple[np.ndarray, np.ndarray, object]] = {}

    def best(
        self, user: np.ndarray, k: int, left_out: Sequence[np.ndarray | slice]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the best k items of a user (D,) that are not left out, with their scores, best first, ties by item.

        None where fewer were found than are wanted: a full search must say whether there are more.
        """
        if any(isinstance(items, slice) for items in left_out):  # all of them
            return np.empty(0, np.int64), np.empty(0, np.float32)
        few = [items for items in left_out if len(items) <= FEW]
        many = [items for items in left_out if len(items) > FEW]
        dropped = np.sort(np.concatenate([np.empty(0, np.int64), *few]))
        parameters = self._faiss.SearchParametersIVF(nprobe=self.tuned.probes, sel=self._selector(many))
        asked = whole_users(user[None], self._bias)
        enough = min(int(OVERSAMPLED * k) + len(dropped), len(self._vectors))
        _, (found,) = self._index.search(asked, enough, params=parameters)
        found = found[found >= 0]
        found = _without(found, dropped)
        if len(found) < k:
            return None
        scores = self._vectors[found] @ user
        scores = scores if self._bias is None else scores + self._bias[found]
        order = np.lexsort((found, -scores))[:k]
        return found[order], scores[order].astype(np.float32)

    def _selector(self, many: Sequence[np.ndarray]) -> object | None:
        """Return what keeps these items from being found; made once for arrays that come again, as a domain's do."""
        if not many:
            return None
        if len(many) > 1:
            return self._made(np.concatenate(many))[2]
        key = id(many[0])
        known = self._selectors.get(key)
        if known is None or known[0] is not many[0]:
            known = self._selectors[key] = self._made(many[0])
            while len(self._selectors) > 16:
                self._selectors.pop(next(iter(self._selectors)))
        return known[2]

    def _made(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, object]:
        allowed = np.ones(len(self._vectors), bool)
        allowed[items] = False
        bits = np.packbits(allowed, bitorder="little")
        return items, bits, self._faiss.IDSelectorBitmap(bits)
