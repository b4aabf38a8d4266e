"""Several releases side by side on this machine: a serving process a release, their shares in a file.

    deployment   recsys/<release>   a serving process with that version's bundle
    traffic      recsys             the shares, and the scaling policy, which one machine cannot follow

For trying a rollout, and for the conformance suite. The platform's own process (`make up`) has no shares:
`infra.local.deploy` gives it the champion, and that is what the step `canary` does where RECSYS_CLOUDS has no `local`.
"""

import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydantic import Field

from infra.blueprint import Read, State, state_of_deployments, traffic_of
from infra.prices import price
from infra.targets import CloudFault, Frozen, Key, NotReady, Release, Resource, Transient, digest_of
from recsys.settings import HOME, process_environment

KINDS = ("deployment", "traffic")
PREFIX = "recsys"
POLL_SECONDS = 0.1
PYTHON = HOME / ".venv" / "serving" / "bin" / "python"


class LocalConfig(Frozen):
    """Where on this machine."""

    bundles: str = Field(pattern=r"\{version\}", description="folder of a version's bundle with its deployment.json")
    state: Path = Field(description="folder of what runs; made when needed")
    registry: str = "localhost"
    wait_seconds: int = Field(60, ge=1, description="until a process counts as stuck")


class LocalBlueprint:
    """The resources of a state."""

    name, kinds, free = "local", KINDS, ()

    def __init__(self, config: LocalConfig):
        self.config, self.registry = config, config.registry

    def resources(self, state: State) -> list[Resource]:
        if not state.releases:
            return []
        found = [
            Resource(
                kind="deployment",
                name=f"{PREFIX}/{release.name}",
                spec={"version": release.version, "image": release.image},
                monthly_usd=price("local", "").monthly(),
                priced_by="local",
            )
            for release in state.releases
        ]
        return [*found, traffic_of(state, PREFIX)]

    def state(self, read: Read) -> State:
        return state_of_deployments(read, PREFIX)


class LocalPlane:
    """What runs, by the files in which it is written down: one a resource."""

    def __init__(self, config: LocalConfig, sleep: Callable[[float], None]):
        self._config, self._sleep, self._asked = config, sleep, 0

    def read(self, key: Key) -> dict[str, Any] | None:
        found = self._written(key)
        if found is None or (key.kind == "deployment" and not alive(found["pid"])):
            return None
        return found["spec"]

    def owned(self) -> list[Key]:
        files = sorted(self._config.state.glob("*.json"))
        names = [file.stem.split("~", 1) for file in files]
        found = [Key(kind, name.replace("~", "/")) for kind, name in names]
        return sorted(found, key=lambda key: KINDS.index(key.kind))

    def create(self, key: Key, spec: dict[str, Any]) -> None:
        if key.kind == "traffic":
            self._write(key, {"spec": spec})
            return
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        folder = Path(self._config.bundles.format(version=spec["version"]))
        if not folder.is_dir():
            raise NotReady("deployment", f"{key.name}: no bundle in {folder}", "Deploy that version once, or train it")
        self._config.state.mkdir(parents=True, exist_ok=True)
        environment = process_environment(RECSYS_MODEL_DIR=str(folder), RECSYS_SERVING_URL=url)
        with self._file(key).with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                [PYTHON, "-m", "serving", "serve"], cwd=HOME, env=environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._write(key, {"spec": spec, "pid": process.pid, "url": url})
        self._until_ready(key, process, url)

    def update(self, key: Key, spec: dict[str, Any]) -> None:
        self.delete(key)
        self.create(key, spec)

    def delete(self, key: Key) -> None:
        found = self._written(key)
        if found and "pid" in found:
            self._end(found["pid"])
        self._file(key).unlink(missing_ok=True)

    def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the process of a release, drawn by the shares in turn."""
        traffic = self.read(Key("traffic", PREFIX))
        if traffic is None:
            raise CloudFault("traffic", PREFIX, "Nothing is deployed here")
        self._asked += 1
        name = drawn(traffic["shares"], self._asked * 37 % 100)
        url = (self._written(Key("deployment", f"{PREFIX}/{name}")) or {}).get("url", "")
        asked = urllib.request.Request(
            f"{url}/invocations", json.dumps(request).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=60) as answered:
                return json.load(answered)
        except urllib.error.HTTPError as error:
            raise CloudFault("serving", f"{error.code} {error.read()[:300]!r}", "See its log") from error
        except OSError as error:
            raise Transient("serving", error, "It is not reached; the step may run again") from error

    def requests(self, since: datetime, until: datetime) -> int | None:
        """Nobody counts here, and nothing is paid for."""
        return None

    def batch(self, release: Release, source: str, destination: str) -> str:
        """Answer the files at `source` into `destination`, and return when it is done."""
        folder = self._config.bundles.format(version=release.version)
        environment = process_environment(RECSYS_MODEL_DIR=folder)
        done = subprocess.run(
            [PYTHON, "-m", "serving", "lines", source, destination], cwd=HOME, env=environment, capture_output=True,
        )  # fmt: skip
        if done.returncode:
            raise CloudFault("batch", done.stderr.decode()[-300:], "See the message")
        return f"{PREFIX}-{release.name}-{digest_of([source, destination])}"

    def _until_ready(self, key: Key, process: subprocess.Popen, url: str) -> None:
        for _ in range(round(self._config.wait_seconds / POLL_SECONDS)):
            with suppress(OSError), urllib.request.urlopen(f"{url}/ping", timeout=2):
                return
            if process.poll() is not None:
                break
            self._sleep(POLL_SECONDS)
        self._end(process.pid)
        self._file(key).unlink()
        log = self._file(key).with_suffix(".log").read_text()[-300:]
        raise NotReady("deployment", f"{key.name}: {log}", "See its log")

    def _end(self, pid: int) -> None:
        """Let the process drain; its own patience is shorter than this."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        for _ in range(200):
            if not alive(pid):
                return
            self._sleep(POLL_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def _file(self, key: Key) -> Path:
        return self._config.state / f"{key.kind}~{key.name.replace('/', '~')}.json"

    def _written(self, key: Key) -> dict[str, Any] | None:
        try:
            return json.loads(self._file(key).read_text())
        except FileNotFoundError:
            return None

    def _write(self, key: Key, document: dict[str, Any]) -> None:
        self._config.state.mkdir(parents=True, exist_ok=True)
        unfinished = self._file(key).with_suffix(".unfinished")
        unfinished.write_text(json.dumps(document))
        unfinished.replace(self._file(key))


Config, Blueprint, plane = LocalConfig, LocalBlueprint, LocalPlane
"""What `infra.configuration` takes from here."""


def drawn(shares: Mapping[str, int], place: int) -> str:
    """Return the release whose share of the hundred covers this place, from 0."""
    ends = accumulate(shares.values())
    return next(name for name, end in zip(shares, ends, strict=True) if place < end)


def alive(pid: int) -> bool:
    """Whether a process lives; a child that ended and was not waited for is waited for now."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
