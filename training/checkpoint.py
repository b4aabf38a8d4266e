"""Checkpoints: a training that is killed goes on where it was.

A training that takes its chance of each epoch from the seed and the epoch's number alone, never from what went before,
needs no more than its tensors and the number of the next epoch to end with the very weights that it would have had:

    checkpoint = Checkpoint.of("sasrec", data, config, seed, workplace)
    for epoch in checkpoint.epochs(network, optimiser, epochs):
        ...
"""

import hashlib
import logging
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recsys import receipts
from training.dataset import TrainingData
from training.model import ModelConfig, Workplace

SAVES = 4
"""At most so many times a fit: what a kill costs is a quarter of it."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """The latest state of one training, a file in the workplace's cache."""

    path: Path

    @classmethod
    def of(cls, name: str, data: TrainingData, config: ModelConfig, seed: int, workplace: Workplace) -> "Checkpoint":
        """Return the place of this training's state: by model, data, configuration, seed, PyTorch and our own code, so
        that a training never goes on from what another one left."""
        digest = hashlib.blake2b(digest_size=16)
        for events in (data.users, data.items, data.instants, data.user_features):
            if events is not None:
                digest.update(f"{events.dtype}{events.shape}".encode() + events.tobytes())
        known = (data.cut_at, data.is_ordered, data.catalogue.model_dump(), data.texts)
        code = receipts.code_fingerprint("training")
        rest = receipts.fingerprint(known, config.model_dump(), seed, torch.__version__, code)
        digest.update(rest.encode())
        return cls(workplace.cache / "checkpoints" / f"{name}-{digest.hexdigest()}.pt")

    @staticmethod
    def is_due(epoch: int, epochs: int) -> bool:
        """Tell whether the state after this epoch (from 0) is one of the at most `SAVES` to keep; never the last."""
        return epoch + 1 < epochs and (epoch + 1) * SAVES // epochs > epoch * SAVES // epochs

    def epochs(
        self, network: nn.Module, optimiser: torch.optim.Optimizer, epochs: int, is_kept: bool = False
    ) -> Iterator[int]:
        """Yield the numbers of the epochs that are still to be trained, from 0, after both were brought to where an
        earlier process left them. The state is kept when it is due, and forgotten after the last epoch, unless this is
        one of several trainings (`is_kept`); a trainer that ends earlier on purpose calls `remove`."""
        first = 0
        if state := self.load():
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            first = state["epoch"]
        for epoch in range(first, epochs):
            yield epoch
            if self.is_due(epoch, epochs) or (is_kept and epoch + 1 == epochs):
                weights = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
                self.save({**weights, "epoch": epoch + 1})
        if not is_kept:
            self.remove()

    def load(self) -> dict[str, Any] | None:
        """Return what was saved last, None where nothing was or where it cannot be read. Runs no code from the file."""
        try:
            state = torch.load(self.path, weights_only=True)
        except FileNotFoundError:
            return None
        except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            log.warning("checkpoint %s cannot be read (%s): training from the start", self.path, error)
            return None
        log.info("training goes on from %s", self.path)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state of tensors, numbers, texts, lists and dicts, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".draft")
        torch.save(state, draft)
        draft.replace(self.path)

    def remove(self) -> None:
        """Forget the state: the training is done."""
        self.path.unlink(missing_ok=True)
