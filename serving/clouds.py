"""The clouds' contracts, on the same image and the same answers.

    SageMaker    GET /ping, POST /invocations, port 8080, started with the argument `serve`
    Vertex AI    AIP_HTTP_PORT, AIP_HEALTH_ROUTE, AIP_PREDICT_ROUTE; {"instances": […]} → {"predictions": […]}
    Azure ML     liveness /healthz, readiness /readyz, scoring POST /score

Sources: SageMaker "Use your own inference code with hosting services", Vertex AI "Custom container requirements for
inference", Azure ML "Deploy a custom container to an online endpoint".
"""

from collections.abc import Awaitable, Callable, Sequence

from fastapi import APIRouter, Request, Response

from serving.contracts import Answer, VertexAnswer, VertexRequest, WantedFor
from serving.doors import GUARDED, error_documents, json_answer

Answerer = Callable[[Request, Sequence[WantedFor]], Awaitable[list[Answer]]]


def routes(answer: Answerer, ready: Callable[[], Response], health_route: str, predict_route: str) -> APIRouter:
    """Return the clouds' routes, all answered by `answer` and `ready`."""
    router = APIRouter(tags=["clouds"], responses=error_documents(*GUARDED, 413, 422, 503))

    @router.get("/ping", summary="SageMaker's health check: 200 once a model is loaded")
    async def ping() -> Response:
        return ready()

    if health_route not in {"/ping", "/healthz", "/readyz"}:

        @router.get(health_route, summary="Vertex AI's health check: 200 once a model is loaded")
        async def vertex_health() -> Response:
            return ready()

    @router.post("/invocations", summary="SageMaker's request", response_model=Answer)
    @router.post("/score", summary="Azure ML's request", response_model=Answer)
    async def invocation(request: Request, wanted: WantedFor) -> Response:
        (answered,) = await answer(request, [wanted])
        return json_answer(answered)

    @router.post(predict_route, summary="Vertex AI's request", response_model=VertexAnswer)
    async def prediction(request: Request, envelope: VertexRequest) -> Response:
        return json_answer(VertexAnswer(predictions=await answer(request, envelope.instances)))

    return router
