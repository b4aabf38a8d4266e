"""Schemathesis as its users run it: every check, every phase, valid and invalid requests, against the serving process
with real Redis and Kafka behind it; REST by the OpenAPI document that it serves itself, GraphQL by its schema. The
quick version, in `make test`, is tests/serving/test_openapi.py."""

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from recsys.settings import HOME
from serving.graphql_door import SCHEMA
from tests.serving.patience import eventually
from tests.serving.test_process import deploy, serving
from tests.worlds.served import EVEN, FILMS

pytestmark = [pytest.mark.services, pytest.mark.soak]
EXAMPLES = 300
EVENT = {"user_id": "u", "item_id": FILMS[0], "domain": "movies", "event_type": "click"}


@pytest.fixture(scope="module")
def running(world, tmp_path_factory) -> Iterator[httpx.Client]:
    own = world("redis", "kafka")
    folder = tmp_path_factory.mktemp("whole")
    deploy(folder)
    with serving(folder, RECSYS_REDIS_URL=own.redis_url, RECSYS_KAFKA_BOOTSTRAP=own.kafka_bootstrap,
                 RECSYS_TOPIC_PREFIX=own.topic_prefix) as (client, _):  # fmt: skip

        def accepted() -> None:
            assert client.post("/v1/events", json=EVENT).status_code == 202

        eventually(accepted)
        yield client


EXPECTED = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", "503"]\n'
"""A 503 where the document has one is an answer: a store was silent for longer than a request waits. Elsewhere it is
found as a status that is not documented; and `assert_refusals_were_the_stores` says how many there may be."""
FEW = 0.01


def assert_refusals_were_the_stores(client: httpx.Client) -> None:
    """Hold that next to no request was refused with a 503, and none while the stores answered."""
    families = {one.name: one.samples for one in text_string_to_metric_families(client.get("/metrics").text)}
    asked = {one.labels["status"]: 0.0 for one in families["recsys_requests"]}
    for one in families["recsys_requests"]:
        if one.name.endswith("_total"):
            asked[one.labels["status"]] += one.value
    failed = sum(one.value for one in families["recsys_dependency_errors"] if one.name.endswith("_total"))
    assert asked["200"] > EXAMPLES
    assert asked.get("503", 0) <= (FEW * sum(asked.values()) if failed else 0), asked
    assert not {status for status in asked if status >= "500"} - {"503"}, asked


def run_schemathesis(folder: Path, *arguments: str) -> None:
    """Run its command line, with every check but one: no schema can say which instants lie in the future, or which
    characters are printable, so not all that it allows is accepted.

    Raises:
        AssertionError: it found something; the message is its report.
    """
    (folder / "schemathesis.toml").write_text(EXPECTED)
    done = subprocess.run(
        [HOME / ".venv" / "platform" / "bin" / "st", "run", *arguments, "--checks", "all",
         "--exclude-checks", "positive_data_acceptance", "--mode", "all",
         "--max-examples", str(EXAMPLES), "--suppress-health-check", "all", "--seed", "1", "--continue-on-failure",
         "--warnings", "off", "--generation-database", "none"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-20_000:]
    assert "No issues found" in done.stdout, done.stdout[-4000:]


def test_it_finds_nothing_in_rest(running, tmp_path):
    run_schemathesis(tmp_path, f"{running.base_url}/openapi.json", "--phases", "examples,coverage,fuzzing,stateful")
    answer = running.get(f"/v1/items/{EVEN[0]}/similar")
    assert answer.status_code == 200  # and it still answers
    assert_refusals_were_the_stores(running)


GRAPHQL = schemathesis.graphql.from_file(io.StringIO(SCHEMA.as_str()))
FIELDS = {found.ok().label: found.ok() for found in GRAPHQL.get_all_operations()}


@pytest.mark.parametrize("field", sorted(FIELDS))
@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_the_graphql_schema_allows_has_an_answer_with_a_code(running, field, data):
    """Its own command calls every refusal of GraphQL a fault of the server: here a refusal has to say why."""
    case = data.draw(FIELDS[field].as_strategy())

    def answered() -> httpx.Response:
        answer = running.post("/graphql", json={"query": case.body})
        assert "unavailable" not in codes_of(answer)  # a store that was silent for a moment; asking again is safe
        return answer

    answer = eventually(answered)
    assert answer.status_code in {200, 422}, answer.text
    assert codes_of(answer) <= {"invalid_request", "unknown_item"} or answer.status_code == 422, answer.text


def codes_of(answer: httpx.Response) -> set[str]:
    """Return the codes of an answer's errors."""
    faults = answer.json().get("errors", []) if answer.status_code == 200 else []
    return {fault["extensions"]["code"] for fault in faults}
