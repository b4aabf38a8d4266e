"""From a request to an answer: reads the users, asks the core, names the items, hands on what was shown and why."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import uuid4

import numpy as np
from pydantic import ValidationError

from recsys.artifacts import EXPERIMENT_SALT
from recsys.assignment import assign
from recsys.errors import ServiceUnavailable
from recsys.user_state import UserState
from serving.cache import CachedList
from serving.contracts import Answer, Item, SimilarItems, Wanted, WantedList
from serving.doors import Refused
from serving.explanation import Decision, RequestRecord, with_drivers
from serving.metrics import Metrics
from serving.model import ServedModel
from serving.ports import EventLog, ModelSource, RequestRecords, Shown, UserStateStore
from serving.recommend import PERSONALISED, VARIANT_POPULAR, Query, Ranking, recommend

UNKNOWN_USER = UserState(history=[], features={}, version=0)

SESSION_USER = "session:{}"
"""Whom the answer to a session is for, in the log and in the experiment."""

NO_EXPERIMENT = "none"
"""Variant of an answer whose unit has no id: it takes no part in the experiment."""


class Answering:
    """The one way to an answer, behind every door."""

    def __init__(
        self,
        models: ModelSource,
        users: UserStateStore,
        log: EventLog,
        records: RequestRecords,
        weights: Mapping[str, float],
        metrics: Metrics,
    ):
        self._models, self._users, self._log, self._records = models, users, log, records
        self._weights, self._metrics = dict(weights), metrics

    def model(self) -> ServedModel:
        """Return the model that answers now.

        Raises:
            ServiceUnavailable: none was deployed yet.
        """
        if self._models.current is None:
            raise ServiceUnavailable("model", "none is loaded", "Deploy one; the platform's pipeline does")
        return self._models.current

    def variant(self, user_id: str) -> str:
        """Return the variant of the running experiment that this user gets."""
        return assign(user_id, EXPERIMENT_SALT, self._weights)

    def is_personal(self, variant: str) -> bool:
        """Return whether this variant's lists may use what is known of the user."""
        return variant != VARIANT_POPULAR

    async def answer(self, user_id: str, wanted: Wanted, instant: datetime) -> Answer:
        """Return the list for this user.

        An unreachable store costs the personal rungs, not the answer.

        Raises:
            ServiceUnavailable: no model was deployed yet.
        """
        (answer,) = await self.answer_all([(user_id, wanted)], instant)
        return answer

    async def answer_all(self, asked: Sequence[tuple[str, Wanted]], instant: datetime) -> list[Answer]:
        """Return the lists for these users, in their order: one round trip to the store, one call of the core.

        Raises:
            ServiceUnavailable: no model was deployed yet.
        """
        model = self.model()
        try:
            states = await self._users.read([(user_id, _list_domain(model, wanted)) for user_id, wanted in asked])
        except ServiceUnavailable:
            states = [(UNKNOWN_USER, None)] * len(asked)
        variants = [self.variant(user_id) for user_id, _ in asked]
        queries, rankings = [], []
        for (_, wanted), (state, cached), variant in zip(asked, states, variants, strict=True):
            personal = self.is_personal(variant)
            queries.append(Query(wanted.k, state.history, state.features, wanted.items, wanted.domain, personal))
            may_be_cached = personal and state.history and not wanted.items
            rankings.append(self._from_cache(model, cached, state, wanted) if may_be_cached else None)
        open_queries = [query for query, ranking in zip(queries, rankings, strict=True) if ranking is None]
        if len(open_queries) > 1:  # many take long enough to let others be answered meanwhile
            scored = iter(await asyncio.to_thread(recommend, model, open_queries))
        else:
            scored = iter(recommend(model, open_queries) if open_queries else [])
        return [
            self._shown(
                model, uuid4().hex, user_id, variant, query, ranking or next(scored), instant, ranking is not None
            )
            for (user_id, _), variant, query, ranking in zip(asked, variants, queries, rankings, strict=True)
        ]

    def answer_session(self, session_id: str | None, wanted: Wanted, instant: datetime) -> Answer:
        """Return the list for a session of nobody in particular; no store is asked.

        With an id the session is the experiment's unit, as a user is elsewhere. Without one nothing could be told of
        it later: it gets the model, and neither a variant nor impressions.

        Raises:
            ServiceUnavailable: no model was deployed yet.
        """
        model, request_id = self.model(), uuid4().hex
        user_id = SESSION_USER.format(session_id or request_id)
        variant = self.variant(user_id) if session_id else NO_EXPERIMENT
        query = Query(wanted.k, session=wanted.items, domain=wanted.domain, personal=self.is_personal(variant))
        (ranking,) = recommend(model, [query])
        return self._shown(model, request_id, user_id, variant, query, ranking, instant)

    def similar(self, item_id: str, wanted: WantedList) -> SimilarItems:
        """Return the available items most like this one, best first, without it.

        Raises:
            ServiceUnavailable: no model was deployed yet.
            Refused: the model does not know the item.
        """
        model = self.model()
        item = model.retriever.index.get(item_id)
        if item is None:
            raise Refused(404, "unknown_item", f"item_id: the model {model.version} does not know {item_id!r}")
        allowed = model.allowed(wanted.domain)
        enough = min(wanted.k + int((~allowed).sum()), model.retriever.n_items)  # however many are left out
        best, scores = model.retriever.similar_items(item, enough)
        shown = np.flatnonzero((best >= 0) & allowed[best])[: wanted.k]
        return SimilarItems(
            item_id=item_id,
            model=model.manifest.model,
            model_version=model.version,
            items=named(model, best[shown].tolist(), scores[shown].tolist()),
        )

    async def explanation(self, request_id: str) -> RequestRecord | None:
        """Return what the answer with this id was made of, or None where there is no record of it.

        Raises:
            ServiceUnavailable: the store does not answer.
        """
        record, model = await self._records.read(request_id), self._models.current
        return record if record is None or model is None else with_drivers(record, model)

    def _shown(
        self,
        model: ServedModel,
        request_id: str,
        user_id: str,
        variant: str,
        query: Query,
        ranking: Ranking,
        instant: datetime,
        precomputed: bool = False,
    ) -> Answer:
        """Return the answer, its impressions and its record on their way."""
        answer = Answer(
            request_id=request_id,
            user_id=user_id,
            variant=variant,
            model=model.manifest.model,
            model_version=model.version,
            rung=ranking.rung,
            items=named(model, ranking.items, ranking.scores),
        )
        propensity = None if variant == NO_EXPERIMENT else self._weights[variant]
        if propensity is not None:
            self._log.show(Shown(answer, propensity, instant))
        source = "precomputed_list" if precomputed else "model"
        self._records.keep(Decision(answer, model, query, source, propensity, instant))
        return answer

    def _from_cache(self, model: ServedModel, cached: str | None, state: UserState, wanted: Wanted) -> Ranking | None:
        """Return the precomputed ranking if it is exactly what the core would answer now, else None."""
        result, ranking = "absent", None
        if cached is not None:
            try:
                stored = CachedList.model_validate_json(cached)
            except ValidationError:
                result = "refused"
            else:
                items = model.retriever.indices([item for item, _ in stored.items[: wanted.k]])
                same = stored.model_version == model.version and stored.user_version == state.version
                if same and len(items) == wanted.k and model.allowed(wanted.domain)[items].all():
                    scores = [score for _, score in stored.items[: wanted.k]]
                    result, ranking = "hit", Ranking(PERSONALISED, items.tolist(), scores)
                else:
                    result = "stale"
        self._metrics.cached.labels(result).inc()
        return ranking


def _list_domain(model: ServedModel, wanted: Wanted) -> str | None:
    return None if model.domains == (wanted.domain,) else wanted.domain  # one domain: its list is everybody's


def named(model: ServedModel, items: Sequence[int], scores: Sequence[float]) -> list[Item]:
    """Return these items of the catalogue as a list shows them, ranked from 1."""
    catalogue = model.retriever.catalogue
    return [
        Item(
            rank=rank,
            item_id=catalogue.item_id[item],
            title=catalogue.title[item],
            domain=catalogue.domain[item],
            score=score,
            categories=catalogue.categories[item],
        )
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), start=1)
    ]
