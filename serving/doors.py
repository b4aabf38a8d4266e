"""What stands before every route: the body's limit, the measuring, and one shape for every error."""

import logging
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from time import perf_counter

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.errors import ServiceUnavailable
from serving.contracts import ErrorAnswer, Fault
from serving.metrics import Metrics

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1_500_000
MAX_MESSAGE = 2000
GUARDED = (401, 403, 429)
"""What a key may be told, where keys are asked for."""

LABELS, ROUTE = "recsys.labels", "recsys.route"
"""Keys in the ASGI scope under which a route leaves (rung, variant), and a short way its route, for the metrics."""

CODES = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    422: "invalid_request",
    429: "rate_limited",
    500: "internal_error",
    503: "unavailable",
}


class Refused(HTTPException):
    """An error whose code says more than its status."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(status, message, dict(headers or {}))
        self.code = code


def json_answer(content: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response of this content; it is serialised once, by the model itself."""
    return Response(content.model_dump_json(), status, headers, media_type="application/json")


def error_answer(
    status: int, message: str, headers: Mapping[str, str] | None = None, code: str | None = None
) -> Response:
    """Return an error in the one shape that all errors have; its code is by default that of the status."""
    code = code or CODES.get(status, HTTPStatus(status).phrase.lower().replace(" ", "_"))
    return json_answer(ErrorAnswer(error=Fault(code=code, message=message[:MAX_MESSAGE])), status, headers)


def error_documents(*statuses: int) -> dict[int | str, dict]:
    """Return the OpenAPI entries of these errors."""
    return {status: {"model": ErrorAnswer, "description": HTTPStatus(status).phrase} for status in statuses}


class BodyLimit:
    """Refuses a body beyond the limit, by its declared length at once, otherwise as soon as it is exceeded."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > MAX_BODY_BYTES:
            return await error_answer(413, _TOO_LARGE)(scope, receive, send)
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                raise HTTPException(413, _TOO_LARGE)
            return message

        return await self._app(scope, limited, send)


_TOO_LARGE = f"the body exceeds {MAX_BODY_BYTES} bytes. Send less at once"


class Measured:
    """Counts each request by route, status, rung and variant, and times it."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app = app
        self._counted, self._timed = cache(metrics.requests.labels), cache(metrics.seconds.labels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status, started = 500, perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = scope.get(ROUTE) or getattr(scope.get("route"), "path_format", "none")
            rung, variant = scope.get(LABELS, ("", ""))
            self._counted(route, status, rung, variant).inc()
            self._timed(route).observe(perf_counter() - started)


def install(app: FastAPI) -> None:
    """Put the body's limit before an app's routes, and the one shape of errors behind them."""
    app.add_middleware(BodyLimit)

    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, error: StarletteHTTPException) -> Response:
        if error.status_code == 400:  # the framework's word for a body that is no JSON it can read
            return error_answer(422, f"body: {error.detail}")
        code = error.code if isinstance(error, Refused) else None
        return error_answer(error.status_code, str(error.detail), error.headers, code)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return error_answer(422, "; ".join(_sentence(fault) for fault in error.errors()))

    @app.exception_handler(ServiceUnavailable)
    async def unavailable(_: Request, error: ServiceUnavailable) -> Response:
        return error_answer(503, str(error))

    app.add_exception_handler(Exception, _unexpected)


def in_the_one_shape(app: ASGIApp) -> ASGIApp:
    """Return the app with an answer to what it did not expect."""
    return ServerErrorMiddleware(app, _unexpected)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.exception("unexpected at %s", request.url.path, exc_info=error)
    return error_answer(500, "an unexpected fault. It was logged; please report it")


def _sentence(fault: dict) -> str:
    if fault["type"] == "json_invalid":
        return f"body: no JSON, {fault['ctx']['error']} at character {fault['loc'][-1]}"
    where = ".".join(str(part) for part in fault["loc"] if part not in {"query", "path", "body"}) or "body"
    return f"{where}: {fault['msg'].removeprefix('Value error, ')}"
