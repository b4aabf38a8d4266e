"""Models of other libraries on the same splits, judged by our own metrics; the rows of part `peers` of bench/models.py.

A library is fitted and asked in an environment of its own (`python3.11 -m infra.local.setup --with-peers`): it reads
the codes that our reader gives, and returns lists, which are measured like ours. See bench/peer_lists.py.
"""

import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from infra.local.applications import ENVIRONMENTS
from recsys.settings import HOME
from training.benchmark.protocol import RANKS, Split, measure_answers

PYTHON = ENVIRONMENTS / "peers" / "bin" / "python"
SCRIPT = HOME / "bench" / "peer_lists.py"
SHOWN = ("hit_rate@10", "ndcg@10", "recall@20", "ndcg@20")


@dataclass(frozen=True)
class Peer:
    """One run of another library's model."""

    split: str
    library: str
    name: str
    settings: dict[str, Any]
    source: str
    """Where the settings are from."""
    seed: int = 1

    @property
    def model(self) -> str:
        """What the row is called by."""
        return f"peer {self.library} {self.name}"


def answers(peer: Peer, split: Split, folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Let the library fit and answer, by way of files in an empty folder. Lists int64 (B, K), and what they cost.

    Raises:
        SystemExit: its environment is not there, or its process failed.
    """
    if not PYTHON.is_file():
        raise SystemExit(f"{PYTHON} is not there: run `python3.11 -m infra.local.setup --with-peers`")
    if split.strangers():
        raise SystemExit(
            f"{peer.split} asks {split.strangers()} users without training; a peer cannot be asked about them"
        )
    task = {"library": peer.library, "model": peer.name, "settings": peer.settings, "ranks": RANKS, "seed": peer.seed}
    (folder / "task.json").write_text(json.dumps(task))
    np.savez(folder / "data.npz", users=split.train.users, items=split.train.items, asked=split.asked.users)
    done = subprocess.run([PYTHON, "-W", "ignore", SCRIPT, folder], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    lists = np.load(folder / "lists.npy")
    if lists.shape != (len(split.asked.users), RANKS):
        raise SystemExit(f"{peer.model} answered {lists.shape}, not {RANKS} items to each of {len(split.asked.users)}")
    return lists, json.loads((folder / "cost.json").read_text())


def measured(part: str, peer: Peer, split: Split) -> dict[str, Any]:
    """Run a peer and return its row."""
    with TemporaryDirectory() as scratch:
        lists, cost = answers(peer, split, Path(scratch))
    return row_of(part, peer, measure_answers(lists, split.train, split.asked).overall, cost)


def row_of(part: str, peer: Peer, values: dict[str, float], cost: dict[str, Any]) -> dict[str, Any]:
    """Put a peer's metrics and costs into a row as ours have it."""
    settings = " ".join(f"{key}={value}" for key, value in peer.settings.items())
    return {
        "part": part,
        "measure": f"{peer.split}: {peer.model}",
        "target": "the peer",
        "measured": ", ".join(f"{name} {values[name]:.4f}" for name in SHOWN)
        + f"; {cost['cpu_seconds']:.1f} CPU s (fit {cost['fit_cpu_seconds']:.1f}),"
        + f" {cost['peak_rss_bytes'] / 2**30:.2f} GiB; {peer.library} {cost['version']}; seed {peer.seed},"
        + f" {settings} ({peer.source}); {datetime.now(UTC).date().isoformat()}",
        "command": f"python -m bench.models FOLDER {part}",
    }
