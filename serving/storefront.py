"""What the page `/demo` asks beside lists and events: the catalogue, some users, one user now, the lists of other
variants and models.

All of it only reads: no impression is logged and no record kept, since nobody is shown anything.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from recsys.errors import UnusableInput
from recsys.experiments import INTERLEAVED, POPULAR, SHUFFLE
from serving.access import check_scope, check_user
from serving.answering import Answering
from serving.browsing import (
    Browser,
    CatalogueOverview,
    ItemsFound,
    ItemsWanted,
    KnownUser,
    KnownUsers,
    Preview,
    UserView,
    described,
    domains_of,
)
from serving.contracts import WantedList
from serving.doors import GUARDED, Refused, error_documents, json_answer
from serving.lists import UserId
from serving.made import named
from serving.model import ServedModel
from serving.ports import Splits, UserDirectory, UserStateStore
from serving.recommend import Query as Asked
from serving.recommend import in_random_order, interleaved, recommend
from serving.shelf import Shelf

LATEST_TOLD = 20
"""Items of a user's history that are told, the latest first."""

LOOKED_AT = 200
"""Users that are looked at to find some of a domain."""

MAX_USERS = 50


class WantedUsers(WantedList):
    """How many users, and active in which domain."""

    k: int = Field(12, ge=1, le=MAX_USERS, description="how many at most")


class WantedPreview(WantedList):
    """Which list is wanted."""

    variant: str | None = Field(None, max_length=256, description="one of the running experiment's; the user's own")
    model_version: str | None = Field(None, max_length=256, description="of the catalogue's `models`; the champion's")


class Storefront:
    """Read-only views over the ports of an answer."""

    def __init__(
        self,
        answering: Answering,
        users: UserStateStore,
        known: UserDirectory,
        splits: Splits,
        clock: Callable[[], datetime],
        shelf: Shelf,
    ):
        self._answering, self._users, self._known = answering, users, known
        self._splits, self._clock, self._shelf = splits, clock, shelf
        self._browser: Browser | None = None

    async def browser(self) -> Browser:
        """Return the browser of the model that answers now; a new model's is made in a thread, once.

        Raises:
            ServiceUnavailable: no model was deployed yet.
        """
        model = self._answering.model()
        if self._browser is None or self._browser.model is not model:
            self._browser = await asyncio.to_thread(Browser, model)
        return self._browser

    async def overview(self) -> CatalogueOverview:
        browser = await self.browser()
        return await asyncio.to_thread(lambda: browser.overview(self._variants(), self._shelf.offered()))

    async def items(self, wanted: ItemsWanted) -> ItemsFound:
        return await asyncio.to_thread((await self.browser()).find, wanted)

    async def users(self, wanted: WantedUsers) -> KnownUsers:
        """Return some users whose latest items the model knows; those of the domain, where one is named."""
        model = self._answering.model()
        found = [
            KnownUser(user_id=seen.user_id, history_items=seen.history_items, domains=domains)
            for seen in await self._known.some(LOOKED_AT)
            if (domains := domains_of(model, seen.latest_items))
            and (wanted.domain is None or domains[0] == wanted.domain)
        ]
        return KnownUsers(users=found[: wanted.k])

    async def user(self, user_id: str) -> UserView:
        """Return a user as an answer would see them now; one whom nobody knows has an empty history."""
        model = self._answering.model()
        ((state, _),) = await self._users.read([(user_id, None)])
        latest = model.retriever.indices(state.history[::-1])[:LATEST_TOLD].tolist()
        return UserView(
            user_id=user_id,
            variant=self._splits.current.of(user_id, self._clock().date()).variant,
            version=state.version,
            history_items=len(state.history),
            features=state.features,
            latest_items=described(model, latest),
        )

    async def preview(self, user_id: str, wanted: WantedPreview) -> Preview:
        """Return what a variant, or another model, would answer this user now.

        Raises:
            Refused: the experiment has no such variant, or this machine no such model.
        """
        variants = self._variants()
        variant = wanted.variant or self._splits.current.of(user_id, self._clock().date()).variant
        if wanted.variant is not None and variant not in variants:
            known = ", ".join(sorted(variants))
            raise Refused(404, "unknown_variant", f"variant: the experiment has {known}, not {variant!r}")
        model = await self._model(wanted.model_version)
        ((state, _),) = await self._users.read([(user_id, None)])
        policy = self._splits.current.policy_of(variant)
        personal = policy != POPULAR
        asked = Asked(wanted.k, state.history, state.features, domain=wanted.domain, personal=personal)
        (ranking,) = await asyncio.to_thread(recommend, model, [asked])
        if policy == SHUFFLE:
            ranking = in_random_order(ranking, user_id)
        elif policy == INTERLEAVED:
            ranking = interleaved(model, asked, ranking, user_id)
        return Preview(
            user_id=user_id,
            variant=variant,
            model=model.manifest.model,
            model_version=model.version,
            rung=ranking.rung,
            items=named(model, ranking.items, ranking.scores),
        )

    async def _model(self, version: str | None) -> ServedModel:
        try:
            model = await self._shelf.model(version)
        except UnusableInput as error:
            raise Refused(404, "unknown_model", f"model_version: {version!r} cannot be loaded ({error})") from error
        if model is None:
            offered = await asyncio.to_thread(self._shelf.offered)
            known = ", ".join(each.model_version for each in offered)
            raise Refused(404, "unknown_model", f"model_version: this machine has {known}, not {version!r}")
        return model

    def _variants(self) -> dict[str, float]:
        return self._splits.current.variants(self._clock().date())


def routes(storefront: Storefront) -> APIRouter:
    """Return the routes; where keys are asked for, what tells of users needs more than `recommend`."""
    router = APIRouter(tags=["storefront"])

    @router.get(
        "/v1/catalogue",
        summary="What the model knows",
        response_model=CatalogueOverview,
        responses=error_documents(*GUARDED, 503),
    )
    async def catalogue() -> Response:
        """Its domains and their largest categories, the data it was trained on, the running experiment's variants."""
        return json_answer(await storefront.overview())

    @router.get(
        "/v1/items",
        summary="Look around in the catalogue",
        response_model=ItemsFound,
        responses=error_documents(*GUARDED, 422, 503),
    )
    async def items(wanted: Annotated[ItemsWanted, Query()]) -> Response:
        """Available items by domain, category and words of the title; the same for everybody."""
        return json_answer(await storefront.items(wanted))

    @router.get(
        "/v1/users",
        summary="Some known users",
        response_model=KnownUsers,
        responses=error_documents(*GUARDED, 422, 503),
    )
    async def users(request: Request, wanted: Annotated[WantedUsers, Query()]) -> Response:
        """A sample from the online store. With a `domain`, of users most of whose latest items are of it. Where keys
        are asked for, the scope `admin` is needed."""
        check_scope(request, "admin")
        return json_answer(await storefront.users(wanted))

    @router.get(
        "/v1/users/{user_id:any}/state",
        summary="A user as an answer would see them",
        response_model=UserView,
        responses=error_documents(*GUARDED, 422, 503),
    )
    async def state(request: Request, user_id: UserId) -> Response:
        """`version` moves with each of the user's events, once it has arrived: so a client can tell that the next list
        will know of it. Where keys are asked for, the scope `explain` is needed."""
        check_scope(request, "explain")
        check_user(request, user_id)
        return json_answer(await storefront.user(user_id))

    @router.get(
        "/v1/users/{user_id:any}/preview",
        summary="What another variant or model would answer",
        response_model=Preview,
        responses=error_documents(*GUARDED, 404, 422, 503),
    )
    async def preview(request: Request, user_id: UserId, wanted: Annotated[WantedPreview, Query()]) -> Response:
        """Outside of the experiment: to look at, not to show. The user's own variant stays what it is."""
        check_user(request, user_id)
        return json_answer(await storefront.preview(user_id, wanted))

    return router
