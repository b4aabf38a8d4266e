"""Files with one request a line → one answer a line, by the serving process itself: batch and endpoint cannot disagree.

    python -m serving lines SOURCE DESTINATION     a Kubernetes Job; files, or folders of files

`init` and `run` are Azure ML's contract for batch deployments: `init()` once a process, `run(mini_batch)` with paths,
what it returns is appended to the output. Standard library only: Azure loads this file as a script of its own.
Source: Azure ML "Author scoring scripts for batch deployments".
"""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 60
_url = ""


def init() -> None:
    """Start a serving process on a free port of the loopback address; it lives as long as this one."""
    global _url
    _, _url = _start()


def run(mini_batch: Sequence[str | Path]) -> list[str]:
    """Return the answers to all lines of these files, in order."""
    return [_answer(_url, line) for path in mini_batch for line in Path(path).read_text().splitlines() if line.strip()]


def answer_files(source: Path, destination: Path) -> int:
    """Answer a file, or all files of a folder, into a file or folder of the same names; return how many lines.

    A destination is there whole or not at all; one that is there is written anew.
    """
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    count = 0
    with _serving() as url:
        for file in files:
            target = destination / file.name if source.is_dir() else destination
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_name(f".{target.name}.unfinished")
            with file.open() as lines, unfinished.open("w") as written:
                for line in lines:
                    if line.strip():
                        written.write(_answer(url, line) + "\n")
                        count += 1
            unfinished.replace(target)
    return count


@contextmanager
def _serving() -> Iterator[str]:
    process, url = _start()
    try:
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _start() -> tuple[subprocess.Popen, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "serving", "serve", "--host", "127.0.0.1", "--port", str(port)])
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return process, url
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise
            time.sleep(0.1)


def _answer(url: str, line: str) -> str:
    """Return one answer, or of a request that serving refuses the error, as one line of JSON."""
    asked = urllib.request.Request(f"{url}/score", line.encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=60) as answered:
            return answered.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()
