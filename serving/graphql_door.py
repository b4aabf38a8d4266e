"""GraphQL over the same core: `POST /graphql`. What a query may cost is bounded before it runs and while it runs.

Types are those of the contracts; the limits are Strawberry's own, and one of ours: the lists that a query may make.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import strawberry
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from graphql import GraphQLError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from strawberry.extensions import MaxAliasesLimiter, MaxTokensLimiter, QueryDepthLimiter
from strawberry.scalars import JSON
from strawberry.schema.exceptions import CannotGetOperationTypeError
from strawberry.types import Info

from recsys.errors import RecsysError
from serving import contracts
from serving.access import check_scope, check_user, may_speak_for
from serving.answering import Answering
from serving.contracts import NewEvent, Wanted, WantedFor, WantedForSession, WantedList
from serving.doors import CODES, GUARDED, Refused, error_documents
from serving.events import Report

log = logging.getLogger(__name__)

PATH = "/graphql"
MAX_QUERY, MAX_DEPTH, MAX_ALIASES, MAX_TOKENS = 20_000, 8, 15, 1000
MAX_LISTS = 100
"""Lists that one query may make, as many as one batch."""


class GraphQLRequest(BaseModel):
    """A query as GraphQL over HTTP sends it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "query": "query ($user: ID!) { recommendations(userId: $user, k: 3) { rung items { itemId } } }",
                    "variables": {"user": "ml-1m:17"},
                }
            ]
        },
    )

    query: str = Field(min_length=1, max_length=MAX_QUERY)
    variables: dict[str, Any] | None = None
    operationName: str | None = Field(None, max_length=256)
    extensions: dict[str, Any] | None = None


class GraphQLFault(BaseModel):
    """One error; `extensions.code` is that of the REST door."""

    message: str
    path: list[str | int] | None = None
    locations: list[dict[str, int]] | None = None
    extensions: dict[str, Any] | None = None


class GraphQLAnswer(BaseModel):
    """What a query gives: data, errors, or both."""

    data: dict[str, Any] | None = None
    errors: list[GraphQLFault] | None = None


@dataclass
class Asking:
    """One request: who asks, when, and how many lists are left."""

    request: Request
    instant: datetime
    answering: Answering
    report: Report
    lists_left: int = MAX_LISTS

    def take_list(self) -> None:
        """Count one list.

        Raises:
            Refused: that is one too many.
        """
        self.lists_left -= 1
        if self.lists_left < 0:
            raise Refused(422, "invalid_request", f"a query makes at most {MAX_LISTS} lists. Send several")


@strawberry.type
class Item:
    """An item of a list."""

    rank: int
    item_id: strawberry.ID
    title: str
    domain: str
    score: float
    categories: list[str]

    @strawberry.field(description="the items most like this one")
    def similar(self, info: Info, k: int = 5) -> "SimilarItems":
        return _similar(info.context, self.item_id, k, None)


@strawberry.type
class Answer:
    """A list for somebody, and where it came from."""

    request_id: strawberry.ID
    user_id: strawberry.ID
    variant: str
    model: str
    model_version: str
    rung: str
    items: list[Item]

    @strawberry.field(description="why these items, as `GET /v1/requests/{request_id}` tells; null until it is stored")
    async def explanation(self, info: Info) -> JSON | None:
        return await _explanation(info.context, self.request_id)


@strawberry.type
class SimilarItems:
    """The items most like one item."""

    item_id: strawberry.ID
    model: str
    model_version: str
    items: list[Item]


@strawberry.type
class Accepted:
    """The log holds the event."""

    event_id: strawberry.ID


@strawberry.input
class EventInput:
    """What a user did; as `POST /v1/events` takes it."""

    user_id: strawberry.ID
    item_id: strawberry.ID
    domain: str
    event_type: str
    rating: float | None = None
    occurred_at: datetime | None = None
    event_id: strawberry.ID | None = None
    request_id: strawberry.ID | None = None


@strawberry.type
class Query:
    """All that reads."""

    @strawberry.field(description="a list for one user")
    async def recommendations(
        self,
        info: Info,
        user_id: strawberry.ID,
        k: int = 10,
        domain: str | None = None,
        items: list[strawberry.ID] | None = None,
        device: str | None = None,
        location: str | None = None,
    ) -> Answer:
        asking: Asking = info.context
        asking.take_list()
        wanted = WantedFor(user_id=user_id, k=k, domain=domain, items=items or [], device=device, location=location)
        check_user(asking.request, wanted.user_id)
        answer = await asking.answering.answer(wanted.user_id, Wanted(**_plain(wanted)), asking.instant)
        return _answer(answer.contract())

    @strawberry.field(description="a list for a session of nobody in particular")
    def session_recommendations(
        self,
        info: Info,
        session_id: strawberry.ID | None = None,
        k: int = 10,
        domain: str | None = None,
        items: list[strawberry.ID] | None = None,
        device: str | None = None,
        location: str | None = None,
    ) -> Answer:
        asking: Asking = info.context
        asking.take_list()
        wanted = WantedForSession(
            session_id=session_id, k=k, domain=domain, items=items or [], device=device, location=location
        )
        if wanted.session_id is not None:
            check_user(asking.request, wanted.session_id)
        return _answer(asking.answering.answer_session(wanted.session_id, wanted, asking.instant).contract())

    @strawberry.field(description="the items most like one item")
    def similar(self, info: Info, item_id: strawberry.ID, k: int = 10, domain: str | None = None) -> SimilarItems:
        return _similar(info.context, item_id, k, domain)

    @strawberry.field(description="why these items: what an earlier answer was made of; null where nothing is kept")
    async def explanation(self, info: Info, request_id: strawberry.ID) -> JSON | None:
        return await _explanation(info.context, request_id)


@strawberry.type
class Mutation:
    """All that writes."""

    @strawberry.mutation(description="report what a user did; answers once the log holds the event")
    async def report_event(self, info: Info, event: EventInput) -> Accepted:
        asking: Asking = info.context
        check_scope(asking.request, "events")
        given = {name: value for name, value in vars(event).items() if value is not None}
        accepted = await asking.report(asking.request, NewEvent.model_validate(given))
        return Accepted(event_id=strawberry.ID(accepted.event_id))


def _plain(wanted: WantedFor) -> dict[str, Any]:
    return wanted.model_dump(exclude={"user_id"})


def _items(items: list[contracts.Item]) -> list[Item]:
    return [Item(**dict(item)) for item in items]


def _answer(answer: contracts.Answer) -> Answer:
    return Answer(**(dict(answer) | {"items": _items(answer.items)}))


def _similar(asking: Asking, item_id: str, k: int, domain: str | None) -> SimilarItems:
    asking.take_list()
    wanted = WantedFor(user_id=item_id, k=k, domain=domain)  # an item's id is judged as every id is
    found = asking.answering.similar(wanted.user_id, WantedList(k=wanted.k, domain=wanted.domain))
    return SimilarItems(**(dict(found) | {"items": _items(found.items)}))


async def _explanation(asking: Asking, request_id: str) -> JSON | None:
    asking.take_list()
    check_scope(asking.request, "explain")
    record = await asking.answering.explanation(WantedFor(user_id=request_id).user_id)
    if record is None or not may_speak_for(asking.request, record.user_id):
        return None
    return JSON(record.model_dump(mode="json"))


def _code(error: GraphQLError) -> tuple[str, str]:
    """Return code and message of an error; what is none of the caller's faults is not told."""
    cause = error.original_error
    if cause is None:
        return "invalid_request", error.message
    if isinstance(cause, ValidationError):
        fault = cause.errors()[0]
        return "invalid_request", f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    if isinstance(cause, HTTPException):
        code = cause.code if isinstance(cause, Refused) else CODES.get(cause.status_code, "invalid_request")
        return code, str(cause.detail)
    if isinstance(cause, RecsysError):
        return "unavailable", str(cause)
    if isinstance(cause, GraphQLError | TypeError | ValueError):  # a value that its scalar does not take
        return "invalid_request", error.message
    log.error("unexpected in a query", exc_info=cause)
    return "internal_error", "an unexpected fault. It was logged; please report it"


class _Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: Any = None) -> None:
        """Errors go to the caller with their codes; ours are logged there."""


SCHEMA = _Schema(
    query=Query,
    mutation=Mutation,
    extensions=[
        lambda: QueryDepthLimiter(max_depth=MAX_DEPTH),
        lambda: MaxAliasesLimiter(max_alias_count=MAX_ALIASES),
        lambda: MaxTokensLimiter(max_token_count=MAX_TOKENS),
    ],
)


def routes(
    answering: Answering,
    report: Report,
    clock: Callable[[], datetime],
) -> APIRouter:
    """Return the one route; events go through `report`, as those of the REST door do."""
    router = APIRouter(tags=["graphql"])

    @router.post(
        PATH,
        summary="GraphQL over the same lists",
        response_model=GraphQLAnswer,
        responses=error_documents(*GUARDED, 413, 422),
    )
    async def graphql(request: Request, asked: GraphQLRequest) -> Response:
        """200 with `data`, `errors` or both; each error has a `code` as REST's errors have. Its schema:
        `{ __schema { types { name } } }`."""
        asking = Asking(request, clock(), answering, report)
        try:
            done = await SCHEMA.execute(
                asked.query, variable_values=asked.variables, context_value=asking, operation_name=asked.operationName
            )
        except CannotGetOperationTypeError as error:
            message = "operationName: the query has no operation of this name; send its name where it has several"
            raise Refused(422, "invalid_request", message) from error
        faults = []
        for error in done.errors or []:
            code, message = _code(error)
            locations = [{"line": at.line, "column": at.column} for at in error.locations or []]
            faults.append(
                GraphQLFault(message=message, path=error.path, locations=locations or None, extensions={"code": code})
            )
        answer: dict[str, Any] = {"data": done.data} if done.data is not None or not faults else {}
        if faults:
            answer["errors"] = [fault.model_dump(exclude_none=True) for fault in faults]
        return JSONResponse(answer)

    return router
