"""The short way to the one route that takes nearly all requests: a list for one user.

The framework's routing, its dependencies and its exit stacks take several times as long as the list does. Here the same
request takes the same types and the same core directly. Whatever is not plainly in order (a refusal, a fault, a missing
model) goes the long way, which alone knows how to say no; so both ways give the same answers, and a test compares them.
"""

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from urllib.parse import parse_qs

from pydantic import TypeAdapter, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.schemas import Identifier
from serving.access import KEY
from serving.answering import Answering
from serving.contracts import Wanted
from serving.doors import LABELS, ROUTE

BEFORE, AFTER = "/v1/users/", "/recommendations"
ROUTE_PATH = f"{BEFORE}{{user_id}}{AFTER}"
"""As the framework's own route names itself."""

USER_ID: TypeAdapter[str] = TypeAdapter(Identifier)
MANY = {"items"}
"""Parameters that may come more than once."""
KNOWN_QUERIES, KEPT_BYTES = 512, 64
"""So many short query strings are understood once: most requests ask for the same length."""


class ShortWay:
    """Answers valid requests for one user's list; hands all others on."""

    def __init__(self, app: ASGIApp, answering: Answering, clock: Callable[[], datetime]):
        self._app, self._answering, self._clock = app, answering, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self._understood(scope) if self._answering.is_ready else None
        if asked is None:
            return await self._app(scope, receive, send)
        scope[ROUTE] = ROUTE_PATH
        instant = self._clock()
        if held := await self._answering.held(*asked, instant):
            scope[LABELS] = (held.rung, held.variant)
            body = held.body
        else:
            answer = await self._answering.answer(*asked, instant)
            scope[LABELS] = (answer.rung, answer.variant)
            body = answer.text()
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _understood(self, scope: Scope) -> tuple[str, Wanted] | None:
        """Return user and wishes of a request that this way can answer, else None."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope.get("root_path"):
            return None
        path: str = scope["path"]
        if not (path.startswith(BEFORE) and path.endswith(AFTER) and len(path) > len(BEFORE) + len(AFTER)):
            return None
        key = scope.get(KEY)
        try:
            user_id = USER_ID.validate_python(path[len(BEFORE) : -len(AFTER)])
            query: bytes = scope["query_string"]
            wanted = _wanted(query) if len(query) <= KEPT_BYTES else _wanted.__wrapped__(query)
        except (ValidationError, ValueError):
            return None
        return (user_id, wanted) if key is None or key.speaks_for(user_id) else None


@lru_cache(KNOWN_QUERIES)
def _wanted(query: bytes) -> Wanted:
    """Return what a query string asks for; callers only read it.

    Raises:
        ValueError: it asks for nothing that there is, or is no text.
    """
    given = parse_qs(query.decode(), keep_blank_values=True, errors="strict")
    return Wanted.model_validate({name: values if name in MANY else values[-1] for name, values in given.items()})
