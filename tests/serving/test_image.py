"""The image: built and run without a daemon, as root or not, from what serving/Dockerfile says."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator

import httpx
import pytest
import tenacity

from recsys.settings import HOME
from tests.ports import free_port
from tests.worlds.served import ODD, write_world

MISSING = [tool for tool in ("buildah", "podman", "runc", "mmdebstrap") if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed here (Debian packages): {', '.join(MISSING)}"),
]
TAG = "localhost/recsys-serving:test"
BASE = "docker.io/library/python:3.11-slim-bookworm"
MAX_BYTES, MAX_BYTES_OVER_BASE = 450_000_000, 320_000_000
PODMAN = ("podman", "--runtime", "runc")


def call(*command: object, **options: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=HOME, **options)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def size(image: str) -> int:
    return json.loads(call("podman", "image", "inspect", image))[0]["Size"]


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Iterator[str]:
    script = HOME / "serving" / "image.sh"
    if subprocess.run(["podman", "image", "exists", BASE]).returncode:
        call(script, "base")
    call(script, "build", TAG, write_world(tmp_path_factory.mktemp("model"), "onnx", version="7"))
    yield TAG
    call("podman", "rmi", "--force", TAG)


@pytest.fixture(scope="module")
def container(image) -> Iterator[tuple[str, httpx.Client]]:
    """The image as SageMaker starts it, with a read-only root and no service to lean on."""
    port = free_port()
    dead = free_port()
    name = f"recsys-serving-test-{port}"
    call(
        *PODMAN, "run", "--detach", "--name", name, "--network=host", "--read-only",
        "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096",
        "--env", f"RECSYS_SERVING_URL=http://127.0.0.1:{port}",
        "--env", f"RECSYS_REDIS_URL=redis://127.0.0.1:{dead}/0", "--env", f"RECSYS_KAFKA_BOOTSTRAP=127.0.0.1:{dead}",
        "--env", 'RECSYS_VARIANT_WEIGHTS={"champion": 1}',
        image, "serve",
    )  # fmt: skip
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        try:
            for attempt in tenacity.Retrying(
                stop=tenacity.stop_after_delay(60),
                wait=tenacity.wait_fixed(0.1),
                retry=tenacity.retry_if_exception_type((httpx.TransportError, AssertionError)),
                reraise=True,
            ):
                with attempt:
                    assert client.get("/ping").status_code == 200
            yield name, client
        finally:
            call("podman", "rm", "--force", "--time", "20", name)


def test_the_baked_model_answers_at_each_door(container):
    _, client = container
    wanted = {"user_id": "u", "k": 2, "items": [ODD[0]]}
    answers = [
        client.get("/v1/users/u/recommendations", params={"k": 2, "items": ODD[0]}).json(),
        client.post("/invocations", json=wanted).json(),
        client.post("/score", json=wanted).json(),
        client.post("/predict", json={"instances": [wanted]}).json()["predictions"][0],
    ]
    for answer in answers:
        assert (answer["model_version"], answer["rung"]) == ("7", "session")
        assert [item["item_id"] for item in answer["items"]] == ODD[1:3]


def test_it_is_not_root_cannot_write_and_carries_no_training_framework(container):
    name, _ = container
    heavy = ("torch", "tensorflow", "pandas", "feast", "mlflow", "pytest")
    code = (
        "import os, pathlib, importlib.util as u; "
        f"print(os.getuid(), os.access('/srv', os.W_OK), [n for n in {heavy} if u.find_spec(n)], "
        "sorted(p.name for p in pathlib.Path('/srv').iterdir()))"
    )
    assert call(*PODMAN, "exec", name, "python", "-c", code).strip() == "10001 False [] ['recsys', 'serving']"


def test_it_declares_its_health_check_port_and_user(image):
    (described,) = json.loads(call("podman", "image", "inspect", image))
    config = described["Config"]
    assert config["User"] == "10001:10001"
    assert "8080/tcp" in config["ExposedPorts"]
    assert (config["Entrypoint"], config["Cmd"]) == (["python", "-m", "serving"], ["serve"])
    assert "/healthz" in json.dumps(
        described["HealthCheck"] if "HealthCheck" in described else described["Healthcheck"]
    )


def test_it_adds_little_to_its_base(image, record_property):
    added = size(image) - size(BASE)
    record_property("image_bytes_over_base", added)
    assert 0 < added < MAX_BYTES_OVER_BASE
    assert size(image) < MAX_BYTES


def test_the_script_says_how_to_use_it():
    done = subprocess.run([HOME / "serving" / "image.sh"], capture_output=True, text=True, env=os.environ.copy())
    assert done.returncode == 2
    assert "image.sh build TAG" in done.stderr
