"""From a served answer back to the raw partitions, and forward again, over real stores."""

import json
import subprocess
import sys

import pytest
import redis
from mlflow import MlflowClient

from recsys import receipts
from recsys.artifacts import REGISTERED_MODEL
from recsys.errors import MissingArtifact
from recsys.lineage import Partition, lineage
from recsys.settings import HOME
from recsys.user_state import record_key
from recsys.warehouse import connect

MOVIES = frozenset({"movies"})


@pytest.mark.parametrize(
    ("label", "domains", "as_of", "expected"),
    [
        ("history", {"movies", "books"}, "2026-11-02T00:00:00+00:00", True),
        ("history", {"books"}, "2026-11-02T00:00:00+00:00", False),
        ("2026-11-01", {"movies"}, "2026-11-02T00:00:00+00:00", True),
        ("2026-11-02", {"movies"}, "2026-11-02T00:00:00+00:00", False),
        ("history", {"movies"}, "", True),
    ],
)
def test_a_cut_reads_the_days_before_its_end(label, domains, as_of, expected):
    assert Partition("key", label, frozenset(domains), {}).is_read_by(MOVIES, as_of) is expected


@pytest.fixture(scope="module")
def settings(world):
    """Two partitions; version 1 learned before the second of them, version 2 after it and has answered once."""
    settings = world("postgres", "redis", "mlflow")
    client = MlflowClient(settings.mlflow_url)
    client.create_registered_model(REGISTERED_MODEL)
    for cut, day in (("cut-a", "2026-11-02"), ("cut-b", "2026-11-04")):
        run = client.create_run("0")
        tags = {"cut_id": cut, "as_of": f"{day}T00:00:00+00:00", "domains": "movies", "model": "ials"}
        client.create_model_version(REGISTERED_MODEL, run.info.artifact_uri, run.info.run_id, tags=tags)
    with connect(settings) as connection:
        for key in ("history/movies@2026-11-02", "2026-11-03/movies@2026-11-04"):
            receipts.record(connection, "etl.load", key, "f", {"rows": {"interactions": 7}})
        connection.execute(
            """
            insert into raw.impressions values
            ('e', 'r-1', 'u', 'i', 1, 0.5, 'movies', 'champion', '2', 0.98, 'personalised', '2026-11-05')
            """
        )
    record = {
        "answered_at": "2026-11-05T00:00:00Z", "variant": "champion", "rung": "personalised",
        "retrieval": {"model_version": "2", "cut_id": "cut-b"},
    }  # fmt: skip
    with redis.Redis.from_url(settings.redis_url) as store:
        store.set(record_key("r-1"), json.dumps(record))
    return settings


@pytest.mark.services
@pytest.mark.parametrize(
    ("id_", "kind", "partitions", "versions"),
    [
        ("r-1", "request", 2, {"2"}),
        ("2", "model version", 2, {"2"}),
        ("1", "model version", 1, {"1"}),
        ("cut-a", "data cut", 1, {"1"}),
        ("history", "raw partition", 1, {"1", "2"}),
        ("2026-11-03/movies@2026-11-04", "raw partition", 1, {"2"}),
    ],
)
def test_every_id_leads_back_and_forward(settings, id_, kind, partitions, versions):
    found = lineage(settings, id_)

    assert (found["kind"], len(found["partitions"])) == (kind, partitions)
    assert {version["version"] for version in found["versions"]} == versions
    assert {cut["cut_id"] for cut in found["cuts"]} == {{"1": "cut-a", "2": "cut-b"}[number] for number in versions}
    if "2" in versions:
        assert "r-1" in [request for version in found["versions"] for request in version["some_requests"]]


@pytest.mark.services
def test_an_id_of_nothing_is_said_in_one_sentence(settings):
    with pytest.raises(MissingArtifact, match="no raw partition, data cut or model version"):
        lineage(settings, "nobody")


@pytest.mark.services
def test_the_command_imports_nothing_heavy(settings):
    script = (
        "import sys; sys.argv[1:] = ['lineage', 'r-1']; from infra.local.__main__ import main; main(); "
        "print(sorted({'mlflow', 'pandas', 'numpy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=HOME, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
