"""What an answer leaves behind: its impressions for the log, and the record of what it was made of.

In two steps. Facts are gathered while the model is at hand: plain values, an array of JSON. Words are found for them
where nobody waits for an answer, in the carrier, and need nothing but the facts.

Shapes: K shown items, F features of an item that the ranker read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic_core import from_json, to_json

from recsys.retriever import by_latest_event
from serving.graph import PERSONALISED, SESSION
from serving.made import MadeAnswer
from serving.model import Identity, ServedModel
from serving.plan import StageTrace
from serving.recommend import Query, Ranking, seen_items

Source = Literal["model", "precomputed_list", "cached_list"]

NAN = float("nan")


@dataclass(frozen=True)
class Decision:
    """An answer that went out, and all that it was made from."""

    answer: MadeAnswer
    query: Query
    source: Source
    propensity: float | None
    """Share of the units that get this variant; None outside of an experiment, where no impression is logged."""
    answered_at: datetime
    ranking: Ranking | None = None
    """As it was computed; None of a stored list."""
    computed_by: str | None = None
    orders: int = 1
    """How many items chance could have put at one rank, where the variant shuffles: an impression's propensity is the
    share of the units times the probability of this order within the variant."""


class Counted(NamedTuple):
    """Where the catalogue's items went."""

    of_domain: int
    shown: int
    """Of these, those that may be shown."""
    hidden: Mapping[str, int]
    """Rule → how many of the available ones it hides."""
    seen: int
    """How many of those that may be shown were seen."""


class RankerRead(NamedTuple):
    """The ranker of an answer and what it read; NaN is unknown."""

    model: str
    version: str
    user_features: Sequence[str]
    user_values: Sequence[float]
    item_features: Sequence[str]
    item_values: Sequence[Sequence[float]]
    """(K, F)"""


class Facts(NamedTuple):
    """What is told of one answer."""

    request_id: str
    answered_at: str
    user_id: str
    variant: str
    propensity: float | None
    orders: int
    rung: str
    source: Source
    computed_by: str | None
    model: Identity
    came: tuple[int, int]
    """Items of the store's history, and of the request's session."""
    used: Sequence[str]
    """Those of both that the model took, oldest first."""
    counted: Counted
    items: Sequence[str]
    """Shown ones, best first; as many are scores and domains."""
    scores: Sequence[float]
    domains: Sequence[str]
    stages: Sequence[StageTrace | Sequence[Any]]
    """Empty where none ran behind retrieval; then retrieval's scores and the ranker's are too."""
    retrieved: Sequence[float]
    ranked: Sequence[float]
    """The ranker's logits, where it ran."""
    ranker: RankerRead | None

    @classmethod
    def read(cls, line: bytes) -> "Facts":
        """Return the facts of an array of JSON."""
        said = cls(*from_json(line))
        return said._replace(
            model=Identity(*said.model), counted=Counted(*said.counted), ranker=said.ranker and RankerRead(*said.ranker)
        )


def facts(decision: Decision) -> Facts:
    """Return what is told of an answer, while its model is at hand."""
    answer, query, ranking = decision.answer, decision.query, decision.ranking
    model = answer.model
    names, domain = model.retriever.catalogue.item_id, model.retriever.catalogue.domain
    _, seen = seen_items(model.retriever, query)
    once = by_latest_event(seen)
    used = once[-model.manifest.max_history :] if answer.rung in {PERSONALISED, SESSION} else once[:0]
    staged = ranking if ranking is not None and ranking.stages else None
    return Facts(
        answer.request_id, decision.answered_at.isoformat(), answer.user_id, answer.variant, decision.propensity,
        decision.orders, answer.rung, decision.source, decision.computed_by, model.identity,
        (len(query.history), len(query.session)), _names(model, query, used),
        Counted(*model.counts(query.domain), int(np.count_nonzero(model.allowed(query.domain)[once]))),
        [names[item] for item in answer.items], answer.scores, [domain[item] for item in answer.items],
        *(((), (), (), None) if staged is None else _staged(model, query, staged)),
    )  # fmt: skip


def _names(model: ServedModel, query: Query, used: np.ndarray) -> list[str]:
    """Return the ids of the items that the model took. As a rule it took all, and they are at hand as they came."""
    came = [*query.history, *query.session]
    if len(used) == len(came):
        return came
    return [model.retriever.catalogue.item_id[item] for item in used.tolist()]


def _staged(model: ServedModel, query: Query, ranking: Ranking) -> tuple[Any, Any, Any, RankerRead | None]:
    """Return the last four facts of a list that stages behind retrieval have made."""
    stages = [(one.stage, one.came, one.gave, one.by) for one in ranking.stages]
    ranker = model.plan.ranker
    if not ranking.ranked or ranker is None:
        return stages, ranking.retrieved, (), None
    signature = ranker.signature
    read = RankerRead(
        signature.model, signature.version,
        signature.user_features, [query.features.get(name, NAN) for name in signature.user_features],
        signature.item_features, ranker.item_features[ranking.items].tolist(),
    )  # fmt: skip
    return stages, ranking.retrieved, ranking.ranked, read


def shown(told: Facts) -> bytes | None:
    """Return what was shown as JSON of `ShownList`, however long; None where nothing was, or nothing is logged."""
    if told.propensity is None or not told.items:
        return None
    return b'{"request_id":"%s","shown_at":"%s",%s' % (
        told.request_id.encode(), told.answered_at.encode(), shown_tail(told, told.propensity),
    )  # fmt: skip


def shown_tail(told: Facts, propensity: float) -> bytes:
    """Return that JSON from behind the request's id and the instant."""
    placed = zip(told.items, told.scores, told.domains, strict=True)
    said = {
        "user_id": told.user_id,
        "variant": told.variant,
        "model_version": told.model.version,
        "rung": told.rung,
        "propensity": propensity / told.orders,
        "items": [
            {"item_id": item_id, "rank": rank, "score": score, "domain": domain}
            for rank, (item_id, score, domain) in enumerate(placed, start=1)
        ],
    }
    return to_json(said)[1:]


def record(told: Facts) -> dict[str, Any]:
    """Return the record that these facts make, as plain values of `RequestRecord`, unchecked."""
    model, counted = told.model, told.counted
    made = {
        "request_id": told.request_id,
        "answered_at": told.answered_at,
        "user_id": told.user_id,
        "variant": told.variant,
        "propensity": told.propensity,
        "rung": told.rung,
        "retrieval": {
            "source": told.source,
            "model": model.model,
            "model_version": model.version,
            "kind": model.kind,
            "cut_id": model.cut_id,
            "as_of": model.as_of,
            "computed_by": told.computed_by,
        },
        "history": {
            "items": told.came[0],
            "session_items": told.came[1],
            "used_items": len(told.used),
            "latest_items": told.used[::-1],
        },
        "filtered": {
            "catalogue": model.n_items,
            "domain": model.n_items - counted.of_domain,
            "unavailable": counted.of_domain - counted.shown - sum(counted.hidden.values()),
            "rules": dict(counted.hidden),
            "seen": counted.seen,
            "eligible": counted.shown - counted.seen,
        },
        "graph": model.plan_version,
        "context": model.context,
    }
    shown: list[dict[str, Any]] = [
        {"rank": rank, "item_id": item_id, "score": score, "drivers": None}
        for rank, (item_id, score) in enumerate(zip(told.items, told.scores, strict=True), start=1)
    ]
    if told.stages:
        for item, score in zip(shown, _known(told.retrieved), strict=True):
            item["retrieval_score"] = score
        made["stages"] = [dict(zip(("stage", "came", "gave", "by"), one, strict=True)) for one in told.stages]
    made["items"] = shown
    if (read := told.ranker) is not None:
        for item, score, values in zip(shown, _known(told.ranked), read.item_values, strict=True):
            item["ranker_score"] = score
            item["features"] = dict(zip(read.item_features, _known(values), strict=True))
        made["ranker"] = {
            "model": read.model,
            "version": read.version,
            "user_features": dict(zip(read.user_features, _known(read.user_values), strict=True)),
        }
    return made


def _known(values: Sequence[float]) -> Sequence[float | None]:
    """Return numbers with None for NaN, which alone differs from itself, and makes every sum so."""
    total = sum(values)
    return values if total == total else [value if value == value else None for value in values]
