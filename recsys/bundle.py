"""The model bundle: a trained recommender as plain arrays and ONNX, free of any training framework.

A bundle is a folder. Training writes it, the registry keeps it, evaluation judges it and serving answers from it: the
model that was measured is, byte for byte, the model that answers.

    manifest.json   what it is: see `Manifest`
    items.json      the catalogue, column-wise: item_id, domain, title, categories (list of lists), published_year
    *.npy           arrays; `popularity` (I,) float32 is always there
    encoder.onnx    kinds `onnx` and `scorer`: history (B, L) int64 and mask (B, L) float32 [and user_features (B, F)
                    float32] → user_vector (B, D) float32 or scores (B, I) float32

Items stand in ascending order of item_id, so the order of indices is the order of ids: ties are broken by index.
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recsys.errors import UnusableInput

FORMAT_VERSION = 1
MANIFEST, ITEMS, ENCODER = "manifest.json", "items.json", "encoder.onnx"
POPULARITY = "popularity"

Kind = Literal["popularity", "ials", "mean", "onnx", "linear", "scorer"]
"""popularity: the same list for all. ials: `item_vectors` (I, D) and `gram` (D, D), user solved in closed form.
mean: user is the recency-weighted mean of `item_vectors`. onnx: user encoded by encoder.onnx. These three score
user · item. linear: the recency-weighted sum of the history's rows of item-item weights, kept as compressed sparse rows
in `weight_start` (I + 1,) int64, `weight_item` (n,) int32 and `weight_value` (n,): see `SparseRows`. scorer: for what
is no dot product; encoder.onnx gives the scores, and `item_vectors` say which items are alike. All but the first add
`item_bias` (I,) where the bundle has one."""
WITH_ENCODER = ("onnx", "scorer")
INDEX_ARRAYS = {"weight_start": np.int64, "weight_item": np.int32}
"""Arrays of whole numbers; all others are float32."""
NOT_BY_ITEM = {"gram", "weight_start", "weight_item", "weight_value"}


class Manifest(BaseModel):
    """What a bundle is and where it came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = FORMAT_VERSION
    model: str = Field(description="name of the model, e.g. `ials`")
    framework: str = Field(description="what trained it: numpy, pytorch, tensorflow, transformers")
    kind: Kind
    cut_id: str = Field(description="the data cut it was trained on")
    as_of: str = Field(description="instant (ISO 8601, UTC) before which every training event happened")
    max_history: int = Field(200, ge=1, description="how many of the user's latest items the encoder reads")
    user_features: tuple[str, ...] = Field((), description="online features that the encoder reads, in order")
    feature_mean: tuple[float, ...] = ()
    feature_scale: tuple[float, ...] = ()
    recency_exponent: float = Field(
        0.0,
        ge=0,
        description="kinds without an encoder: the item `a` places back in history weighs (1 + a)^-exponent",
    )
    unobserved_weight: float = Field(0.0, ge=0, description="kind `ials`: α0 of Rendle et al. 2021")
    reg: float = Field(0.0, ge=0, description="kind `ials`: λ of the user's solve")
    reg_exponent: float = Field(0.0, ge=0, description="kind `ials`: ν of Rendle et al. 2021")
    hyper_parameters: dict[str, float | int | str | bool] = Field(default_factory=dict)
    seed: int = 0


class SparseRows:
    """A matrix of items by items in compressed sparse rows: the arrays of kind `linear`.

    Row r holds `value[start[r] : start[r + 1]]` in the columns `item[start[r] : start[r + 1]]`, ascending; else zero.

    Raises:
        KeyError: an array is missing.
        ValueError: the arrays are no such matrix.
    """

    ndim = 2

    def __init__(self, arrays: dict[str, np.ndarray], n_items: int):
        self.start, self.item, self.value = (arrays[f"weight_{name}"] for name in ("start", "item", "value"))
        self.shape = (n_items, n_items)
        for name, dtype in {**INDEX_ARRAYS, "weight_value": np.float32}.items():
            if arrays[name].dtype != dtype or arrays[name].ndim != 1:
                raise ValueError(
                    f"{name} is {arrays[name].dtype} of shape {arrays[name].shape}, not one row of {dtype}"
                )
        if len(self.start) != n_items + 1 or len(self.item) != len(self.value):
            raise ValueError(f"{len(self.start)} starts, {len(self.item)} items, {len(self.value)} values")
        lengths = np.diff(self.start)
        if self.start[0] != 0 or self.start[-1] != len(self.item) or (lengths < 0).any() or (lengths > n_items).any():
            raise ValueError(f"weight_start does not divide {len(self.item)} weights into rows")
        row = np.repeat(np.arange(n_items), lengths)
        if len(self.item) and (self.item.min() < 0 or self.item.max() >= n_items):
            raise ValueError(f"weight_item names items outside of 0 to {n_items - 1}")
        if (np.diff(row * n_items + self.item) <= 0).any() or not np.isfinite(self.value).all():
            raise ValueError("a row's weights do not ascend by item, or one is no number")

    def __len__(self) -> int:
        return self.shape[0]

    def row(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns and the values of a row. Both (n,)"""
        inside = slice(self.start[item], self.start[item + 1])
        return self.item[inside], self.value[inside]

    def weighted_sum(self, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the sum of these rows (L,), each times its weight (L,). float64 (I,)"""
        lengths = self.start[rows + 1] - self.start[rows]
        skipped = self.start[rows] - (np.cumsum(lengths) - lengths)  # from places in the result to places in `item`
        at = np.arange(lengths.sum()) + np.repeat(skipped, lengths)
        return np.bincount(self.item[at], self.value[at] * np.repeat(weights, lengths), minlength=len(self))


class Catalogue(BaseModel):
    """The items of a bundle, column-wise; all lists have one entry an item."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: list[str]
    domain: list[str]
    title: list[str]
    categories: list[list[str]]
    published_year: list[int | None]


def write_bundle(
    folder: Path, manifest: Manifest, catalogue: Catalogue, arrays: dict[str, np.ndarray], encoder: bytes | None = None
) -> None:
    """Write a bundle; the folder must be new or empty.

    Raises:
        ValueError: ids are not strictly ascending, an array has a non-finite value or not one row an item where
            it must, the popularity is missing, the weights of kind `linear` are no matrix, or an encoder is there
            without a kind of `WITH_ENCODER` or the other way round.
    """
    n_items = len(catalogue.item_id)
    if any(a >= b for a, b in zip(catalogue.item_id, catalogue.item_id[1:], strict=False)) or not n_items:
        raise ValueError("item ids must be strictly ascending and not empty")
    if any(len(column) != n_items for column in catalogue.model_dump().values()):
        raise ValueError("the catalogue's columns differ in length")
    if POPULARITY not in arrays or (manifest.kind in WITH_ENCODER) != (encoder is not None):
        raise ValueError(
            f"a bundle of kind {manifest.kind} with arrays {sorted(arrays)}, encoder: {encoder is not None}"
        )
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"array {name} holds NaN or infinity: the training diverged")
        if name not in NOT_BY_ITEM and len(array) != n_items:
            raise ValueError(f"array {name} has {len(array)} rows for {n_items} items")
    stored = {name: np.ascontiguousarray(a, dtype=INDEX_ARRAYS.get(name, np.float32)) for name, a in arrays.items()}
    if manifest.kind == "linear":
        SparseRows(stored, n_items)
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in stored.items():
        np.save(folder / f"{name}.npy", array)
    if encoder is not None:
        (folder / ENCODER).write_bytes(encoder)
    (folder / ITEMS).write_text(catalogue.model_dump_json())
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2))  # last: a folder without it is no bundle


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a bundle.

    Raises:
        UnusableInput: the folder is no bundle, or one of a format this version does not read.
    """
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise UnusableInput("model bundle", folder, f"It cannot be read ({error}); train and deploy again") from error


def read_catalogue(folder: Path) -> Catalogue:
    """Return the items of a bundle."""
    return Catalogue.model_validate(json.loads((folder / ITEMS).read_text()))


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a bundle by name, float32 but for `INDEX_ARRAYS`. Pickled content is refused."""
    return {path.stem: np.load(path, allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
