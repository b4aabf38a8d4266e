"""Why these items: what an answer was made of, as it is kept for a while under its request id. Pure.

Shapes: I items, L history items that the model read, K shown items, D embedding size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from recsys.bundle import SparseRows
from recsys.retriever import Retriever, by_latest_event
from recsys.schemas import Identifier
from serving.contracts import Answer
from serving.model import ServedModel
from serving.recommend import PERSONALISED, SESSION, Query, seen_items

Source = Literal["model", "precomputed_list", "cached_list"]

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


class ExplainedItem(_Kept):
    """A shown item."""

    rank: int = Field(ge=1)
    item_id: str
    score: float
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
    items: list[ExplainedItem]


@dataclass(frozen=True)
class Decision:
    """An answer that went out, and all that it was made from."""

    answer: Answer
    model: ServedModel
    query: Query
    source: Source
    propensity: float | None
    """Share of the units that get this variant; None outside of an experiment."""
    answered_at: AwareDatetime


def explain(decision: Decision) -> RequestRecord:
    """Return the record of an answer. Its drivers, which would cost as much as the answer, are told on demand."""
    return RequestRecord.model_validate(describe(decision))  # at once: many small models cost several times as much


def describe(decision: Decision) -> dict[str, Any]:
    """Return the record as plain values, unchecked: all that is worked out while the model is at hand."""
    answer, model, query = decision.answer, decision.model, decision.query
    retriever, manifest = model.retriever, model.manifest
    _, seen = seen_items(retriever, query)
    used = by_latest_event(seen)[-manifest.max_history :] if answer.rung in {PERSONALISED, SESSION} else seen[:0]
    return {
        "request_id": answer.request_id,
        "answered_at": decision.answered_at.isoformat(),
        "user_id": answer.user_id,
        "variant": answer.variant,
        "propensity": decision.propensity,
        "rung": answer.rung,
        "retrieval": {
            "source": decision.source,
            "model": answer.model,
            "model_version": answer.model_version,
            "kind": manifest.kind,
            "cut_id": manifest.cut_id,
            "as_of": manifest.as_of,
        },
        "history": {
            "items": len(query.history),
            "session_items": len(query.session),
            "used_items": len(used),
            "latest_items": [retriever.catalogue.item_id[item] for item in used[::-1].tolist()],
        },
        "filtered": _filtered(model, query.domain, seen),
        "items": [
            {"rank": item.rank, "item_id": item.item_id, "score": item.score, "drivers": None} for item in answer.items
        ],
    }


def with_drivers(record: RequestRecord, model: ServedModel) -> RequestRecord:
    """Return the record with its items' drivers, if this is the model that answered; as it is, if not."""
    if (record.retrieval.model_version, record.retrieval.cut_id) != (model.version, model.manifest.cut_id):
        return record
    used = model.retriever.indices(record.history.latest_items[::-1])
    driven = _drivers(model.retriever, used, record.items[:DRIVEN])
    items = [item.model_dump() | {"drivers": drivers} for item, drivers in zip_longest(record.items, driven)]
    return RequestRecord.model_validate(record.model_dump() | {"items": items})


def _filtered(model: ServedModel, domain: str | None, seen: np.ndarray) -> dict[str, int]:
    of_domain, available = model.counts(domain)
    seen_allowed = int(np.count_nonzero(model.allowed(domain)[by_latest_event(seen)]))
    return {
        "catalogue": model.retriever.n_items,
        "domain": model.retriever.n_items - of_domain,
        "unavailable": of_domain - available,
        "seen": seen_allowed,
        "eligible": available - seen_allowed,
    }


def _drivers(retriever: Retriever, used: np.ndarray, items: Sequence[ExplainedItem]) -> list[list[dict[str, Any]]]:
    """Return these items' strongest history items; none at all where the contributions are not the scores."""
    if not len(used) or not items:
        return []
    shown = retriever.indices([item.item_id for item in items])
    given = contributions(retriever, used, shown)  # (L, K)
    if given is None:
        return []
    scores = np.array([item.score for item in items])
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
