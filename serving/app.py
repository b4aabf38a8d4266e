"""The recommendation API: an application over the ports, and nothing that the routes do not need."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import clouds, events, graphql_door, lists, page, storefront
from serving.access import Guard, KeyRing, check_user
from serving.answering import Answering
from serving.contracts import Answer, CandidateReady, Ready, WantedFor
from serving.doors import LABELS, Measured, error_documents, in_the_one_shape, install, json_answer
from serving.metrics import Metrics
from serving.ports import EventLog
from serving.short_way import ShortWay

DOCS_PAGE = Path(__file__).with_name("docs.html")
NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}
DESCRIPTION = (
    "Recommendations, and the events that make the next ones better. Every error has the shape "
    '`{"error": {"code", "message"}}`.'
)


class _Application(FastAPI):
    """The framework's, behind a front that needs none of it."""

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.front if scope["type"] == "http" else self.long_way)(scope, receive, send)

    async def long_way(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


@asynccontextmanager
async def _nothing(_: FastAPI) -> AsyncIterator[None]:
    yield


def create_app(
    answering: Answering,
    event_log: EventLog,
    metrics: Metrics,
    clock: Callable[[], datetime],
    health_route: str = "/ping",
    predict_route: str = "/predict",
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] = _nothing,
    ring: KeyRing | None = None,
    visits: storefront.Storefront | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        clock: gives the instant (aware, UTC) of a request; each route asks it once.
        health_route: where Vertex AI asks for health.
        predict_route: where Vertex AI posts its instances.
        lifespan: starts and stops what the ports need.
        ring: the API keys that are asked for; None: none is.
        visits: what the storefront asks beside lists; None: those routes are not there.
    """
    app = _Application(
        title="RecSys Intelligence",
        version="1",
        description=DESCRIPTION,
        docs_url=None,  # the framework's page loads from elsewhere; ours works offline
        redoc_url=None,
        lifespan=lifespan,
        telemetry=NO_TELEMETRY,
    )
    install(app)
    way: ASGIApp = ShortWay(app.long_way, answering, clock)
    if ring is not None:
        way = Guard(way, ring, health_route)
    app.front = in_the_one_shape(Measured(way, metrics))

    async def answer_all(request: Request, wanted: Sequence[WantedFor]) -> list[Answer]:
        for each in wanted:
            check_user(request, each.user_id)
        answers = await answering.answer_all([(each.user_id, each) for each in wanted], clock())
        if len(answers) == 1:
            request.scope[LABELS] = (answers[0].rung, answers[0].variant)
        return [answer.contract() for answer in answers]

    def ready() -> Response:
        model, candidate = answering.model(), None
        if answering.candidate is not None:
            rollout = answering.candidate.rollout
            candidate = CandidateReady(model_version=rollout.version, stage=rollout.stage, share=rollout.share)
        ranker = model.plan.ranker
        return json_answer(
            Ready(
                model=model.manifest.model,
                model_version=model.version,
                ranker_version=ranker.version if ranker else None,
                index_recall=model.retriever.index_recall,
                candidate=candidate,
            )
        )

    report = events.reporting(event_log, clock)
    app.include_router(events.routes(report))
    app.include_router(lists.routes(answering, answer_all, clock))
    app.include_router(graphql_door.routes(answering, report, clock))
    if visits is not None:
        app.include_router(storefront.routes(visits))
    app.include_router(page.routes())
    app.include_router(_operations(ready, metrics))
    app.include_router(clouds.routes(answer_all, ready, health_route, predict_route))
    return app


def _operations(ready: Callable[[], Response], metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", summary="200 while the process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @router.get(
        "/readyz",
        summary="200 once a model is loaded",
        response_model=Ready,
        responses=error_documents(503),
    )
    async def readyz() -> Response:
        return ready()

    @router.get("/metrics", summary="Prometheus's text format", response_class=PlainTextResponse)
    async def exposition() -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(DOCS_PAGE)

    return router
