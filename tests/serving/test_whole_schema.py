"""Schemathesis as its users run it: every check, every phase, valid and invalid requests, against the serving process
with real Redis and Kafka behind it; REST by the OpenAPI document that it serves itself, GraphQL by its schema. The
quick version, in `make test`, is tests/serving/test_openapi.py."""

import io
import subprocess
from collections import Counter
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


def counted(client: httpx.Client, counter: str, label: str) -> Counter[str]:
    """Return a counter of the process, by one of its labels."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == counter:
                found[sample.labels[label]] += int(sample.value)
    return found


def assert_refusals_were_the_stores(asked: Counter[str], failed: Counter[str]) -> None:
    """Hold that next to no request was refused with a 503, and none while the stores answered."""
    assert asked["200"] > EXAMPLES
    assert asked["503"] <= (FEW * asked.total() if failed.total() else 0), (asked, failed)
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
    counters = (("recsys_requests_total", "status"), ("recsys_dependency_errors_total", "dependency"))
    before = [counted(running, *one) for one in counters]
    run_schemathesis(tmp_path, f"{running.base_url}/openapi.json", "--phases", "examples,coverage,fuzzing,stateful")
    answer = running.get(f"/v1/items/{EVEN[0]}/similar")
    assert answer.status_code == 200  # and it still answers
    assert_refusals_were_the_stores(*(counted(running, *one) - had for one, had in zip(counters, before, strict=True)))


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
