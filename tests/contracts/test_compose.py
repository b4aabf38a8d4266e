"""`make compose-check`: our compose file is sound, and each fault that it is there for is found."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml

from infra import compose_check
from recsys.errors import CheckFailed, UnusableInput
from recsys.settings import HOME

OURS = HOME / "docker-compose.yml"


@pytest.fixture
def planted(tmp_path):
    """Return a function (text to find, text to put there) → the faults of a copy of our tree's compose files."""
    compose = yaml.safe_load(OURS.read_text())
    for name in ("docker-compose.yml", ".env.example", "pyproject.toml"):
        shutil.copy(HOME / name, tmp_path / name)
    dockerfiles = {service["build"]["dockerfile"] for service in compose["services"].values() if "build" in service}
    assert len(dockerfiles) == 2
    for name in dockerfiles:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HOME / name, tmp_path / name)
        for options, sources in compose_check.COPIED.findall((HOME / name).read_text()):
            for source in [] if "--from" in options or "$" in sources else sources.split():
                target = tmp_path / source
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    target.touch() if (HOME / source).is_file() else target.mkdir()

    def plant(old: str, new: str, file: str = "docker-compose.yml") -> str:
        text = (tmp_path / file).read_text()
        assert old in text, f"{file} has changed: plant this fault elsewhere"
        (tmp_path / file).write_text(text.replace(old, new, 1))
        return "\n".join(compose_check.faults_of(tmp_path / "docker-compose.yml"))

    plant.folder = tmp_path
    return plant


def test_our_file_is_sound():
    assert compose_check.faults_of(OURS) == []


def test_the_command_prints_what_it_judged():
    done = subprocess.run(
        [sys.executable, "-m", "infra.compose_check"], cwd=HOME, capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout.splitlines()[-1])

    assert {"postgres", "valkey", "kafka", "mlflow", "serving", "streaming", "dashboard"} <= set(said["services"])
    assert said["rules"] == 10


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("image: postgres:18.6", "image: postgres:latest", "postgres: image postgres:latest is not pinned"),
        ("image: postgres:18.6", "image: postgres", "image postgres is not pinned"),
        ("image: postgres:18.6", "image: postgres:18", "image postgres:18 is not pinned"),
        ("image: recsys/serving:0.1.0", "image: recsys/serving:0.0.9", "serving: image recsys/serving:0.0.9 is built"),
        ("    shm_size: 256m", "    shm_sise: 256m", "shm_sise"),
        ('test: ["CMD", "pg_isready"', 'disable: true\n      test: ["CMD", "pg_isready"', "postgres: has no health"),
        ('test: ["CMD", "pg_isready", "-h", "127.0.0.1", "-U", "recsys", "-d", "recsys"]', 'test: ["CMD", "true"]',
         "postgres: has no health check that can fail"),
        ('    restart: "no"', "    restart: always", "a one-shot that restarts"),
        ("POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:?set it in .env}", "POSTGRES_PASSWORD: recsys",
         "services.postgres.environment.POSTGRES_PASSWORD: a secret with a value"),
        ("VALKEY_PASSWORD: ${VALKEY_PASSWORD:?set it in .env}", "VALKEY_PASSWORD: ${VALKEY_PASSWORD:-recsys}",
         "VALKEY_PASSWORD: a secret with a value or a default"),
        ("recsys:${POSTGRES_PASSWORD:?set it in .env}@postgres:5432/recsys", "recsys:recsys@postgres:5432/recsys",
         "RECSYS_POSTGRES_URL: a secret with a value"),
        ("${AIRFLOW_FERNET_KEY:?set it in .env}", "${AIRFLOW_FERNET_KEY}", "AIRFLOW__CORE__FERNET_KEY: a secret"),
        ("${AIRFLOW_JWT_SECRET:?set it in .env}", "${OTHER_JWT_SECRET:?set it}", "does not name OTHER_JWT_SECRET"),
        ("RECSYS_MLFLOW_URL:", "RECSYS_MLFLOW_URI:", "RECSYS_MLFLOW_URI is no setting"),
        ('"127.0.0.1:15432:5432"', '"15432:5432"', "postgres: publishes 15432:5432"),
        ('"127.0.0.1:15432:5432"', '"0.0.0.0:15432:5432"', "postgres: publishes 0.0.0.0"),
        ("dockerfile: serving/Dockerfile", "dockerfile: serving/Dockerfile.gone", "serving/Dockerfile.gone does not"),
        ("      target: runtime", "      target: baked", "COPY of ${MODEL}/, which does not exist"),
        ("postgres: {condition: service_healthy}", "postgre: {condition: service_healthy}", "postgre, which is no"),
        ("postgres: {condition: service_healthy}", "postgres: {condition: service_started}", "to start only"),
        ('["postgres:/var/lib/postgresql"]', '["database:/var/lib/postgresql"]', "volume database is not declared"),
        ('["postgres:/var/lib/postgresql"]', '["./gone.conf:/etc/gone.conf"]', "mounts ./gone.conf"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(old, new, expected, planted):
    assert expected in planted(old, new)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (".env.example", "VALKEY_PASSWORD=\n", "", "does not name VALKEY_PASSWORD"),
        (".env.example", "VALKEY_PASSWORD=\n", "VALKEY_PASSWORD=secret\n", "gives VALKEY_PASSWORD a value"),
        (".env.example", "VALKEY_PASSWORD=\n", "VALKEY_PASSWORD=\nOLD=\n", "names OLD, which nothing requires"),
        ("infra/compose/Dockerfile.platform", "FROM apache/airflow:3.3.2-python3.11", "FROM apache/airflow:latest",
         "FROM apache/airflow:latest is not pinned"),
        ("serving/Dockerfile", "python:3.11-slim-bookworm", "python:slim", "python:slim is not pinned"),
        ("infra/compose/Dockerfile.platform", "COPY --chown=airflow:0 recsys", "COPY --chown=airflow:0 rexsys",
         "COPY of rexsys, which does not exist"),
    ],
)  # fmt: skip
def test_a_fault_beside_the_file_is_found(file, old, new, expected, planted):
    assert expected in planted(old, new, file)


def test_a_sound_copy_passes(planted):
    assert planted("name: recsys", "name: recsys") == ""


def test_all_faults_are_named_at_once_and_fail_the_command(planted):
    planted("image: postgres:18.6", "image: postgres:latest")
    planted("RECSYS_MLFLOW_URL:", "RECSYS_MLFLOW_URI:")

    with pytest.raises(CheckFailed, match=r"postgres:latest is not pinned.*RECSYS_MLFLOW_URI is no setting"):
        compose_check.check(planted.folder / "docker-compose.yml")


@pytest.mark.parametrize("text", ["", "services:", "a: [", "- services"])
def test_what_is_no_compose_file_is_refused(text, tmp_path):
    path = tmp_path / "docker-compose.yml"
    path.write_text(text)

    with pytest.raises(UnusableInput, match=r"docker-compose\.yml"):
        compose_check.check(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UnusableInput, match="cannot be read"):
        compose_check.check(tmp_path / "docker-compose.yml")
