"""The pure core of an answer: candidates → drop seen and unavailable → rank → ties by id → rung. No I/O, no clock.

REST, the clouds' doors, the batch and the tests all go through `recommend`; one request is a block of one.
Shapes: B queries, I items, F user features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from recsys.errors import UnusableInput
from recsys.retriever import Retriever
from serving.model import ServedModel

PERSONALISED, SESSION, SEGMENT_POPULAR, POPULAR = "personalised", "session", "segment_popular", "popular"
RUNGS = (PERSONALISED, SESSION, SEGMENT_POPULAR, POPULAR)
"""The fallback ladder, best first."""

NOTHING = np.empty(0, np.int64)

WARM_UP_HISTORY = 3


@dataclass(frozen=True)
class Query:
    """What one answer depends on, beside the model."""

    k: int
    history: Sequence[str] = ()
    """Items of the user, oldest first, as the store knows them; empty for an unknown user."""
    features: Mapping[str, float] = field(default_factory=dict)
    session: Sequence[str] = ()
    """Items that the caller names as the latest, oldest first."""
    domain: str | None = None
    personal: bool = True
    """False answers with popularity although more is known."""


@dataclass(frozen=True)
class Ranking:
    """Best first; at most k, fewer where fewer items are eligible."""

    rung: str
    items: list[int]
    """Indices into the catalogue."""
    scores: list[float]


def recommend(model: ServedModel, queries: Sequence[Query]) -> list[Ranking]:
    """Return the ranking of each query.

    Items that the model does not know are ignored. No item of the history or the session is shown again, on any
    rung. A user with history is personalised, the session's items counting as the latest; without history the session
    alone speaks; without either, or with a model that knows only popularity, the rung says so.
    """
    retriever = model.retriever
    bases = [seen_items(retriever, query) for query in queries]
    speaking = [
        seen if query.personal and retriever.manifest.kind != "popularity" else NOTHING
        for query, (_, seen) in zip(queries, bases, strict=True)
    ]
    left_out = []
    for query, (_, seen) in zip(queries, bases, strict=True):
        barred = model.barred(query.domain)
        left_out.append([seen] if barred is None else [barred, seen])
    best = retriever.best(speaking, _features(retriever, queries), [query.k for query in queries], left_out)
    rankings = []
    for query, (known, _), basis, (items, scores) in zip(queries, bases, speaking, best, strict=True):
        rung = _rung(query, has_history=known, speaks=len(basis) > 0)
        rankings.append(Ranking(rung, items.tolist(), scores.tolist()))
    return rankings


def in_random_order(ranking: Ranking, request_id: str) -> Ranking:
    """Return the same items in an order that the request's id alone decides, each order as likely as any other: what is
    clicked at a rank then says nothing about who put it there (a randomised log, for position bias and off-policy
    evaluation). Scores stay with their items."""
    digests = [blake2b(b"%d" % item, key=request_id.encode()[:64], digest_size=8).digest() for item in ranking.items]
    order = sorted(range(len(digests)), key=digests.__getitem__)
    return Ranking(ranking.rung, [ranking.items[i] for i in order], [ranking.scores[i] for i in order])


def seen_items(retriever: Retriever, query: Query) -> tuple[bool, np.ndarray]:
    """Return whether the store's history holds known items, and all items seen: oldest first, the session's last."""
    history = retriever.indices(query.history)
    return len(history) > 0, np.concatenate([history, retriever.indices(query.session)])


def _rung(query: Query, has_history: bool, speaks: bool) -> str:
    if speaks:
        return PERSONALISED if has_history else SESSION
    return SEGMENT_POPULAR if query.domain else POPULAR


def _features(retriever: Retriever, queries: Sequence[Query]) -> np.ndarray | None:
    names = retriever.manifest.user_features
    if not names:
        return None
    return np.array([[query.features.get(name, np.nan) for name in names] for query in queries])  # (B, F)


def warm(model: ServedModel) -> None:
    """Answer once, so that the first request pays nothing extra.

    Raises:
        UnusableInput: the model gives no finite score to a user with a history.
    """
    history = model.retriever.catalogue.item_id[:WARM_UP_HISTORY]
    (ranking,) = recommend(model, [Query(k=WARM_UP_HISTORY, history=history)])
    if model.retriever.n_items > len(history) and model.allowed(None).any() and not ranking.items:
        raise UnusableInput("model", model.version, "It recommends nothing to a user with a history; train again")
