"""The model bundle: a trained recommender as plain arrays and ONNX, free of any training framework.

A bundle is a folder. Training writes it, the registry keeps it, evaluation judges it and serving answers from it: the
model that was measured is, byte for byte, the model that answers.

    manifest.json   what it is: see `Manifest`
    items.json      the catalogue, column-wise: item_id, domain, title, categories (list of lists), published_year
    *.npy           arrays; `popularity` (I,) float32 is always there
    encoder.onnx    kind `onnx` only: history (B, L) int64 and mask (B, L) float32 [and user_features (B, F) float32]
                    → user_vector (B, D) float32

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

Kind = Literal["popularity", "ials", "mean", "onnx"]
"""popularity: the same list for all. ials: `item_vectors` (I, D) and `gram` (D, D), user solved in closed form.
mean: user is the recency-weighted mean of `item_vectors`. onnx: user encoded by encoder.onnx. All but the first score
user · item, plus `item_bias` (I,) where the bundle has one."""


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
        0.0, ge=0, description="kinds `ials` and `mean`: the item `a` places back in history weighs (1 + a)^-exponent"
    )
    unobserved_weight: float = Field(0.0, ge=0, description="kind `ials`: α0 of Rendle et al. 2021")
    reg: float = Field(0.0, ge=0, description="kind `ials`: λ of the user's solve")
    reg_exponent: float = Field(0.0, ge=0, description="kind `ials`: ν of Rendle et al. 2021")
    hyper_parameters: dict[str, float | int | str | bool] = Field(default_factory=dict)
    seed: int = 0


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
            it must, the popularity is missing, or an encoder is there without kind `onnx` or the other way round.
    """
    n_items = len(catalogue.item_id)
    if any(a >= b for a, b in zip(catalogue.item_id, catalogue.item_id[1:], strict=False)) or not n_items:
        raise ValueError("item ids must be strictly ascending and not empty")
    if any(len(column) != n_items for column in catalogue.model_dump().values()):
        raise ValueError("the catalogue's columns differ in length")
    if POPULARITY not in arrays or (manifest.kind == "onnx") != (encoder is not None):
        raise ValueError(
            f"a bundle of kind {manifest.kind} with arrays {sorted(arrays)}, encoder: {encoder is not None}"
        )
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"array {name} holds NaN or infinity: the training diverged")
        if name != "gram" and len(array) != n_items:
            raise ValueError(f"array {name} has {len(array)} rows for {n_items} items")
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", np.ascontiguousarray(array, dtype=np.float32))
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
    """Return the arrays of a bundle by name, float32. Pickled content is refused."""
    return {path.stem: np.load(path, allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
