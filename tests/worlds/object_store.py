"""A bucket: moto's S3 over HTTP, and Arrow's own client for it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from pyarrow import fs

from infra.local.service import NotHealthyYet, poll
from recsys.settings import HOME
from tests.ports import free_port

CLOUD = HOME / ".venv" / "cloud" / "bin" / "python"


@contextmanager
def bucket(folder: Path) -> Iterator[tuple[str, fs.FileSystem]]:
    """Yield Arrow's address of the folder `movies` of a bucket, and Arrow's file system for it."""
    if not CLOUD.exists():
        pytest.skip("moto comes with the clouds' environment, .venv/cloud, which is not installed")
    port = free_port()
    with (folder / "moto.log").open("wb") as log:
        server = subprocess.Popen(
            [str(CLOUD), "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def answers() -> None:
        assert server.poll() is None, (folder / "moto.log").read_text()
        try:
            urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5).close()
        except OSError as error:
            raise NotHealthyYet(str(error)) from error

    said = {"AWS_ACCESS_KEY_ID": "made", "AWS_SECRET_ACCESS_KEY": "up", "AWS_EC2_METADATA_DISABLED": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in said.items():
            patch.setenv(name, value)
        try:
            poll(answers, 120)
            options = f"?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
            store, _ = fs.FileSystem.from_uri(f"s3://raw{options}")
            store.create_dir("raw")
            yield f"s3://raw/movies{options}", store
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(20)


def put(store: fs.FileSystem, folder: Path) -> None:
    for path in sorted(folder.rglob("*.*")):
        with store.open_output_stream(f"raw/movies/{path.relative_to(folder)}", compression=None) as target:
            target.write(path.read_bytes())
