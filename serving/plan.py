"""A serving graph made to fit one model: rules as masks, the ranker at hand. Made once a model, read by every answer.

Shapes: I items, N candidates, F numbers that the ranker reads.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from recsys.bundle import SparseRows
from recsys.diversity import dpp, mmr
from recsys.fairness import with_least_exposure
from recsys.retriever import Retriever, by_latest_event, top_k
from serving.graph import (
    BOOST,
    DIVERSIFY,
    EXPOSE,
    LIMIT,
    PERSONALISED,
    PIN,
    RANK,
    SESSION,
    Boost,
    Expose,
    Graph,
    Hide,
    Limit,
    Pin,
    Which,
)
from serving.ranker import ItemFacts, ServedRanker

PRICE = "price"
SPEAKING = (PERSONALISED, SESSION)
"""Rungs on which something of the user is known: their candidates are ranked and made various."""

BEFORE_A_LIMIT = 64
"""Places that are made various where a limit may need more items than are shown: so many for every length, so that a
short list is the beginning of a long one."""


@dataclass(frozen=True)
class StageTrace:
    """What a stage did to one list."""

    stage: str
    came: int
    gave: int
    by: Mapping[str, int]
    """Rule or cause → items that it moved."""


class Plan:
    """What the graph means for this model."""

    def __init__(self, graph: Graph, retriever: Retriever, facts: ItemFacts, ranker: ServedRanker | None = None):
        self.graph, self.facts = graph, facts
        self.ranker = ranker if RANK in graph.stages and graph.rank.weight > 0 else None
        self._retriever = retriever
        self.hidden: dict[str, np.ndarray] = {}  # rule → bool (I,), each item under its first rule
        left = np.ones(retriever.n_items, bool)
        for rule in graph.rules:
            if isinstance(rule, Hide):
                self.hidden[rule.name] = self._mask(rule.items) & left
                left &= ~self.hidden[rule.name]
        self._boosts = [(rule, self._mask(rule.items)) for rule in graph.rules if isinstance(rule, Boost)]
        self._exposed = [(rule, self._mask(rule.items)) for rule in graph.rules if isinstance(rule, Expose)]
        self._limits = [(rule, self._mask(rule.items)) for rule in graph.rules if isinstance(rule, Limit)]
        self._pins = sorted((rule for rule in graph.rules if isinstance(rule, Pin)), key=lambda rule: rule.rank)
        self._pinned = [(rule, retriever.index[rule.item_id]) for rule in self._pins if rule.item_id in retriever.index]

    @cached_property
    def version(self) -> str:
        """What tells lists of one plan from those of another, for one model: graph, ranker, and the items' facts."""
        return f"{self.graph.digest}.{self.ranker.version if self.ranker else ''}.{self.facts.digest}"

    def _mask(self, which: Which) -> np.ndarray:
        """Return which items a rule is about. bool (I,)"""
        catalogue, n_items = self._retriever.catalogue, self._retriever.n_items
        mask = np.ones(n_items, bool)
        if which.item_ids is not None:
            named = np.zeros(n_items, bool)
            named[self._retriever.indices(which.item_ids)] = True
            mask &= named
        if which.domain is not None:
            mask &= np.array(catalogue.domain) == which.domain
        if which.categories is not None:
            wanted = set(which.categories)
            mask &= np.array([not wanted.isdisjoint(categories) for categories in catalogue.categories], bool)
        if which.beyond_most_used is not None:
            most = np.argsort(-self._retriever.popularity, kind="stable")[: round(which.beyond_most_used * n_items)]
            mask[most] = False
        price = self.facts.column(PRICE, n_items)
        published = np.array([np.nan if year is None else year for year in catalogue.published_year], float)
        age = int(self._retriever.manifest.as_of[:4]) - published
        for values, low, high in (
            (price, which.min_price, which.max_price),
            (age, which.min_age_years, which.max_age_years),
        ):
            if low is not None:
                mask &= values >= low  # NaN is neither
            if high is not None:
                mask &= values <= high
        return mask

    def reorders(self, rung: str) -> bool:
        """Whether any stage behind retrieval has work to do on this rung."""
        return self._chooses(rung) or bool(self._pinned)

    def _chooses(self, rung: str) -> bool:
        if rung in SPEAKING and (self.ranker is not None or self.graph.diversify.method != "none"):
            return True
        return bool(self._boosts or self._exposed or self._limits)

    def wanted(self, rung: str, k: int) -> int:
        """Return how many candidates a list of this length needs."""
        return max(k, self.graph.retrieve.candidates) if self._chooses(rung) else k + len(self._pinned)

    @cached_property
    def _likeness(self) -> np.ndarray:
        """Vectors by which items are alike: the model's, or their categories. (I, D)"""
        vectors = self._retriever.item_vectors
        if vectors is not None and not isinstance(vectors, SparseRows):
            return vectors
        categories = self._retriever.catalogue.categories
        names = {name: place for place, name in enumerate(sorted({name for one in categories for name in one}))}
        found = np.zeros((len(categories), len(names)), np.float32)
        for row, one in enumerate(categories):
            found[row, [names[name] for name in one]] = 1
        return found

    @cached_property
    def _norms(self) -> np.ndarray:
        return np.linalg.norm(self._retriever.item_vectors, axis=1) + 1e-12  # (I,)

    def knows_neighbours(self) -> bool:
        """Whether a session's neighbours can be told."""
        return isinstance(self._retriever.item_vectors, np.ndarray)

    def neighbours(
        self, session: np.ndarray, k: int, left_out: Sequence[np.ndarray | slice]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the items most like those of a session, the later ones weighing more: the sum of cosines, each
        halved for every place back. Best first, with their scores."""
        seen = by_latest_event(session)
        weights = 0.5 ** np.arange(len(seen))[::-1] / self._norms[seen]  # (L,)
        scores = (self._retriever.item_vectors @ (weights @ self._retriever.item_vectors[seen])) / self._norms
        for items in left_out:
            scores[items] = -np.inf
        best, values = top_k(scores[None].astype(np.float32), k)
        shown = best[0] >= 0
        return best[0, shown], values[0, shown]

    def run(
        self, rung: str, k: int, user: Mapping[str, float], items: np.ndarray, scores: np.ndarray, allowed: "Allowed"
    ) -> "Listed":
        """Take candidates, best first, through the stages.

        Args:
            user: the user's online features, by name.
            items: candidates (N,), indices.
            scores: retrieval's (N,).
            allowed: says whether an item that is no candidate may stand in this list.
        """
        listed = Listed(items, scores, scores, None, [StageTrace("retrieve", self._retriever.n_items, len(items), {})])
        speaks = rung in SPEAKING and len(items) > 0
        for stage in self.graph.stages:
            if stage == RANK and self.ranker is not None and speaks:
                listed = self._ranked(listed, user)
            elif stage == BOOST and self._boosts and len(items):
                listed = self._boosted(listed)
            elif stage == DIVERSIFY and self.graph.diversify.method != "none" and speaks:
                listed = self._varied(listed, k)
            elif stage == EXPOSE and self._exposed and len(listed.items):
                listed = self._exposing(listed)
            elif stage == LIMIT and self._limits:
                listed = self._limited(listed)
            elif stage == PIN and self._pinned:
                listed = self._with_pins(listed, k, allowed)
        return listed

    def _ranked(self, listed: "Listed", user: Mapping[str, float]) -> "Listed":
        assert self.ranker is not None
        said = self.ranker.scores(user, listed.items)
        weight = self.graph.rank.weight
        both = (1 - weight) * _standardised(listed.scores) + weight * _standardised(said)
        order = np.lexsort((listed.items, -both))
        moved = int(np.count_nonzero(order != _places(len(order))))
        return listed.taken(order, both, RANK, {"ranker": moved}, said)

    def _boosted(self, listed: "Listed") -> "Listed":
        spread = float(listed.scores.std()) or 1.0
        moved, scores = {}, listed.scores.astype(float)
        for rule, mask in self._boosts:
            hit = mask[listed.items]
            scores = scores + rule.by * spread * hit
            moved[rule.name] = int(hit.sum())
        return listed.taken(np.lexsort((listed.items, -scores)), scores, BOOST, moved)

    def _varied(self, listed: "Listed", k: int) -> "Listed":
        said = self.graph.diversify
        choose = mmr if said.method == "mmr" else dpp
        enough = max(k, BEFORE_A_LIMIT) if self._limits or self._exposed else k
        chosen = choose(listed.scores, self._likeness[listed.items], enough, said.trade_off)
        rest = np.setdiff1d(np.arange(len(listed.items)), chosen)
        moved = int(np.count_nonzero(chosen != np.arange(len(chosen))))
        return listed.taken(np.concatenate([chosen, rest]), listed.scores, DIVERSIFY, {said.method: moved})

    def _exposing(self, listed: "Listed") -> "Listed":
        moved: dict[str, int] = {}
        order = np.arange(len(listed.items))
        for rule, mask in self._exposed:
            first = with_least_exposure(-np.arange(len(order)), mask[listed.items[order]], rule.within, rule.least)
            moved[rule.name] = int(np.count_nonzero(first != np.arange(len(first))))
            order = order[np.append(first, np.setdiff1d(np.arange(len(order)), first))]
        return listed.taken(order, listed.scores, EXPOSE, moved)

    def _limited(self, listed: "Listed") -> "Listed":
        moved: dict[str, int] = {}
        order = list(range(len(listed.items)))
        for rule, mask in self._limits:
            hit = mask[listed.items]
            first, behind, left = [], [], rule.most
            for position in order:
                if len(first) >= rule.within or not hit[position] or left > 0:
                    left -= bool(hit[position])
                    first.append(position)
                else:
                    behind.append(position)
            if len(first) <= rule.within:  # too few others: the places stay empty rather than the limit broken
                moved[rule.name], order = len(behind), first
            else:
                moved[rule.name] = len(behind)
                order = [*first[: rule.within], *sorted([*first[rule.within :], *behind], key=order.index)]
        return listed.taken(np.array(order, np.int64), listed.scores, LIMIT, moved)

    def _with_pins(self, listed: "Listed", k: int, allowed: "Allowed") -> "Listed":
        items, scores, retrieved = listed.items.tolist(), listed.scores.tolist(), listed.retrieved.tolist()
        ranked = None if listed.ranked is None else listed.ranked.tolist()
        moved: dict[str, int] = {}
        for rule, item in self._pinned:
            if not allowed(item):
                continue
            moved[rule.name] = int(rule.rank <= k)
            own = items.index(item) if item in items else None
            found = (np.nan, np.nan) if own is None else (retrieved[own], ranked[own] if ranked else np.nan)
            for values in (items, scores, retrieved, *((ranked,) if ranked is not None else ())):
                if own is not None:
                    del values[own]
            place = min(rule.rank - 1, len(items))
            score = scores[min(place, len(scores) - 1)] if scores else 0.0  # that of whose place it takes
            items.insert(place, item)
            scores.insert(place, score)
            retrieved.insert(place, found[0])
            if ranked is not None:
                ranked.insert(place, found[1])
        made = Listed(
            np.array(items, np.int64), np.array(scores), np.array(retrieved),
            None if ranked is None else np.array(ranked), listed.stages,
        )  # fmt: skip
        return made.taken(np.arange(len(items)), made.scores, PIN, moved, came=len(listed.items))


class Allowed:
    """Whether an item may stand in a list: asked for pinned items only."""

    def __init__(self, mask: np.ndarray, seen: np.ndarray):
        self._mask, self._seen = mask, seen

    def __call__(self, item: int) -> bool:
        return bool(self._mask[item]) and item not in self._seen


@dataclass(frozen=True)
class Listed:
    """A list on its way through the stages. N items each."""

    items: np.ndarray
    scores: np.ndarray
    """What orders it; after a re-ranking for variety and behind a limit they need not descend."""
    retrieved: np.ndarray
    """Retrieval's scores; NaN for a pinned item that is no candidate."""
    ranked: np.ndarray | None
    """What the ranker said, as a logit."""
    stages: list[StageTrace]

    def taken(
        self,
        order: np.ndarray,
        scores: np.ndarray,
        stage: str,
        by: Mapping[str, int],
        ranked: np.ndarray | None = None,
        came: int | None = None,
    ) -> "Listed":
        """Return the list in this order, with these scores (in the old order), and one more stage told."""
        said = self.ranked if ranked is None else ranked
        told = StageTrace(stage, len(self.items) if came is None else came, len(order), by)
        return Listed(
            self.items.take(order), scores.take(order), self.retrieved.take(order),
            None if said is None else said.take(order),
            [*self.stages, told],
        )  # fmt: skip


def _standardised(values: np.ndarray) -> np.ndarray:
    """Return values with mean 0 and deviation 1; zeros where all are the same."""
    centred = values.astype(np.float64)
    n = max(1, len(centred))
    centred -= np.add.reduce(centred) / n
    spread = math.sqrt(centred @ centred / n)
    if spread > 0:
        centred /= spread
    else:
        centred[:] = 0
    return centred


@lru_cache(1024)
def _places(n: int) -> np.ndarray:
    places = np.arange(n)
    places.flags.writeable = False
    return places
