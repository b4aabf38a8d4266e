"""The routes that give lists: for a user, for many, for a session, around an item, and why."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath
from starlette.convertors import StringConvertor, register_url_convertor

from recsys.schemas import Identifier
from serving.access import check_user, may_speak_for
from serving.answering import Answering
from serving.contracts import (
    Answer,
    ManyAnswers,
    SimilarItems,
    Wanted,
    WantedFor,
    WantedForMany,
    WantedForSession,
    WantedList,
)
from serving.doors import GUARDED, LABELS, Refused, error_documents, json_answer
from serving.explanation import RequestRecord


class _AnyText(StringConvertor):
    """Part of a path that may hold anything, a slash included; what an id may hold is for its type to judge."""

    regex = r"[\s\S]*"


register_url_convertor("any", _AnyText())
UserId = Annotated[Identifier, InPath(description="as the events name the user", examples=["ml-1m:17"])]
RequestId = Annotated[Identifier, InPath(description="as the answer has it")]
ItemId = Annotated[Identifier, InPath(description="as the events name the item", examples=["movielens:1196"])]


def routes(
    answering: Answering,
    answer_all: Callable[[Request, Sequence[WantedFor]], Awaitable[list[Answer]]],
    clock: Callable[[], datetime],
) -> APIRouter:
    """Return the routes; those for users are answered by `answer_all`, as the clouds' are."""
    router = APIRouter(tags=["recommendations"])

    @router.get(
        "/v1/users/{user_id:any}/recommendations",
        summary="A list for one user",
        response_model=Answer,
        responses=error_documents(*GUARDED, 422, 503),
    )
    async def recommendations(request: Request, user_id: UserId, wanted: Annotated[Wanted, Query()]) -> Response:
        """Best first. An unknown user gets a popular list, or with `items` one that fits the session; the field `rung`
        says which."""
        check_user(request, user_id)
        answer = await answering.answer(user_id, wanted, clock())
        request.scope[LABELS] = (answer.rung, answer.variant)
        return json_answer(answer.contract())

    @router.post(
        "/v1/recommendations:batch",
        summary="Lists for many users",
        response_model=ManyAnswers,
        responses=error_documents(*GUARDED, 413, 422, 503),
    )
    async def batch(request: Request, wanted: WantedForMany) -> Response:
        """One answer for each request, in their order. One invalid request refuses them all."""
        return json_answer(ManyAnswers(answers=await answer_all(request, wanted.requests)))

    @router.post(
        "/v1/sessions/recommendations",
        summary="A list for a session of nobody in particular",
        response_model=Answer,
        responses=error_documents(*GUARDED, 413, 422, 503),
    )
    async def session(request: Request, wanted: WantedForSession) -> Response:
        """What fits the session's items, or a popular list where the model knows none of them. With a `session_id` the
        session takes part in the experiment as a user does; without one it gets the model, outside of it."""
        if wanted.session_id is not None:
            check_user(request, wanted.session_id)
        answer = answering.answer_session(wanted.session_id, wanted, clock())
        request.scope[LABELS] = (answer.rung, answer.variant)
        return json_answer(answer.contract())

    @router.get(
        "/v1/items/{item_id:any}/similar",
        summary="The items most like one item",
        response_model=SimilarItems,
        responses=error_documents(*GUARDED, 404, 422, 503),
    )
    async def similar(item_id: ItemId, wanted: Annotated[WantedList, Query()]) -> Response:
        """Best first, the item itself left out. The same for everybody, so no impressions are logged."""
        return json_answer(answering.similar(item_id, wanted))

    @router.get(
        "/v1/requests/{request_id:any}",
        summary="Why these items",
        response_model=RequestRecord,
        responses=error_documents(*GUARDED, 404, 422, 503),
    )
    async def explanation(request: Request, request_id: RequestId) -> Response:
        """What an earlier answer was made of, for some days; some are lost when Redis is."""
        record = await answering.explanation(request_id)
        if record is None or not may_speak_for(request, record.user_id):  # whose it is, is not told either
            message = f"request_id: no record of {request_id!r}. Records are kept for days only"
            raise Refused(404, "unknown_request", message)
        return json_answer(record)

    return router
