"""Models that can be looked at beside the one that answers: the candidate, and the bundles that a deployment laid
beside the served one. They answer previews only; nobody is ever given such a list by them.

    <var_dir>/serving/beside/v7/   a bundle with its deployment.json, as `infra` writes it
"""

import asyncio
import logging
from collections import OrderedDict
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from recsys.bundle import read_manifest
from recsys.errors import UnusableInput
from serving.answering import Answering
from serving.graph import Graph
from serving.model import DEPLOYMENT, Deployment, ServedModel, load
from serving.recommend import warm

log = logging.getLogger(__name__)

KEPT = 2
"""Models that stay loaded beside the served one and the candidate, the least lately asked given up first."""

Role = Literal["champion", "candidate", "beside"]


class OfferedModel(BaseModel):
    """A model whose lists can be looked at."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str
    model: str
    kind: str
    role: Role = Field(description="`champion` answers now, `candidate` is on its way, `beside` is to be compared")


class Shelf:
    """The models of this machine by version. Bundles are loaded when they are first asked for, one at a time."""

    def __init__(self, answering: Answering, folder: Path, threads: int = 1):
        self._answering, self._folder, self._threads = answering, folder, threads
        self._loaded: OrderedDict[str, ServedModel] = OrderedDict()
        self._loading = asyncio.Lock()

    def offered(self) -> list[OfferedModel]:
        """Return what can be looked at: the champion, the candidate, the others by version. What is no bundle is left
        out.

        Raises:
            ServiceUnavailable: no model was deployed yet.
        """
        champion, candidate = self._answering.model(), self._answering.candidate
        offered = {champion.version: _offer(champion, "champion")}
        if candidate is not None:
            offered.setdefault(candidate.model.version, _offer(candidate.model, "candidate"))
        for version, folder in self._bundles().items():
            try:
                manifest = read_manifest(folder)
            except UnusableInput as error:
                log.warning("%s cannot be compared: %s", folder, error)
                continue
            offer = OfferedModel(model_version=version, model=manifest.model, kind=manifest.kind, role="beside")
            offered.setdefault(version, offer)
        return list(offered.values())

    async def model(self, version: str | None) -> ServedModel | None:
        """Return the model of this version (None: the champion), or None where there is none.

        Raises:
            ServiceUnavailable: no model was deployed yet.
            UnusableInput: its bundle cannot be loaded, or cannot answer.
        """
        champion, candidate = self._answering.model(), self._answering.candidate
        if version in {None, champion.version}:
            return champion
        if candidate is not None and version == candidate.model.version:
            return candidate.model
        async with self._loading:
            folder = (await asyncio.to_thread(self._bundles)).get(version)
            if folder is None:
                self._loaded.pop(version, None)
                return None
            known = self._loaded.get(version)
            if known is None:
                known = await asyncio.to_thread(self._load, folder, champion.plan.graph)
            elif known.plan.graph != champion.plan.graph:
                known = await asyncio.to_thread(known.under, champion.plan.graph)
            self._loaded[version] = known
            self._loaded.move_to_end(version)
            while len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
            return known

    def _load(self, folder: Path, graph: Graph) -> ServedModel:
        model = load(folder, self._threads, graph)
        warm(model)
        return model

    def _bundles(self) -> dict[str, Path]:
        """Return the folders by the version that their deployment names, in numerical order where they are numbers."""
        found = {}
        for path in self._folder.glob(f"v*/{DEPLOYMENT}"):
            try:
                found[Deployment.model_validate_json(path.read_text()).model_version] = path.parent
            except (OSError, ValueError) as error:  # being replaced at this moment, or damaged
                log.warning("%s cannot be compared: %s", path.parent, error)
        return dict(sorted(found.items(), key=lambda entry: (len(entry[0]), entry[0])))


def _offer(model: ServedModel, role: Role) -> OfferedModel:
    manifest = model.manifest
    return OfferedModel(model_version=model.version, model=manifest.model, kind=manifest.kind, role=role)
