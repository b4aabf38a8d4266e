"""The OpenAPI document against the application in this process, over real Redis and Kafka: whatever comes in, valid or
not, gets an answer that the document describes."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from starlette.testclient import TestClient

from recsys.settings import Settings
from serving.contracts import ErrorAnswer
from serving.process import build
from tests.serving.patience import eventually
from tests.serving.ports import INSTANT, assemble
from tests.worlds.served import FILMS, write_world

pytestmark = pytest.mark.services
EXAMPLES = 60
DOCUMENT = assemble(None).app.openapi()
OPERATIONS = {found.ok().label: found.ok() for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()}
CASES = [
    (label, mode)
    for label, operation in OPERATIONS.items()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or {"parameters", "requestBody"} & set(operation.definition.raw)
]
EVENT = {"user_id": "u", "item_id": FILMS[0], "domain": "movies", "event_type": "click"}


@pytest.fixture(scope="module")
def client(world) -> Iterator[TestClient]:
    running: Settings = world("redis", "kafka")
    write_world(running.served_model)
    with TestClient(build(running, lambda: INSTANT), raise_server_exceptions=False) as client:

        def accepted() -> None:
            assert client.post("/v1/events", json=EVENT).status_code == 202

        eventually(accepted)
        yield client


def test_the_document_has_every_endpoint():
    assert len(OPERATIONS) >= 12
    assert len(CASES) >= 20
    assert {"GET /v1/requests/{request_id}", "POST /v1/recommendations:batch", "POST /v1/events"} <= set(OPERATIONS)


@pytest.mark.parametrize(("label", "mode"), CASES, ids=lambda part: getattr(part, "value", part))
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_every_answer_is_one_that_the_document_describes(client, label, mode, data):
    case = data.draw(OPERATIONS[label].as_strategy(generation_mode=mode))
    sent = case.as_transport_kwargs(base_url=str(client.base_url))
    answer = client.request(**{name: value for name, value in sent.items() if name != "cookies"})
    assert answer.status_code < 500, answer.text  # everything is up: not even the documented 503
    case.validate_response(answer, checks=[status_code_conformance, response_schema_conformance])
    if answer.status_code >= 400:
        ErrorAnswer.model_validate_json(answer.content, strict=True)
