"""Schemathesis as its users run it: every check, every phase, valid and invalid requests, against the serving process
with real Redis and Kafka behind it; REST by the OpenAPI document that it serves itself, GraphQL by its schema. The
quick version, in `make test`, is tests/serving/test_openapi.py."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

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
    settings = world("redis", "kafka")
    folder = tmp_path_factory.mktemp("whole")
    deploy(folder)
    with serving(folder, RECSYS_REDIS_URL=settings.redis_url, RECSYS_KAFKA_BOOTSTRAP=settings.kafka_bootstrap,
                 RECSYS_TOPIC_PREFIX=settings.topic_prefix) as (client, _):  # fmt: skip
        eventually(lambda: client.post("/v1/events", json=EVENT).raise_for_status())
        yield client


def schemathesis(folder: Path, *arguments: str) -> None:
    """Run its command line, with every check but one: no schema can say which instants lie in the future, or which
    characters are printable, so not all that it allows is accepted.

    Raises:
        AssertionError: it found something; the message is its report.
    """
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
    schemathesis(tmp_path, f"{running.base_url}/openapi.json", "--phases", "examples,coverage,fuzzing,stateful")
    answer = running.get(f"/v1/items/{EVEN[0]}/similar")
    assert answer.status_code == 200  # and it still answers


def test_it_finds_nothing_in_graphql(running, tmp_path):
    (tmp_path / "schema.graphql").write_text(SCHEMA.as_str())
    schemathesis(tmp_path, "schema.graphql", "--url", f"{running.base_url}/graphql", "--phases", "coverage,fuzzing")
    assert running.post("/graphql", json={"query": "{ __typename }"}).json() == {"data": {"__typename": "Query"}}
