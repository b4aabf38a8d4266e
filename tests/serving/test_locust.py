"""Locust against the process as it runs: each kind of user comes to its answers, and what is wrong counts as failed."""

import csv
import subprocess
from pathlib import Path

import pytest

from infra.local.applications import ENVIRONMENTS
from recsys.settings import HOME
from tests.serving.test_process import deploy, learn, serving
from tests.worlds.served import FILMS

LOCUST = ENVIRONMENTS / "load" / "bin" / "locust"
pytestmark = [
    pytest.mark.services,
    pytest.mark.soak,
    pytest.mark.skipif(not LOCUST.exists(), reason="Locust is missing: `make load` and `make soak` install it"),
]
KINDS = {"who is known", "a user's list", "a click", "items like one", "why these items", "a stranger's list",
         "a session's list", "20 lists"}  # fmt: skip


def let_loose(host: str, out: Path, seconds: int) -> tuple[int, dict[str, dict[str, str]]]:
    """Run Locust; return its exit code and its statistics by name."""
    command = [LOCUST, "-f", "bench/locustfile.py", "--headless", "--host", host, "--users", "30", "--spawn-rate", "30"]
    command += ["--run-time", f"{seconds}s", "--stop-timeout", "5", "--csv", str(out), "--only-summary"]
    done = subprocess.run([str(word) for word in command], cwd=HOME, capture_output=True, text=True, timeout=120)
    with Path(f"{out}_stats.csv").open() as file:
        return done.returncode, {row["Name"]: row for row in csv.DictReader(file)}


def test_every_kind_of_user_gets_its_answers(world, tmp_path):
    settings = world("redis", "kafka")
    for number in range(20):
        learn(settings, f"ml-1m:{number}", FILMS[number % 4 : number % 4 + 3])
    deploy(tmp_path)
    with serving(tmp_path) as (client, _):
        code, said = let_loose(str(client.base_url), tmp_path / "locust", 12)
    assert said.keys() == KINDS | {"Aggregated"}
    failed = {name: row["Failure Count"] for name, row in said.items() if row["Failure Count"] != "0"}
    assert not failed
    assert code == 0


def test_an_api_without_a_model_fails_its_users(world, tmp_path):
    world("redis", "kafka")
    with serving(tmp_path) as (client, _):
        code, said = let_loose(str(client.base_url), tmp_path / "locust", 6)
    assert int(said["a user's list"]["Failure Count"]) == int(said["a user's list"]["Request Count"]) > 0
    assert code == 1
