"""The model that answers: a bundle, the record of its deployment and the serving graph, checked and warm."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from recsys.artifacts import RANKER_FILES
from recsys.bundle import WITH_ENCODER, Manifest, read_manifest
from recsys.errors import UnusableInput
from recsys.retriever import Retriever
from recsys.schemas import Identifier
from serving.graph import Context, Graph
from serving.item_texts import ItemTexts
from serving.plan import Plan
from serving.ranker import ItemFacts, ServedRanker, read_ranker

log = logging.getLogger(__name__)

DEPLOYMENT = "deployment.json"


class Deployment(BaseModel):
    """What the deployment wrote beside the bundle. Later fields of a newer deployment are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    model_version: Identifier
    run_id: str = ""
    registered_model: str = ""
    unavailable_items: tuple[str, ...] = ()
    """Items that must not be shown (out of stock, withdrawn)."""


class Identity(NamedTuple):
    """What tells a served model and its rules from others, for the records of its answers."""

    model: str
    version: str
    kind: str
    cut_id: str
    as_of: str
    plan_version: str
    context: str
    n_items: int


@dataclass(frozen=True)
class ServedModel:
    """A loaded bundle under the version that the registry gave it. Shapes: I items."""

    retriever: Retriever
    deployment: Deployment
    plan: Plan
    item_texts: ItemTexts
    ranker: ServedRanker | None = None
    """The one beside the bundle, whether or not the graph asks for it."""
    context: str = ""
    """Name of the context whose rules hold in it; none for the model itself."""
    _within: list[tuple[Context, "ServedModel"]] = field(init=False, default_factory=list)
    _allowed: dict[str | None, np.ndarray] = field(init=False, default_factory=dict)
    _barred: dict[str | None, np.ndarray | None] = field(init=False, default_factory=dict)
    _counts: dict[str | None, tuple[int, int, dict[str, int]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for domain, available in _masks(self.retriever, self.deployment).items():
            hidden = {name: int((mask & available).sum()) for name, mask in self.plan.hidden.items()}
            allowed = available.copy()
            for mask in self.plan.hidden.values():
                allowed &= ~mask
            self._allowed[domain] = allowed
            shown = int(allowed.sum())
            self._barred[domain] = None if shown == len(allowed) else np.flatnonzero(~allowed)
            domains = Counter(self.retriever.catalogue.domain)
            in_domain = len(allowed) if domain is None else domains[domain]
            self._counts[domain] = in_domain, shown, {name: items for name, items in hidden.items() if items}
        graph = self.plan.graph
        for context in graph.contexts:
            plan = Plan(graph.within(context), self.retriever, self.plan.facts, self.ranker)
            self._within.append((context, replace(self, plan=plan, context=context.name)))

    def under(self, graph: Graph) -> "ServedModel":
        """Return the same model under another graph."""
        return replace(self, plan=Plan(graph, self.retriever, self.plan.facts, self.ranker))

    def within(self, device: str | None, location: str | None, instant: datetime) -> "ServedModel":
        """Return this model with the rules of the first context that such a request is within; itself if none is."""
        if not self._within:
            return self
        hour = instant.astimezone(UTC).hour
        return next((model for context, model in self._within if context.fits(device, location, hour)), self)

    @property
    def manifest(self) -> Manifest:
        return self.retriever.manifest

    @property
    def version(self) -> str:
        return self.deployment.model_version

    @cached_property
    def identity(self) -> Identity:
        said = self.manifest
        return Identity(
            said.model, self.version, said.kind, said.cut_id, said.as_of, self.plan.version, self.context,
            self.retriever.n_items,
        )  # fmt: skip

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains of the catalogue, ascending."""
        return tuple(sorted(domain for domain in self._allowed if domain is not None))

    def allowed(self, domain: str | None) -> np.ndarray:
        """Return which items may be shown: available, hidden by no rule, of this domain if one is named. bool (I,)"""
        found = self._allowed.get(domain)
        return np.zeros(self.retriever.n_items, bool) if found is None else found

    def barred(self, domain: str | None) -> np.ndarray | slice | None:
        """Return the indices of all other items, as an index of an array; None where there are none."""
        return self._barred.get(domain, slice(None))

    def counts(self, domain: str | None) -> tuple[int, int, Mapping[str, int]]:
        """Return how many items this domain has (None: all domains), how many of them may be shown, and how many each
        rule hides of those that are available."""
        return self._counts.get(domain, (0, 0, {}))


def load(folder: Path, threads: int = 1, graph: Graph | None = None) -> ServedModel:
    """Load a bundle. Without `deployment.json` (a bare model artifact) the data cut's id is the version.

    A ranker that cannot be used costs the ranking stage, not the model.

    Args:
        graph: how lists are made; by default the ladder and no rule.

    Raises:
        UnusableInput: the folder is no complete, consistent bundle.
    """
    folder = folder.resolve()  # a deployment that replaces the link during the load must not mix two models
    onnx_errors = _onnx_errors() if read_manifest(folder).kind in WITH_ENCODER else ()
    try:
        retriever = Retriever(folder, threads)
        _check_shapes(retriever)
        path = folder / DEPLOYMENT
        deployment = (
            Deployment.model_validate_json(path.read_text())
            if path.exists()
            else Deployment(model_version=retriever.manifest.cut_id)
        )
        facts = ItemFacts.read(folder, retriever.n_items)
    except (OSError, EOFError, ValueError, KeyError, *onnx_errors) as error:
        raise UnusableInput("model bundle", folder, f"It cannot be served ({error}); train and deploy again") from error
    ranker = _ranker(folder, facts, retriever.n_items)
    plan = Plan(graph or Graph(), retriever, facts, ranker)
    return ServedModel(retriever, deployment, plan, ItemTexts(retriever.catalogue), ranker)


def _ranker(folder: Path, facts: ItemFacts, n_items: int) -> ServedRanker | None:
    if not (folder / RANKER_FILES[1]).exists():
        return None
    try:
        ranker = read_ranker(folder, facts, n_items)
        if ranker is not None:
            ranker.scores({}, np.zeros(1, np.int64))
        return ranker
    except (OSError, ValueError, *_onnx_errors()) as error:
        log.error("the ranker is not taken, lists keep the order of retrieval: %s", error)
        return None


def answer_faults() -> tuple[type[Exception], ...]:
    """What a loaded model may raise when it answers: its arithmetic, its shapes and look-ups, ONNX Runtime.

    Evaluated only while an exception is on its way, which is when ONNX Runtime may be imported for it.
    """
    return (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, *_onnx_errors())


def _onnx_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's errors derive from Exception directly; imported only for a bundle that has an encoder."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
    )


def _check_shapes(retriever: Retriever) -> None:
    n_items, kind = len(retriever.catalogue.item_id), retriever.manifest.kind
    if any(len(column) != n_items for column in retriever.catalogue.model_dump().values()):
        raise ValueError("the catalogue's columns differ in length")
    if retriever.popularity.shape != (n_items,):
        raise ValueError(f"popularity has shape {retriever.popularity.shape} for {n_items} items")
    if kind == "popularity":
        return
    vectors = retriever.item_vectors
    if vectors is None or vectors.ndim != 2 or len(vectors) != n_items:
        raise ValueError(f"a bundle of kind {kind} needs item_vectors with one row for each of {n_items} items")
    if retriever.item_bias is not None and retriever.item_bias.shape != (n_items,):
        raise ValueError(f"item_bias has shape {retriever.item_bias.shape} for {n_items} items")
    width = vectors.shape[1]
    if kind == "ials" and (retriever.gram is None or retriever.gram.shape != (width, width)):
        raise ValueError(f"a bundle of kind ials needs gram of shape ({width}, {width})")


def _masks(retriever: Retriever, deployment: Deployment) -> dict[str | None, np.ndarray]:
    available = np.ones(retriever.n_items, bool)
    available[retriever.indices(deployment.unavailable_items)] = False
    domain_of = np.array(retriever.catalogue.domain)
    return {None: available} | {str(domain): available & (domain_of == domain) for domain in np.unique(domain_of)}
