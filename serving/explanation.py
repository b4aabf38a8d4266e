"""Why these items: what an answer was made of, as it is kept for a while under its request id. Pure.

Shapes: I items, L history items that the model read, K shown items, D embedding size.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from recsys.bundle import SparseRows
from recsys.retriever import Retriever
from recsys.schemas import Identifier
from serving.left_behind import Decision, Source, facts, record
from serving.model import ServedModel

DRIVERS = 3
"""History items that are named for one shown item, the strongest first."""

DRIVEN = 20
"""Shown items whose drivers are told, from the top: nobody asks about the thousandth."""

SAME_SCORE = 1e-3
"""How far contributions may miss a score, relative to the largest one, and still explain it: they are float32."""


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Driver(_Kept):
    """A history item, and what it adds to the score of a shown one (negative: takes away)."""

    item_id: str
    contribution: float


class Weighed(_Kept):
    """A feature that the ranker read, and what it adds to the item's logit: how much that falls where it is unknown."""

    feature: str
    value: float
    contribution: float


class ExplainedItem(_Kept):
    """A shown item."""

    rank: int = Field(ge=1)
    item_id: str
    score: float
    retrieval_score: float | None = Field(
        None, description="before the other stages; null for a pinned item that was no candidate, and where none ran"
    )
    ranker_score: float | None = Field(None, description="the ranker's logit")
    features: dict[str, float | None] | None = Field(
        None, description="the item's features as the ranker read them; a null one was unknown"
    )
    top_features: list[Weighed] | None = Field(
        None, description="strongest first; null below rank 20, and once another ranker serves"
    )
    drivers: list[Driver] | None = Field(
        description="strongest first; null below rank 20, once another model serves, where scores are no sums"
    )


class Retrieval(_Kept):
    """What made the list, from which data."""

    source: Source
    model: str
    model_version: str
    kind: str
    cut_id: str
    as_of: str
    computed_by: Identifier | None = Field(
        None, description="of a cached list: the request whose record tells how it was made"
    )


class RankedWith(_Kept):
    """The ranker of an answer, and what it read of the user."""

    model: str
    version: str
    user_features: dict[str, float | None]


class StageTold(_Kept):
    """What one stage of the serving graph did."""

    stage: Identifier
    came: int = Field(ge=0)
    gave: int = Field(ge=0)
    by: dict[str, int] = Field(description="rule or cause: items that it moved or held back")


class HistoryRead(_Kept):
    """What was known of the user."""

    items: int = Field(ge=0, description="history items that the store gave")
    session_items: int = Field(ge=0, description="items that the request named")
    used_items: int = Field(ge=0, description="how many of both the model knows and took, the latest of each")
    latest_items: list[str] = Field(description="those that the model took, the latest first")


class Filtered(_Kept):
    """Where the catalogue's items went; each is counted once, under the first reason of this order."""

    catalogue: int = Field(ge=0)
    domain: int = Field(ge=0, description="of another domain than the wanted one")
    unavailable: int = Field(ge=0)
    rules: dict[str, int] = Field({}, description="hidden by a rule of the serving graph, by its name")
    seen: int = Field(ge=0, description="in the history or in the session")
    eligible: int = Field(ge=0, description="ranked; the best k were shown")


class RequestRecord(_Kept):
    """One answered request, as it can be asked for by its id."""

    request_id: Identifier
    answered_at: AwareDatetime
    user_id: Identifier
    variant: Identifier
    propensity: float | None = Field(gt=0, le=1, description="null outside of an experiment")
    rung: Identifier
    retrieval: Retrieval
    history: HistoryRead
    filtered: Filtered
    graph: str = Field("", description="version of the serving graph with its ranker and the items' facts")
    context: str = Field("", description="the context of the serving graph whose rules held; empty: none")
    stages: list[StageTold] = Field(
        [], description="behind retrieval, in their order; of a list that was computed for it"
    )
    ranker: RankedWith | None = None
    items: list[ExplainedItem]


def explain(decision: Decision) -> RequestRecord:
    """Return the record of an answer. Its drivers, which would cost as much as the answer, are told on demand."""
    return RequestRecord.model_validate(
        record(facts(decision))
    )  # at once: many small models cost several times as much


def with_drivers(record: RequestRecord, model: ServedModel) -> RequestRecord:
    """Return the record with its items' drivers, if this is the model that answered; as it is, if not."""
    if (record.retrieval.model_version, record.retrieval.cut_id) != (model.version, model.manifest.cut_id):
        return record
    used = model.retriever.indices(record.history.latest_items[::-1])
    driven = _drivers(model.retriever, used, record.items[:DRIVEN])
    weighed = _weighed(model, record)
    items = [
        item.model_dump() | {"drivers": drivers, "top_features": features}
        for item, drivers, features in zip_longest(record.items, driven, weighed)
    ]
    return RequestRecord.model_validate(record.model_dump() | {"items": items})


def _weighed(model: ServedModel, record: RequestRecord) -> list[list[dict[str, Any]]]:
    """Return the strongest features of the first items; none at all once another ranker serves."""
    ranker, said = model.plan.ranker, record.ranker
    asked = [item for item in record.items[:DRIVEN] if item.features is not None]
    if ranker is None or said is None or said.version != ranker.version or len(asked) < len(record.items[:DRIVEN]):
        return []
    told = []
    read = [item.features or {} for item in asked]
    for item, given in zip(read, ranker.contributions(said.user_features, read), strict=True):
        values = {**said.user_features, **item}
        strongest = sorted((name for name in given if values[name] is not None), key=lambda name: -abs(given[name]))
        told.append([
            {"feature": name, "value": values[name], "contribution": given[name]} for name in strongest[:DRIVERS]
        ])  # fmt: skip
    return told


def _drivers(retriever: Retriever, used: np.ndarray, items: Sequence[ExplainedItem]) -> list[list[dict[str, Any]]]:
    """Return these items' strongest history items; none at all where the contributions are not the scores."""
    if not len(used) or not items:
        return []
    shown = retriever.indices([item.item_id for item in items])
    given = contributions(retriever, used, shown)  # (L, K)
    if given is None:
        return []
    before = [item.retrieval_score for item in items] if record_has_stages(items) else [item.score for item in items]
    if None in before:
        return []
    scores = np.array(before)
    bias = 0.0 if retriever.item_bias is None else retriever.item_bias[shown]
    if np.abs(given.sum(axis=0) + bias - scores).max() > SAME_SCORE * max(1e-6, np.abs(scores).max()):
        return []  # a list of other scores than these items give: no explanation is better than a wrong one
    strongest = np.argsort(-np.abs(given), axis=0, kind="stable")[:DRIVERS]  # (≤ DRIVERS, K)
    added = np.take_along_axis(given, strongest, axis=0)
    names = retriever.catalogue.item_id
    return [
        [{"item_id": names[item], "contribution": share} for item, share in zip(*column, strict=True) if share]
        for column in zip(used[strongest].T.tolist(), added.T.tolist(), strict=True)
    ]


def record_has_stages(items: Sequence[ExplainedItem]) -> bool:
    """Whether stages behind retrieval gave these items other scores than retrieval's."""
    return any(item.retrieval_score is not None for item in items)


def contributions(retriever: Retriever, used: np.ndarray, shown: np.ndarray) -> np.ndarray | None:
    """Return what each history item adds to each shown item's score before the bias, or None where that has no meaning.

    Kinds `mean` and `linear` are weighted sums over the history; the user of `ials` solves A u = Σ w v, so that the
    share of one item is w (A⁻¹ v) · y. An encoder (`onnx`) mixes its inputs, popularity reads none.

    Args:
        used: item indices, oldest first, each once. (L,)
        shown: item indices. (K,)
    """
    manifest, vectors = retriever.manifest, retriever.item_vectors
    weights = np.arange(len(used), 0, -1, dtype=np.float32) ** np.float32(-manifest.recency_exponent)  # (L,)
    if manifest.kind == "linear" and isinstance(vectors, SparseRows):
        return weights[:, None] * _entries(vectors, used, shown)
    if manifest.kind == "mean":
        return (weights / weights.sum())[:, None] * (vectors[used] @ vectors[shown].T)
    if manifest.kind == "ials":
        history, alpha = vectors[used], manifest.unobserved_weight  # (L, D)
        reg = manifest.reg * (weights.sum() + alpha * retriever.n_items) ** manifest.reg_exponent
        left = (history.T * weights) @ history + alpha * retriever.gram  # (D, D)
        left[np.diag_indices_from(left)] += reg
        return weights[:, None] * (history @ np.linalg.solve(left, vectors[shown].T))
    return None


def _entries(matrix: SparseRows, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the dense part of a sparse matrix in these rows and these distinct columns. (rows, columns)"""
    place = np.full(len(matrix), -1)
    place[columns] = np.arange(len(columns))
    dense = np.zeros((len(rows), len(columns)))
    for at, row in enumerate(rows):
        items, values = matrix.row(row)
        wanted = place[items] >= 0
        dense[at, place[items[wanted]]] = values[wanted]
    return dense
