"""From a request to an answer: reads the users, asks the core, names the items, hands on what was shown and why."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from secrets import token_hex
from time import perf_counter

import numpy as np

from recsys.artifacts import ALIAS_CHAMPION
from recsys.errors import ServiceUnavailable
from recsys.experiments import INTERLEAVED, POPULAR, SHUFFLE
from recsys.split import Assignment
from recsys.user_state import UserState
from serving.cache import CACHED_LENGTH
from serving.contracts import SimilarItems, Wanted, WantedList
from serving.doors import Refused
from serving.explanation import RequestRecord, with_drivers
from serving.held import Given, HeldAnswers
from serving.left_behind import Decision, Source
from serving.made import MadeAnswer, named
from serving.metrics import Metrics
from serving.model import ServedModel, answer_faults
from serving.ports import (
    Candidates,
    Lists,
    ModelSource,
    RequestRecords,
    Shadow,
    Splits,
    UserStateStore,
)
from serving.recommend import Query, Ranking, in_random_order, interleaved, recommend
from serving.rollout import Candidate
from serving.shadow import ShadowLine
from serving.stored_lists import StoredLists, list_domain

log = logging.getLogger(__name__)

UNKNOWN_USER = UserState(history=[], features={}, version=0)

SESSION_USER = "session:{}"
"""Whom the answer to a session is for, in the log and in the experiment."""

NO_EXPERIMENT = Assignment("none", ALIAS_CHAMPION, propensity=0.0)
"""Of an answer whose unit has no id: it takes no part in any experiment."""

REQUEST_ID_BYTES = 16
"""By chance alone."""

TOGETHER = 8
"""Requests that are scored in the loop: they take less than handing them to a thread would."""

Gathered = tuple[str, Wanted, datetime, asyncio.Future[MadeAnswer]]
"""A request that waits for its group: user, what is wanted, instant, and where the answer is awaited."""


class Answering:
    """The one way to an answer, behind every door."""

    def __init__(
        self,
        models: ModelSource,
        users: UserStateStore,
        records: RequestRecords,
        splits: Splits,
        metrics: Metrics,
        lists: Lists | None = None,
        list_seconds: int = 0,
        candidates: Candidates | None = None,
        shadow: Shadow | None = None,
        held: HeldAnswers | None = None,
    ):
        """Wire the parts; `lists` takes computed lists for `list_seconds` at most; 0: none, nor are answers held."""
        self._held = held if list_seconds else None
        self._candidates, self._shadow = candidates, shadow
        self._models, self._users, self._records = models, users, records
        self._splits, self._metrics = splits, metrics
        self._stored = StoredLists(metrics, lists if list_seconds else None, list_seconds)
        self._gathered: list[Gathered] = []
        self._tasks: set[asyncio.Task[list[MadeAnswer]]] = set()

    @property
    def is_ready(self) -> bool:
        """Whether a model was deployed."""
        return self._models.current is not None

    @property
    def candidate(self) -> Candidate | None:
        """The version beside the champion, if there is one."""
        return self._candidates.current if self._candidates is not None else None

    def model(self) -> ServedModel:
        """Return the champion, the model that answers now.

        Raises:
            ServiceUnavailable: none was deployed yet.
        """
        if self._models.current is None:
            raise ServiceUnavailable("model", "none is loaded", "Deploy one; the platform's pipeline does")
        return self._models.current

    async def answer(self, user_id: str, wanted: Wanted, instant: datetime) -> MadeAnswer:
        """Return the list for this user.

        An unreachable store costs the personal rungs, not the answer.

        Raises:
            ServiceUnavailable: no model was deployed yet.
        """
        self.model()
        answered: asyncio.Future[MadeAnswer] = asyncio.get_running_loop().create_future()
        self._gathered.append((user_id, wanted, instant, answered))
        if len(self._gathered) == 1:  # the first of this turn of the loop: what arrives in it shares a round trip
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                answered.cancel()
                self._start()
                raise
            if len(self._gathered) == 1:  # alone, as a rule: neither a task nor a turn of the loop more
                self._gathered.clear()
                return (await self._answer([(user_id, wanted, instant)]))[0]
            self._start()
        return await answered

    async def held(self, user_id: str, wanted: Wanted, instant: datetime) -> Given | None:
        """Return this user's answer as text if it is at hand and would be the same, else None."""
        model = self._models.current
        if self._held is None or model is None or self.candidate is not None:
            return None
        model = model.within(wanted.device, wanted.location, instant)
        if not self._held.has(user_id, wanted, model.context):
            return None
        assignment = self._splits.current.of(user_id, instant.date())
        return await self._held.give(user_id, wanted, model, assignment, token_hex(REQUEST_ID_BYTES), instant)

    def _start(self) -> None:
        """Answer what was gathered, in groups that do not keep the loop for long."""
        gathered, self._gathered = self._gathered, []
        for start in range(0, len(gathered), TOGETHER):
            self._begin(gathered[start : start + TOGETHER])

    def _begin(self, group: Sequence[Gathered]) -> None:
        task: asyncio.Task[list[MadeAnswer]] = asyncio.create_task(self._answer([one[:3] for one in group]))
        self._tasks.add(task)  # the loop alone would let it go
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(partial(self._end, group))

    def _end(self, group: Sequence[Gathered], task: asyncio.Task[list[MadeAnswer]]) -> None:
        """Hand each its answer; what one request breaks, the others of its group do not pay for."""
        waiting = [(place, one[-1]) for place, one in enumerate(group) if not one[-1].done()]  # a client may have gone
        if task.cancelled():
            for _, answered in waiting:
                answered.cancel()
        elif (error := task.exception()) is None:
            for place, answered in waiting:
                answered.set_result(task.result()[place])
        elif len(group) > 1:
            for one in group:
                self._begin([one])
        else:
            for _, answered in waiting:
                answered.set_exception(error)

    async def answer_all(self, asked: Sequence[tuple[str, Wanted]], instant: datetime) -> list[MadeAnswer]:
        """Return the lists for these users, in their order: one round trip to the store, one call of the core.

        Raises:
            ServiceUnavailable: no model was deployed yet.
        """
        return await self._answer([(user_id, wanted, instant) for user_id, wanted in asked])

    async def _answer(self, asked: Sequence[tuple[str, Wanted, datetime]]) -> list[MadeAnswer]:
        champion, candidate = self.model(), self.candidate
        here = [champion.within(wanted.device, wanted.location, instant) for _, wanted, instant in asked]
        try:
            states = await self._users.read(
                [(one[0], list_domain(model, one[1].domain)) for one, model in zip(asked, here, strict=True)]
            )
        except ServiceUnavailable:
            states = [(UNKNOWN_USER, None)] * len(asked)
        split = self._splits.current
        assigned = [split.of(user_id, instant.date()) for user_id, _, instant in asked]
        models, queries, found = [], [], []
        for (user_id, wanted, instant), (state, cached), assignment, model in zip(
            asked, states, assigned, here, strict=True
        ):
            if candidate is not None and candidate.takes(user_id, assignment):
                model = candidate.model.within(wanted.device, wanted.location, instant)
            models.append(model)
            personal = assignment.policy != POPULAR
            queries.append(Query(wanted.k, state.history, state.features, wanted.items, wanted.domain, personal))
            may_be_stored = personal and state.history and not wanted.items
            found.append(self._stored.found(models[-1], cached, state, wanted, instant) if may_be_stored else None)
        to_compute = [place for place, stored in enumerate(found) if not stored]
        computed = dict(zip(to_compute, await self._compute(champion, models, queries, to_compute), strict=True))
        answers = []
        for place, ((user_id, wanted, instant), (state, _), assignment, query) in enumerate(
            zip(asked, states, assigned, queries, strict=True)
        ):
            request_id, source, computed_by = token_hex(REQUEST_ID_BYTES), "model", None
            if stored := found[place]:
                model, (ranking, source, computed_by) = models[place], stored
            else:
                model, ranking = computed[place]
                if self._stored.keeps(query):
                    ranking = self._stored.remembered(model, request_id, user_id, state, query, ranking, instant)
            if candidate is not None and candidate.is_shadow and assignment.policy == ALIAS_CHAMPION:
                self._copy(candidate, model, query, ranking)
            answers.append(
                self._shown(model, request_id, user_id, assignment, query, ranking, instant, source, computed_by)
            )
            if stored and self._held is not None and candidate is None and assignment.policy == ALIAS_CHAMPION:
                propensity = assignment.propensity
                given = Decision(answers[-1], query, source, propensity, instant, computed_by=computed_by)
                self._held.hold(wanted, assignment, state.version, given)
        return answers

    async def _compute(
        self, champion: ServedModel, models: Sequence[ServedModel], queries: Sequence[Query], places: Sequence[int]
    ) -> list[tuple[ServedModel, Ranking]]:
        """Return the rankings at these places with the model that made each: one product a model. Those that will be
        remembered are as long as they are remembered. What a candidate fails to answer, the champion answers."""
        made: dict[int, tuple[ServedModel, Ranking]] = {}
        for model in {id(models[place]): models[place] for place in places}.values():
            mine = [place for place in places if models[place] is model]
            wanted = [queries[place] for place in mine]
            longer = [replace(q, k=max(q.k, CACHED_LENGTH)) if self._stored.keeps(q) else q for q in wanted]
            answering = model
            started = perf_counter()
            try:
                rankings = await _recommended(model, longer)
            except answer_faults():
                if model.version == champion.version:
                    raise
                log.exception("version %s failed to answer", model.version)
                self._metrics.candidate_failures.labels(model.version).inc(len(mine))
                answering, rankings = champion, await _recommended(champion, longer)
            self._stored.took((perf_counter() - started) / len(mine))
            made.update((place, (answering, ranking)) for place, ranking in zip(mine, rankings, strict=True))
        return [made[place] for place in places]

    def _copy(self, candidate: Candidate, model: ServedModel, query: Query, ranking: Ranking) -> None:
        """Hand a copy of what the champion answered to the version in the shadow."""
        if self._shadow is None:
            return
        names = model.retriever.catalogue.item_id
        self._shadow.copy(
            ShadowLine(
                model_version=candidate.model.version,
                k=query.k,
                history=list(query.history),
                features=dict(query.features),
                session=list(query.session),
                domain=query.domain,
                given=[names[item] for item in ranking.items],
            )
        )

    def answer_session(self, session_id: str | None, wanted: Wanted, instant: datetime) -> MadeAnswer:
        """Return the list for a session of nobody in particular; no store is asked.

        With an id the session is the experiment's unit, as a user is elsewhere. Without one nothing could be told of
        it later: it gets the model, and neither a variant nor impressions.

        Raises:
            ServiceUnavailable: no model was deployed yet.
        """
        model, request_id = self.model(), token_hex(REQUEST_ID_BYTES)
        user_id = SESSION_USER.format(session_id or request_id)
        assignment = self._splits.current.of(user_id, instant.date()) if session_id else NO_EXPERIMENT
        query = Query(wanted.k, session=wanted.items, domain=wanted.domain, personal=assignment.policy != POPULAR)
        model, ranking = self._of_session(model, user_id, assignment, query, wanted, instant)
        return self._shown(model, request_id, user_id, assignment, query, ranking, instant)

    def _of_session(
        self,
        champion: ServedModel,
        unit: str,
        assignment: Assignment,
        query: Query,
        wanted: Wanted,
        instant: datetime,
    ) -> tuple[ServedModel, Ranking]:
        candidate, champion = self.candidate, champion.within(wanted.device, wanted.location, instant)
        if candidate is not None and assignment is not NO_EXPERIMENT and candidate.takes(unit, assignment):
            model = candidate.model.within(wanted.device, wanted.location, instant)
            try:
                return model, *recommend(model, [query])
            except answer_faults():
                log.exception("version %s failed to answer", candidate.model.version)
                self._metrics.candidate_failures.labels(candidate.model.version).inc()
        return champion, *recommend(champion, [query])

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
        assignment: Assignment,
        query: Query,
        ranking: Ranking,
        instant: datetime,
        source: Source = "model",
        computed_by: str | None = None,
    ) -> MadeAnswer:
        """Return the answer, its impressions and its record on their way."""
        orders = 1
        if assignment.policy == SHUFFLE:
            ranking, orders = in_random_order(ranking, request_id), max(1, len(ranking.items))
        elif assignment.policy == INTERLEAVED:
            ranking = interleaved(model, query, ranking, request_id)
        answer = MadeAnswer(request_id, user_id, assignment.variant, model, ranking.rung, ranking.items, ranking.scores)
        propensity = assignment.propensity if assignment is not NO_EXPERIMENT else None
        told = ranking if source == "model" else None
        self._records.keep(Decision(answer, query, source, propensity, instant, told, computed_by, orders))
        return answer


async def _recommended(model: ServedModel, queries: Sequence[Query]) -> list[Ranking]:
    """Return the core's rankings; many take long enough to let others be answered meanwhile."""
    if len(queries) > TOGETHER:
        return await asyncio.to_thread(recommend, model, queries)
    return recommend(model, queries)
