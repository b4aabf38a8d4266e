"""The pure core of an answer: rung → candidates without what was seen or may not be shown → the graph's stages. No I/O,
no clock.

REST, GraphQL, the clouds' doors, the batch and the tests all go through `recommend`; one request is a block of one.
Shapes: B queries, I items, F user features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np

from recsys.errors import UnusableInput
from recsys.interleaving import team_draft, team_of
from recsys.retriever import Retriever
from serving.graph import PERSONALISED as PERSONALISED
from serving.graph import POPULAR as POPULAR
from serving.graph import RUNGS as RUNGS
from serving.graph import SEGMENT_POPULAR, SESSION
from serving.model import ServedModel
from serving.plan import Allowed, StageTrace

NEIGHBOURS = "neighbours"
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
    _seen: list[tuple[Retriever, tuple[bool, np.ndarray]]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )
    """What `seen_items` has found, since the record of an answer asks again."""


@dataclass(frozen=True)
class Ranking:
    """Best first; at most k, fewer where fewer items are eligible."""

    rung: str
    items: list[int]
    """Indices into the catalogue."""
    scores: list[float]
    retrieved: list[float] = field(default_factory=list)
    """Retrieval's own scores, where later stages gave others; NaN for a pinned item that is no candidate."""
    ranked: list[float] = field(default_factory=list)
    """The ranker's logits, where it ran."""
    stages: Sequence[StageTrace] = ()
    """What each stage did; empty where none ran behind retrieval."""

    def first(self, k: int) -> "Ranking":
        """Return the first k."""
        return self.taken(range(min(k, len(self.items))))

    def taken(self, order: Sequence[int]) -> "Ranking":
        """Return these places of the list, in this order."""
        columns = (self.items, self.scores, self.retrieved, self.ranked)
        items, scores, retrieved, ranked = ([one[at] for at in order] if one else [] for one in columns)
        return Ranking(self.rung, items, scores, retrieved, ranked, self.stages)


def recommend(model: ServedModel, queries: Sequence[Query]) -> list[Ranking]:
    """Return the ranking of each query.

    Items that the model does not know are ignored. No item of the history or the session is shown again, on any
    rung. The graph's ladder says who speaks: the history, the session's items counting as the latest; without history
    the session alone; without either, or with a model that knows only popularity, the rung says so. Then the graph's
    stages run.
    """
    retriever, plan = model.retriever, model.plan
    bases = [seen_items(retriever, query) for query in queries]
    rungs = [_rung(model, query, known, seen) for query, (known, seen) in zip(queries, bases, strict=True)]
    speaking, left_out, lengths = [], [], []
    for query, rung, (known, seen) in zip(queries, rungs, bases, strict=True):
        speaking.append(_speaking(plan.graph.session.by, retriever, query, rung, known, seen))
        barred = model.barred(query.domain)
        left_out.append([seen] if barred is None else [barred, seen])
        lengths.append(plan.wanted(rung, query.k))
    best = retriever.best(speaking, _features(retriever, queries), lengths, left_out)
    rankings = []
    for row, (query, rung, (_, seen)) in enumerate(zip(queries, rungs, bases, strict=True)):
        items, scores = best[row]
        if rung == SESSION and plan.graph.session.by == NEIGHBOURS:
            items, scores = plan.neighbours(retriever.indices(query.session), lengths[row], left_out[row])
        if not plan.reorders(rung):
            rankings.append(Ranking(rung, items.tolist(), scores.tolist()))
            continue
        listed = plan.run(rung, query.k, query.features, items, scores, Allowed(model.allowed(query.domain), seen))
        ranked = [] if listed.ranked is None else listed.ranked[: query.k].tolist()
        rankings.append(
            Ranking(
                rung, listed.items[: query.k].tolist(), listed.scores[: query.k].tolist(),
                listed.retrieved[: query.k].tolist(), ranked, listed.stages,
            )
        )  # fmt: skip
    return rankings


def in_random_order(ranking: Ranking, request_id: str) -> Ranking:
    """Return the same items in an order that the request's id alone decides, each order as likely as any other: what is
    clicked at a rank then says nothing about who put it there (a randomised log, for position bias and off-policy
    evaluation). Scores stay with their items."""
    digests = [blake2b(b"%d" % item, key=request_id.encode()[:64], digest_size=8).digest() for item in ranking.items]
    return ranking.taken(sorted(range(len(digests)), key=digests.__getitem__))


def interleaved(model: ServedModel, query: Query, ranking: Ranking, request_id: str) -> Ranking:
    """Return the model's list and everybody's in one, by team draft; an item keeps the score of who put it there."""
    (popular,) = recommend(model, [replace(query, personal=False)])
    drafted = team_draft(ranking.items, popular.items, query.k, request_id)
    scores = {
        "a": dict(zip(ranking.items, ranking.scores, strict=True)),
        "b": dict(zip(popular.items, popular.scores, strict=True)),
    }
    by_rank = [scores[team_of(rank, request_id)][item] for rank, item in enumerate(drafted, start=1)]
    return Ranking(ranking.rung, drafted, by_rank)


def seen_items(retriever: Retriever, query: Query) -> tuple[bool, np.ndarray]:
    """Return whether the store's history holds known items, and all items seen: oldest first, the session's last."""
    for asked, found in query._seen:
        if asked is retriever:
            return found
    history = retriever.indices(query.history)
    found = len(history) > 0, np.concatenate([history, retriever.indices(query.session)])
    query._seen.append((retriever, found))
    return found


def _rung(model: ServedModel, query: Query, has_history: bool, seen: np.ndarray) -> str:
    """Return the first rung of the ladder that can speak."""
    personal = query.personal and model.manifest.kind != "popularity"
    by_model = model.plan.graph.session.by != NEIGHBOURS
    in_session = personal if by_model else query.personal and model.plan.knows_neighbours()
    for rung in model.plan.graph.ladder:
        if rung == PERSONALISED and personal and has_history:
            return rung
        if rung == SESSION and in_session and len(seen) and len(model.retriever.indices(query.session)):
            return rung
        if rung == SEGMENT_POPULAR and query.domain:
            return rung
    return POPULAR


def _speaking(
    session_by: str, retriever: Retriever, query: Query, rung: str, has_history: bool, seen: np.ndarray
) -> np.ndarray:
    """Return the items that the model reads for this rung, oldest first; none where popularity or neighbours speak."""
    if rung == PERSONALISED:
        return seen
    if rung == SESSION and session_by != NEIGHBOURS:
        return retriever.indices(query.session) if has_history else seen
    return NOTHING


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
