"""From a request to an answer: reads the user, asks the core, names the items, hands the impressions on."""

from collections.abc import Mapping
from datetime import datetime
from uuid import uuid4

from pydantic import ValidationError

from recsys.artifacts import EXPERIMENT_SALT
from recsys.assignment import assign
from recsys.errors import ServiceUnavailable
from recsys.user_state import UserState
from serving.cache import CachedList
from serving.contracts import Answer, Item, Wanted
from serving.metrics import Metrics
from serving.model import ServedModel
from serving.ports import EventLog, ModelSource, Shown, UserStateStore
from serving.recommend import PERSONALISED, VARIANT_POPULAR, Query, Ranking, recommend

UNKNOWN_USER = UserState(history=[], features={}, version=0)


class Answering:
    """The one way to an answer, behind every door."""

    def __init__(
        self,
        models: ModelSource,
        users: UserStateStore,
        log: EventLog,
        weights: Mapping[str, float],
        metrics: Metrics,
    ):
        self._models, self._users, self._log = models, users, log
        self._weights, self._metrics = dict(weights), metrics

    def model(self) -> ServedModel:
        """Return the model that answers now.

        Raises:
            ServiceUnavailable: none was deployed yet.
        """
        if self._models.current is None:
            raise ServiceUnavailable("model", "none is loaded", "Deploy one; the platform's pipeline does")
        return self._models.current

    async def answer(self, user_id: str, wanted: Wanted, instant: datetime) -> Answer:
        """Return the list for this user.

        An unreachable store costs the personal rungs, not the answer.

        Raises:
            ServiceUnavailable: no model was deployed yet.
        """
        model = self.model()
        variant = assign(user_id, EXPERIMENT_SALT, self._weights)
        personal = variant != VARIANT_POPULAR
        domain = None if model.domains == (wanted.domain,) else wanted.domain  # one domain: its list is everybody's
        try:
            state, cached = await self._users.read(user_id, domain)
        except ServiceUnavailable:
            state, cached = UNKNOWN_USER, None
        ranking = None
        if personal and state.history and not wanted.items:
            ranking = self._from_cache(model, cached, state, wanted)
        if ranking is None:
            query = Query(wanted.k, state.history, state.features, wanted.items, wanted.domain, personal)
            (ranking,) = recommend(model, [query])
        answer = Answer(
            request_id=uuid4().hex,
            user_id=user_id,
            variant=variant,
            model=model.manifest.model,
            model_version=model.version,
            rung=ranking.rung,
            items=_named(model, ranking),
        )
        self._log.show(Shown(answer, self._weights[variant], instant))
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


def _named(model: ServedModel, ranking: Ranking) -> list[Item]:
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
        for rank, (item, score) in enumerate(zip(ranking.items, ranking.scores, strict=True), start=1)
    ]
