"""What a batch of Azure ML runs inside the serving image: files with one request a line → one answer a line.

Azure's contract for batch deployments: `init()` once a process, then `run(mini_batch)` with paths of files; what it
returns is appended to the output file, a row each. The serving process itself answers, so a batch and the endpoint
cannot disagree. `init` starts it on a free port of the loopback address.
"""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

PATIENCE_S = 60
_url = ""


def init() -> None:
    """Start the serving process and wait until it answers."""
    global _url
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "serving", "serve", "--host", "127.0.0.1", "--port", str(port)])
    _url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"{_url}/readyz", timeout=2):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def run(mini_batch: list[str]) -> list[str]:
    """Return the answers to all lines of these files, in order."""
    return [answer(line) for path in mini_batch for line in Path(path).read_text().splitlines() if line]


def answer(line: str) -> str:
    """Return one answer, or for a request that serving refuses its error, as one line of JSON."""
    asked = urllib.request.Request(f"{_url}/score", line.encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=60) as answered:
            return json.dumps(json.load(answered))
    except urllib.error.HTTPError as error:
        return error.read().decode()
