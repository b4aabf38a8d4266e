"""Lists that answer again: which may, under what they must agree, and what they save."""

from datetime import datetime

from pydantic import ValidationError

from recsys.user_state import UserState
from serving.cache import ALL_DOMAINS, CachedList, ListLine, life_seconds
from serving.contracts import Wanted
from serving.graph import PERSONALISED
from serving.left_behind import Source
from serving.metrics import Metrics
from serving.model import ServedModel
from serving.ports import Lists
from serving.recommend import Query, Ranking

ACTIVITY = "user_interactions_30d"
MEAN_SHARE = 0.05
"""Weight of the latest measurement in a moving mean."""

Found = tuple[Ranking, Source, str | None]
"""A stored ranking, where it came from, and the request that computed it."""


class StoredLists:
    """What is left behind for later answers, and what of it may answer."""

    def __init__(self, metrics: Metrics, lists: Lists | None, seconds: int):
        """Leave lists behind in `lists`, for `seconds` at most; None: none is."""
        self._metrics, self._lists, self._seconds = metrics, lists, seconds
        self._core_seconds = 0.0  # what the core takes for one list, a moving mean

    def took(self, seconds: float) -> None:
        """Say what the core took for a list."""
        self._core_seconds += MEAN_SHARE * (seconds - self._core_seconds)

    def keeps(self, query: Query) -> bool:
        """Whether the list of this query will be left behind, unless popularity gives it."""
        return bool(self._lists and query.personal and query.history and not query.session)

    def remembered(
        self,
        model: ServedModel,
        request_id: str,
        user_id: str,
        state: UserState,
        query: Query,
        ranking: Ranking,
        instant: datetime,
    ) -> Ranking:
        """Return the part of a computed ranking that was asked for; a personal one is left behind whole."""
        if self._lists is None or ranking.rung != PERSONALISED:
            return ranking.first(query.k)
        names = model.retriever.catalogue.item_id
        items = [(names[item], score) for item, score in zip(ranking.items, ranking.scores, strict=True)]
        stored = CachedList(
            model_version=model.version, user_version=state.version, items=items, made_at=instant,
            made_with=model.plan.version, computed_by=request_id,
        )  # fmt: skip
        seconds = life_seconds(self._seconds, state.features.get(ACTIVITY, 0.0))
        domain = list_domain(model, query.domain)
        self._lists.remember(ListLine(user_id=user_id, domain=domain, seconds=seconds, list=stored))
        return ranking.first(query.k)

    def found(
        self, model: ServedModel, cached: str | None, state: UserState, wanted: Wanted, instant: datetime
    ) -> Found | None:
        """Return what is stored if it is what the core would answer now, else None; count either."""
        result, found = "absent", None
        if cached is not None:
            try:
                stored = CachedList.model_validate_json(cached)
            except ValidationError:
                result = "refused"
            else:
                found = self._agreeing(model, stored, state, wanted)
                result = "hit" if found else "stale"
                if found:
                    self._metrics.saved_seconds.inc(self._core_seconds)
                    if stored.made_at:
                        self._metrics.cached_age.observe(max(0.0, (instant - stored.made_at).total_seconds()))
        self._metrics.cached.labels(result).inc()
        return found

    def _agreeing(self, model: ServedModel, stored: CachedList, state: UserState, wanted: Wanted) -> Found | None:
        made_of = (stored.model_version, stored.made_with, stored.user_version)
        items = model.retriever.indices([item for item, _ in stored.items[: wanted.k]])
        if made_of != (model.version, model.plan.version, state.version) or len(items) != wanted.k:
            return None
        if not model.allowed(wanted.domain)[items].all():
            return None
        scores = [score for _, score in stored.items[: wanted.k]]
        source: Source = "cached_list" if stored.made_at else "precomputed_list"
        return Ranking(PERSONALISED, items.tolist(), scores), source, stored.computed_by


def list_domain(model: ServedModel, domain: str | None) -> str | None:
    """Return what a list is stored under beside its user: its domain, and the context whose rules hold in it.

    With one domain in the catalogue its list is everybody's.
    """
    whole = None if model.domains == (domain,) else domain
    return f"{whole or ALL_DOMAINS}@{model.context}" if model.context else whole
