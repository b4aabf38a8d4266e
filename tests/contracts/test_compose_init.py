"""The init step of docker-compose.yml, on real services: it makes what the others need, and may run again."""

import json
import subprocess
import sys

import psycopg
import pytest

from infra.local import broker
from recsys import artifacts
from recsys.settings import HOME


def run() -> dict:
    done = subprocess.run([sys.executable, "-m", "infra.compose"], cwd=HOME, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.services
def test_init_makes_tables_topics_and_databases_once(world, monkeypatch):
    settings = world("postgres", "kafka").model_copy(update={"topic_prefix": "compose-init."})
    monkeypatch.setenv("RECSYS_TOPIC_PREFIX", settings.topic_prefix)
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
        connection.execute(f"drop table {artifacts.RAW_QUARANTINE}")

    run()
    second = run()

    assert second["unchanged"] is True
    assert second["databases"] == []
    with broker.admin(settings) as client:
        assert {settings.topic_prefix + artifacts.TOPIC_INTERACTIONS, *second["topics"]} <= set(client.list_topics())
    with psycopg.connect(settings.postgres_url) as connection:
        databases = {name for (name,) in connection.execute("select datname from pg_database")}
        (table,) = connection.execute("select to_regclass(%s)", (artifacts.RAW_QUARANTINE,)).fetchone()
    assert {"mlflow", "airflow"} <= databases
    assert table
