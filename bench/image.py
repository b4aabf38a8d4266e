"""Builds, pushes, pulls and asks a release's image through a real registry on loopback; publishes sizes and seconds.

python -m bench.image          (needs Debian's buildah, podman, runc, mmdebstrap and docker-registry)

The commands are a user's: `python -m infra build` and `push --target k8s`, with the champion of a real MLflow. Built in
an image store that holds the base image only, pulled into one that holds nothing, as a cloud's new machine would.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import requests

from bench.deploy_dag import DEAD, move_champion, platform, register
from bench.results import publish
from infra.local.applications import python_of
from infra.local.service import NotHealthyYet, poll
from infra.rollout import normal
from infra.tofu_check import secrets_in
from recsys.settings import HOME
from tests.ports import free_port
from tests.worlds.served import write_world

COMMAND = "python -m bench.image"
NEEDED = ("buildah", "podman", "runc", "mmdebstrap", "docker-registry")
BASE = "docker.io/library/python:3.11-slim-bookworm"
MAX_BYTES, READY_SECONDS, MB = 450_000_000, 60, 1e6
ASKED = {"user_id": "u", "k": 5, "items": ["movielens:01"]}
NOTES = """A registry of Debian's package `docker-registry` (the distribution project's own), on the loopback device;
the model is the tests' small one, 16 items, in ONNX. *Build*: all layers anew, packages from this machine's mirror of
the package index. *Pull*: into an empty store. *Ready*: from `podman run` with a read-only root, not as root and with
no store to lean on, to 200 at `/ping`. Bytes are those of `podman image inspect`; compressed, those of the layers in
the registry. The base image is that of `serving/image.sh base`, out of Debian's packages: Docker Hub is not reached."""


class Store(NamedTuple):
    """An image store of its own: what one machine holds."""

    environment: dict[str, str]

    def call(self, *command: object) -> str:
        done = subprocess.run(
            [str(part) for part in command], cwd=HOME, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
        return done.stdout

    def bytes_of(self, image: str) -> int:
        return json.loads(self.call("podman", "image", "inspect", image))[0]["Size"]


def store(folder: Path, registry: str) -> Store:
    """Make an empty store below this folder, which takes this registry without TLS."""
    folder.mkdir()
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/graph"\n'
    )
    (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    return Store({
        **os.environ, "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
    })  # fmt: skip


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Run a registry with its blobs below this folder; yield its address, `host:port`."""
    folder.mkdir()
    address = f"127.0.0.1:{free_port()}"
    document = {"version": 0.1, "log": {"level": "warn"}, "http": {"addr": address},
                "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}}}  # fmt: skip
    (folder / "registry.yml").write_text(json.dumps(document))  # JSON is YAML
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", folder / "registry.yml"], stdout=log, stderr=log)
    try:
        poll(partial(answers, f"http://{address}/v2/"), 30)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> None:
    """Raise NotHealthyYet unless this address answers with 200."""
    try:
        requests.get(url, timeout=2).raise_for_status()
    except requests.RequestException as error:
        raise NotHealthyYet(f"{url}: {error!r}") from error


@contextmanager
def container(machine: Store, image: str) -> Iterator[str]:
    """Run the image as a cloud does: read-only, without its stores; yield its address at once, before it is ready."""
    port = free_port()
    name = f"recsys-image-{port}"
    limits = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
    variables = {"RECSYS_SERVING_URL": f"http://127.0.0.1:{port}", **lonely()}
    given = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    machine.call("podman", "--runtime", "runc", "run", "--detach", "--name", name, "--network=host", "--read-only",
                 *limits, *given, image, "serve")  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        machine.call("podman", "rm", "--force", "--time", "20", name)


def lonely() -> dict[str, str]:
    """Return the settings of a serving process whose stores are out of reach."""
    return {"RECSYS_REDIS_URL": f"redis://{DEAD}/0", "RECSYS_KAFKA_BOOTSTRAP": DEAD,
            "RECSYS_VARIANT_WEIGHTS": '{"champion": 1.0}'}  # fmt: skip


@contextmanager
def beside(bundle: Path, folder: Path) -> Iterator[str]:
    """Run this machine's own serving process with the same bundle; yield its address."""
    url = f"http://127.0.0.1:{free_port()}"
    settings = {"RECSYS_SERVING_URL": url, "RECSYS_MODEL_DIR": str(bundle), "RECSYS_VAR_DIR": str(folder)}
    with (folder / "serving.log").open("wb") as log:
        process = subprocess.Popen([python_of("serving"), "-m", "serving", "serve"], cwd=HOME, stdout=log, stderr=log,
                                   env={**os.environ, **lonely(), **settings})  # fmt: skip
    try:
        poll(partial(answers, f"{url}/ping"), READY_SECONDS)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def own_pip_conf() -> str:
    """Return what this machine's pip is told, which the build has to be told too."""
    file = Path("/etc/pip.conf")
    return file.read_text() if file.is_file() else "[global]"


def asked(url: str) -> dict[str, Any]:
    answered = requests.post(f"{url}/invocations", json=ASKED, timeout=10)
    answered.raise_for_status()
    return answered.json()


def layers(address: str, name: str, tag: str) -> list[tuple[str, int]]:
    """Return digest and compressed bytes of an image's layers, as the registry has them."""
    kinds = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
    told = requests.get(f"http://{address}/v2/{name}/manifests/{tag}", headers={"Accept": kinds}, timeout=10)
    told.raise_for_status()
    return [(each["digest"], each["size"]) for each in told.json()["layers"]]


def held(address: str, name: str, tag: str, lent: bytes) -> list[str]:
    """Return the files of an image's layers that hold what was lent to its build, or of ours what looks like a key."""
    found = []
    for digest, _ in layers(address, name, tag):
        told = requests.get(f"http://{address}/v2/{name}/blobs/{digest}", timeout=60)
        told.raise_for_status()
        with tarfile.open(fileobj=BytesIO(told.content), mode="r:gz") as files:
            for member in filter(tarfile.TarInfo.isfile, files):
                content = files.extractfile(member).read()
                ours = member.name.startswith(("srv/", "model/"))
                if lent in content or (ours and secrets_in(content.decode(errors="replace"))):
                    found.append(member.name)
    return found


def timed(step: Any, *arguments: object) -> float:
    began = perf_counter()
    step(*arguments)
    return perf_counter() - began


def infra(machine: Store, step: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Run a step as a user does, and return what it says."""
    python = HOME / ".venv" / "cloud" / "bin" / "python"
    environment = {**machine.environment, **settings}
    done = subprocess.run([python, "-m", "infra", step, "--target", "k8s"], cwd=HOME, env=environment, check=True,
                          stdout=subprocess.PIPE, text=True)  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def row(measure: str, target: str, measured: str) -> dict[str, Any]:
    return {"measure": measure, "target": target, "measured": measured, "command": COMMAND}


def main() -> int:
    if missing := [tool for tool in NEEDED if shutil.which(tool) is None]:
        print(f"not installed here (Debian packages): {', '.join(missing)}", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recsys-image-")))
        scratch.chmod(0o711)  # passable: as root, PostgreSQL runs as an account of its own
        address = stack.enter_context(registry(scratch / "registry"))
        here, elsewhere = store(scratch / "here", address), store(scratch / "elsewhere", address)
        stack.callback(shutil.rmtree, scratch / "here" / "graph", ignore_errors=True)
        subprocess.run(["podman", "image", "save", "--quiet", "--output", scratch / "base.tar", BASE], check=True)
        here.call("podman", "image", "load", "--input", scratch / "base.tar")
        clouds = {"k8s": {"url": "http://127.0.0.1:1", "registry": address}}
        (scratch / "clouds.json").write_text(json.dumps(clouds))
        settings = stack.enter_context(platform(scratch / "var", with_airflow=False))
        register(settings.mlflow_url, 1)
        move_champion(settings.mlflow_url, "1")
        bundle = write_world(settings.var_dir / "serving" / "bundles" / "v1", "onnx", "1")
        lent = secrets.token_hex(16)
        (scratch / "pip.conf").write_text(f"{own_pip_conf()}\n# {lent}\n")
        given = {"PIP_CONFIG_FILE": str(scratch / "pip.conf"), "RECSYS_VAR_DIR": str(settings.var_dir),
                 "RECSYS_CLOUDS": str(scratch / "clouds.json")}  # fmt: skip

        built = timed(infra, here, "build", given)
        again = timed(infra, here, "build", given)
        pushed = timed(infra, here, "push", given)
        image = f"{address}/recsys:1"
        size, base = here.bytes_of(image), here.bytes_of(BASE)
        compressed = [size for _, size in layers(address, "recsys", "1")]
        leaks = held(address, "recsys", "1", lent.encode())
        pulled = timed(elsewhere.call, "podman", "pull", "--quiet", image)
        began = perf_counter()
        with container(elsewhere, image) as url, beside(bundle, scratch) as local:
            poll(partial(answers, f"{url}/ping"), READY_SECONDS)
            ready = perf_counter() - began
            far, near = asked(url), asked(local)
        same = normal(far) == normal(near) and bool(far["items"])
        shutil.rmtree(scratch / "elsewhere" / "graph", ignore_errors=True)

    rows = [
        row("image", f"at most {MAX_BYTES / MB:.0f} MB", f"{size / MB:.0f} MB, {(size - base) / MB:.0f} over its "
            f"base: {'met' if size <= MAX_BYTES else 'missed'}"),
        row("in the registry, compressed", "said", f"{sum(compressed) / MB:.0f} MB in {len(compressed)} layers"),
        row("a secret lent to the build, and keys, in any file of its layers", "none",
            f"{', '.join(leaks) or 'none'}: {'missed' if leaks else 'met'}"),
        row("`python -m infra build --target k8s`", "works", f"{built:.0f} s; with all layers there {again:.0f} s"),
        row("`python -m infra push --target k8s`", "works", f"{pushed:.0f} s"),
        row("pulled into an empty store", "works", f"{pulled:.0f} s"),
        row("started from the pulled image, to ready", "works", f"{ready:.1f} s"),
        row("its answer, and this machine's of the same bundle", "the same to the byte",
            f"{[item['item_id'] for item in far['items']]}, {'the same: met' if same else 'another: missed'}"),
    ]  # fmt: skip
    publish("image", "The serving image through a registry", rows, NOTES)
    return int(any(each["measured"].endswith("missed") for each in rows))


if __name__ == "__main__":
    sys.exit(main())
