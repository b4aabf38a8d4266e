"""The one shape of all models: a module in `training/models/` with `FRAMEWORK`, `FEATURES`, `Config` and `fit`.

    fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> Model

A model knows a user by the history alone, so a user unseen in training is served like any other (fold-in). Where
`data.is_ordered` is false, the order of a user's events means nothing, and a model leaves it out of its answers.

What callers ask of a fitted model, and where it lies:

    score(histories)                          on the Model, in the framework that trained it
    score_users(users)                        on the Model, optional: of users in training (see `HasUsers`)
    export(path)                              `write_model`: the bundle, free of frameworks, and native weights
    recommend, score, similar_items, fold_in  `recsys.retriever.Retriever` of the bundle: what is judged and what serves

A module may say more, for `python -m training.benchmark` (docs/benchmark.md), which tunes it on a validation part:

    TRIALS: tuple[dict, ...]                  overrides of Config in order of expectation; without it, Config() alone
    TRIALS_OF_SETS: tuple[dict, ...]          the same where `data.is_ordered` is false and other settings are wanted
    TRIALS_OF_SHORT: tuple[dict, ...]         the same, without those, where users have few events
    STOPS_IN_TIME: bool                       true: its fit ends within `workplace.seconds`, with less training
    NEEDS_ORDER: bool                         true: it cannot learn where `data.is_ordered` is false
    estimate_seconds(data, config) -> float   processor seconds that a fit is expected to take, on one core

and it has to say for `python -m training tune` (training/tune.py):

    SPACE: dict[str, Between | OneOf]         field of Config → values that may be searched, the default among them

Where `estimate_seconds` is missing, the first trial is the measurement. `workplace.seconds` says how long a fit may
take: one that goes on is ended from outside, so a model with epochs stops in time by itself, and says so.
"""

import importlib
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict

from recsys import receipts
from recsys.artifacts import MODEL_ZOO
from recsys.bundle import Kind, Manifest, write_bundle
from recsys.errors import CheckFailed, RecsysError
from training.dataset import TrainingData
from training.warm_start import WarmStart

POPULARITY_HALF_LIFE_DAYS = 365.0
"""Of all candidates from 7 days to none the best on validation parts of MovieLens latest-small and within .002 of the
best on 1M; shared by every model for users without a history."""
log = logging.getLogger(__name__)


class ModelConfig(BaseModel):
    """Base of every model's configuration: frozen, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyConfig = TypeVar("AnyConfig", bound=ModelConfig)


@dataclass(frozen=True)
class Between:
    """A number to search for, both ends included; whole where both are. `log`: its order of magnitude is searched."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: Any, name: str) -> float:
        """Ask a trial of Optuna for a value."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class OneOf:
    """Values to choose from."""

    values: tuple[float | int | bool | str, ...]

    def suggest(self, trial: Any, name: str) -> float | int | bool | str:
        """Ask a trial of Optuna for one."""
        return trial.suggest_categorical(name, self.values)


@dataclass(frozen=True)
class Workplace:
    """What a fit may use of the machine."""

    threads: int
    cache: Path
    """Folder for results that outlive the cut, such as vectors of texts."""
    seconds: float = math.inf
    """Wall seconds that the fit may take, with all that comes before its first step."""
    warm: WarmStart | None = None
    """Where a retraining begins; models that learn by gradients begin anew all the same."""
    began: float = field(default_factory=time.perf_counter)
    """When they began; a process that is forked from this one has the same clock."""

    def spent(self) -> float:
        """Return which share of the seconds is over, one and more at the end."""
        return (time.perf_counter() - self.began) / self.seconds

    def part(self, share: float) -> "Workplace":
        """Return the same place for a part of the work, which begins now and may take this share of what is left."""
        now = time.perf_counter()
        return replace(self, seconds=max(share * (self.seconds - (now - self.began)), 1e-3), began=now)

    def anew(self) -> "Workplace":
        """Return the same place for another fit, which begins now and may take as long."""
        return replace(self, began=time.perf_counter())


@dataclass(frozen=True)
class Parts:
    """A trained model as the bundle holds it (recsys/bundle.py)."""

    kind: Kind
    arrays: dict[str, np.ndarray]
    encoder: bytes | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of the manifest that the kind needs."""


class Model(Protocol):
    """A fitted model in its own framework. B users, I items, F features."""

    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        """Return each user's score of each item, computed by the framework that trained it. float32 (B, I)

        The exported bundle must give the same: the conformance suite compares them. Histories are not empty and hold
        each item once; features are raw (B, F), NaN where unknown.
        """
        ...

    def parts(self) -> Parts:
        """Return the model in framework-neutral form."""
        ...

    def save_native(self, folder: Path) -> None:
        """Write the framework's own weights into an existing folder."""
        ...


@runtime_checkable
class HasUsers(Protocol):
    """A model with vectors of its own for the users that it was trained on."""

    def score_users(self, users: np.ndarray) -> np.ndarray:
        """Return the scores of users by their codes in the training data (B,); as good as by fold-in or better.
        float32 (B, I)"""
        ...


def module_of(name: str) -> ModuleType:
    """Import a model's module, and with it its framework.

    Raises:
        RecsysError: there is no such model.
    """
    if name not in MODEL_ZOO:
        raise RecsysError("model", name, f"Choose among {', '.join(MODEL_ZOO)}")
    return importlib.import_module(f"training.models.{name}")


def space_of(module: ModuleType) -> dict[str, Between | OneOf]:
    """Return what may be searched of a model; nothing where it does not say."""
    return getattr(module, "SPACE", {})


def space_fingerprint(module: ModuleType) -> str:
    """Return a fingerprint of what is searched and of what the model's Config holds."""
    searched = {name: repr(values) for name, values in space_of(module).items()}
    return receipts.fingerprint(searched, module.Config().model_dump())


def config_of(module: ModuleType, tuned: dict[str, Any] | None) -> ModelConfig:
    """Return the settings to train with: what `training tune` found, unless it searched another space; else the model's
    own."""
    if tuned and tuned["space"] != space_fingerprint(module):
        log.warning("%s: settings were found in another search space, tune again; its own are used", module.__name__)
        tuned = None
    return module.Config(**(tuned["settings"] if tuned else {}))


def to_answer_with(config: AnyConfig, data: TrainingData) -> AnyConfig:
    """Return the settings that a fitted model answers with: no `recency_exponent` where order means nothing."""
    return config if data.is_ordered else config.model_copy(update={"recency_exponent": 0.0})


def popularity(data: TrainingData, half_life_days: float = POPULARITY_HALF_LIFE_DAYS) -> np.ndarray:
    """Return each item's events before the cut, one of `half_life_days` ago counting half. float32 (I,)"""
    age_days = (data.cut_at - data.instants) / 86_400_000
    weights = 0.5 ** (age_days / half_life_days)
    return np.bincount(data.items, weights, data.n_items).astype(np.float32)


def recency_shift(data: TrainingData, smoothing: float = 5.0) -> np.ndarray:
    """Return by how much each item's log-probability has moved from the whole training time to its end. float32 (I,)

    A model of p(item | user) over all times, plus this, is one of today where only the items' shares have changed
    (label shift: Saerens, Latinne, Decaestecker 2002). `smoothing` events are added to every item.
    """
    always, lately = popularity(data, np.inf), popularity(data)
    return np.log((lately * (always.sum() / lately.sum()) + smoothing) / (always + smoothing)).astype(np.float32)


def as_read(sequences: list[np.ndarray], is_ordered: bool, rng: np.random.Generator) -> list[np.ndarray]:
    """Return each user's events as an epoch reads them: as they are, or in another order each time where it means
    nothing. What predicts from left to right would else learn in which order somebody wrote the file."""
    return sequences if is_ordered else [rng.permutation(rows) for rows in sequences]


def windows(
    sequences: list[np.ndarray], length: int, rng: np.random.Generator, horizon: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Cut each user's sequence into windows of up to `length` places that each predict what follows.

    Returns inputs and targets, both (W, length) row numbers of events, right-aligned, -1 where there is none. The
    target of a place is drawn evenly from the next `horizon` events. Each event but a user's last is an input once. The
    cuts are shifted at random, so that from epoch to epoch a place is seen with different stretches of its history.
    """
    sequences = [rows for rows in sequences if len(rows) > 1]
    if not sequences:
        raise CheckFailed("training sequences", 0, "No user has two events before the cut: land more history")
    lengths = np.array([len(rows) for rows in sequences])
    last = lengths - 1  # (U,): the last event is a target only
    shift = rng.integers(0, np.minimum(length, last)) * (last > length)  # (U,)
    whole = -(-(last - shift) // length)  # windows before the shifted one (U,)
    first, start = (np.cumsum(counts) - counts for counts in (whole + (shift > 0), lengths))  # window, event (U,)
    user = np.repeat(np.arange(len(last)), last)
    place = np.arange(len(user)) - (start - np.arange(len(last)))[user]  # (n,)
    last, whole, start, cut = last[user], whole[user], start[user], (last - shift)[user]
    behind = np.where(place < cut, cut, last) - 1 - place  # places of the user before that window's end, (n,)
    window = first[user] + np.where(place < cut, whole - 1 - behind // length, whole)
    following = np.minimum(place + rng.integers(1, horizon + 1, len(place)), last)
    events = np.concatenate(sequences)
    inputs, targets = np.full((2, window[-1] + 1, length), -1, events.dtype)
    inputs[window, length - 1 - behind % length] = events[start + place]
    targets[window, length - 1 - behind % length] = events[start + following]
    return inputs, targets


def batches(inputs: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Deal windows, (W, length), into batches of as many filled places as `size` full windows have, in random order.

    Returns each batch's window numbers, each window in one batch. The windows of a batch are of about equal length: cut
    to the longest of them (`filled`), little of a batch is padding.
    """
    lengths = (inputs >= 0).sum(1)
    order = rng.permutation(len(inputs))
    order = order[np.argsort(lengths[order], kind="stable")]
    batch = (np.cumsum(lengths[order]) - lengths[order]) // (size * inputs.shape[1])
    dealt = np.split(order, np.flatnonzero(np.diff(batch)) + 1)
    return [dealt[place] for place in rng.permutation(len(dealt))]


def filled(inputs: np.ndarray, targets: np.ndarray, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets of a batch without the columns that are padding in all of its windows. Both (B, L)"""
    longest = int((inputs[batch] >= 0).sum(1).max())
    return inputs[batch][:, -longest:], targets[batch][:, -longest:]


def padded_blocks(
    histories: list[np.ndarray], longest: int, at_once: int = 256
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield histories of about equal length together, cut to their `longest` latest items: which they are (b,), their
    items int64 (b, L) and the mask float32 (b, L), the latest item last."""
    lengths = np.minimum([len(history) for history in histories], longest)
    for together in np.array_split(np.argsort(lengths, kind="stable"), -(-len(histories) // at_once)):
        width = lengths[together].max()
        items, mask = np.zeros((len(together), width), np.int64), np.zeros((len(together), width), np.float32)
        for at, row in enumerate(together):
            items[at, width - lengths[row] :] = histories[row][-longest:]
            mask[at, width - lengths[row] :] = 1
        yield together, items, mask


def share_done(done: float, workplace: Workplace) -> float:
    """Return which share of a training is done: of its steps, or of the time that it may take, the greater."""
    return max(done, workplace.spent())


def check_finite(loss: float, model: str, step: int) -> None:
    """Stop a training that diverged.

    Raises:
        CheckFailed: the loss is NaN or infinite.
    """
    if not np.isfinite(loss):
        raise CheckFailed(
            f"loss of {model} at step {step}", loss, "It diverged: lower its learning rate; not registered"
        )


def write_model(folder: Path, name: str, model: Model, data: TrainingData, origin: dict[str, Any]) -> Manifest:
    """Write a fitted model into an empty folder: `bundle/` and `native/`. `origin`: the manifest's further fields.

    Raises:
        CheckFailed: a weight is NaN or infinite.
    """
    parts = model.parts()
    for array_name, array in parts.arrays.items():
        if not np.isfinite(array).all():
            raise CheckFailed(f"{array_name} of {name}", "NaN or infinity", "The training diverged; not registered")
    manifest = Manifest(model=name, kind=parts.kind, **origin, **parts.settings)
    write_bundle(folder / "bundle", manifest, data.catalogue, parts.arrays, parts.encoder)
    (folder / "native").mkdir()
    model.save_native(folder / "native")
    return manifest
