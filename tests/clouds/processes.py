"""The real serving processes behind every emulator, and this machine's own answers to compare with; as fixtures."""

import json
import os
import signal
import subprocess
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from infra.local.service import NotHealthyYet, poll
from recsys.settings import HOME
from tests.clouds.conformance import REQUEST
from tests.ports import free_port

WORLD = """
import sys
from pathlib import Path
from tests.worlds.served import write_world
for version, backwards in (("1", False), ("2", True)):
    write_world(Path(sys.argv[1]) / version, "popularity", version, backwards)
"""


def answers_ping(url: str, log: Path) -> None:
    """Raise NotHealthyYet, with the last words of the process, unless it serves."""
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=2):
            return
    except OSError as error:
        raise NotHealthyYet(f"{url}: {error!r}; {log.read_text()[-2000:]}") from error


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> Path:
    """A folder with the bundles `1` and `2`; the second ranks the other way round."""
    folder = tmp_path_factory.mktemp("models")
    python = HOME / ".venv" / "platform" / "bin" / "python"
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    subprocess.run([python, "-c", WORLD, str(folder)], cwd=HOME, check=True, env=environment)
    return folder


def container_environment(model: Path, url: str, var_dir: Path) -> dict[str, str]:
    """Return the environment of a container with this model whose stores are out of reach."""
    return {
        **os.environ, "RECSYS_MODEL_DIR": str(model), "RECSYS_SERVING_URL": url,
        "RECSYS_VARIANT_WEIGHTS": '{"champion": 1.0}', "RECSYS_REDIS_URL": "redis://127.0.0.1:1/0",
        "RECSYS_KAFKA_BOOTSTRAP": "127.0.0.1:1", "RECSYS_VAR_DIR": str(var_dir),
    }  # fmt: skip


@pytest.fixture(scope="session")
def serving(bundles):
    """version → address of a real serving process with that version's bundle, started as SageMaker starts it."""
    urls, processes = {}, []
    for version in ("1", "2"):
        urls[version] = f"http://127.0.0.1:{free_port()}"
        environment = container_environment(bundles / version, urls[version], bundles)
        command = [HOME / ".venv" / "serving" / "bin" / "python", "-m", "serving", "serve"]
        log = (bundles / f"{version}.log").open("wb")
        processes.append(subprocess.Popen(command, cwd=HOME, env=environment, stdout=log, stderr=log))
    for version, url in urls.items():
        poll(partial(answers_ping, url, bundles / f"{version}.log"), 120)
    yield urls
    for process in processes:
        process.terminate()
    # uvicorn drains, then ends by the signal that it was asked with; 20 s are what SageMaker would wait
    assert {process.wait(20) for process in processes} <= {0, -signal.SIGTERM}


@pytest.fixture(scope="session")
def local(serving):
    """version → the answer of this machine's own API to the same request, by another door than the clouds'."""
    query = urllib.parse.urlencode({"k": REQUEST["k"], "items": ",".join(REQUEST["items"])})
    answers = {}
    for version, url in serving.items():
        with urllib.request.urlopen(f"{url}/v1/users/{REQUEST['user_id']}/recommendations?{query}") as answered:
            answers[version] = json.load(answered)
    assert answers["1"]["items"]
    assert answers["1"]["items"] != answers["2"]["items"]
    return answers
