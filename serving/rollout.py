"""The version beside the champion: which it is, who gets it, and that it is loaded before anybody does."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from recsys.artifacts import ALIAS_CHAMPION
from recsys.errors import UnusableInput
from recsys.experiments import HOLDOUT
from recsys.promotion import Rollout, Stage, candidate_folder, read_rollout, rollout_file
from recsys.settings import Settings
from recsys.split import Assignment
from serving.graph import graph_file, read_graph
from serving.metrics import Metrics
from serving.model import ServedModel, load
from serving.recommend import warm

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often the rollout's file is looked at: a candidate that is rolled back is gone within a second."""


@dataclass(frozen=True)
class Candidate:
    """A loaded version on its way to champion."""

    model: ServedModel
    rollout: Rollout

    @property
    def is_shadow(self) -> bool:
        return self.rollout.stage is Stage.SHADOW

    def takes(self, unit: str, assignment: Assignment) -> bool:
        """Whether it answers this unit: one that would get the champion's list, and is not held out."""
        is_open = assignment.policy == ALIAS_CHAMPION and assignment.variant != HOLDOUT and assignment.propensity > 0
        return is_open and self.rollout.takes(unit)


class LiveRollout:
    """The candidate that holds now. A link and a file say so; the file is taken once its version is loaded."""

    def __init__(self, settings: Settings, metrics: Metrics):
        self._folder, self._file = candidate_folder(settings), rollout_file(settings)
        self._metrics, self._threads, self._graph_file = metrics, settings.threads, graph_file(settings)
        self._current: Candidate | None = None
        self._seen: object = None

    @property
    def current(self) -> Candidate | None:
        return self._current

    def refresh(self) -> None:
        """Take a changed rollout. One that cannot be used is logged, and the champion answers everybody."""
        look = _look(self._file, self._folder, self._graph_file)
        if look == self._seen:
            return
        self._seen = look
        try:
            rollout = read_rollout(self._file)
            self._current = None if rollout is None else Candidate(self._model(rollout), rollout)
        except UnusableInput as error:
            log.error("the rollout is not taken: %s", error)
            self._current = None
            self._metrics.reloads.labels("broken").inc()

    def _model(self, rollout: Rollout) -> ServedModel:
        graph = read_graph(self._graph_file)
        if self._current is not None and self._current.model.version == rollout.version:
            loaded = self._current.model
            return loaded if loaded.plan.graph == graph else loaded.under(graph)
        model = load(self._folder, self._threads, graph)
        if model.version != rollout.version:
            raise UnusableInput("candidate", model.version, f"The rollout is of version {rollout.version}")
        warm(model)
        log.info("version %s stands beside the champion", model.version)
        return model

    async def watch(self) -> None:
        """Refresh for ever, in a thread, so that answers go on meanwhile."""
        while True:
            await asyncio.to_thread(self.refresh)
            await asyncio.sleep(LOOK_SECONDS)


def _look(*paths: Path) -> object:
    """Return what tells one state of these from another."""
    found = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:  # not there, or being replaced at this moment
            found.append(None)
        else:
            found.append((str(path.resolve()), status.st_mtime_ns, status.st_size))
    return found
