"""The door of events: what a user did goes into the log, and only then is it accepted."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from fastapi import APIRouter, HTTPException, Request

from recsys.schemas import refused_for_its_instant
from serving.access import check_user
from serving.contracts import Accepted, NewEvent
from serving.doors import GUARDED, error_documents
from serving.ports import EventLog

Report = Callable[[Request, NewEvent], Awaitable[Accepted]]


def reporting(event_log: EventLog, clock: Callable[[], datetime]) -> Report:
    """Return what takes an event from any door: REST's, GraphQL's."""

    async def report(request: Request, event: NewEvent) -> Accepted:
        check_user(request, event.user_id)
        received_at = clock()
        reason = event.occurred_at and refused_for_its_instant(event.occurred_at, received_at)
        if reason:
            raise HTTPException(422, f"occurred_at: {reason}")
        interaction = event.interaction(received_at)
        await event_log.publish(interaction)
        return Accepted(event_id=interaction.event_id)

    return report


def routes(report: Report) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["events"])

    @router.post(
        "/v1/events",
        summary="Report what a user did",
        status_code=202,
        response_model=Accepted,
        responses=error_documents(*GUARDED, 413, 422, 503),
    )
    async def events(request: Request, event: NewEvent) -> Accepted:
        """Answers once the log holds the event. An item that the model does not know is accepted: it may be new; the
        stream judges it. A 503 may be sent again: with the same `event_id` an event counts once."""
        return await report(request, event)

    return router
