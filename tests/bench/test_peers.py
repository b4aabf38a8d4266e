"""Another library beside ours: it is asked the same, and what it answers is measured like ours."""

import json
import sys

import numpy as np
import pytest

from bench import models, peer_lists, peers
from bench.report.results import ROW_OF_MODELS
from training.benchmark.formats import read

PEER = peers.Peer("split", "somebody", "ease", {"reg": 2.0}, "theirs")
ANSWERING = """
import json, pathlib, sys
import numpy as np
folder = pathlib.Path(sys.argv[-1])
task, data = json.loads((folder / "task.json").read_text()), np.load(folder / "data.npz")
assert task["settings"] == {"reg": 2.0} and (np.diff(data["users"]) >= 0).all()
lists = np.full((len(data["asked"]) + LONGER, task["ranks"]), -1)
lists[:2, :2] = [[3, 2], [0, 2]]
np.save(folder / "lists.npy", lists)
cost = {"cpu_seconds": 3.21, "fit_cpu_seconds": 1.5, "peak_rss_bytes": 2**30, "version": "1.2"}
(folder / "cost.json").write_text(json.dumps(cost))
"""


@pytest.fixture
def split(tmp_path):
    (tmp_path / "train.txt").write_text("0 0 1\n1 1 3\n")
    (tmp_path / "test.txt").write_text("0 3\n1 2\n")
    return read(tmp_path / "train.txt", tmp_path / "test.txt", "lightgcn")


def standing_in(monkeypatch, tmp_path, longer: int) -> None:
    script = tmp_path / "library.py"
    script.write_text(ANSWERING.replace("LONGER", str(longer)))
    monkeypatch.setattr(peers, "PYTHON", peers.Path(sys.executable))
    monkeypatch.setattr(peers, "SCRIPT", script)


def test_its_lists_are_measured_like_ours(monkeypatch, tmp_path, split):
    standing_in(monkeypatch, tmp_path, longer=0)

    row = peers.measured("peers", PEER, split)

    ndcg = (1 + 1 / np.log2(3)) / 2  # user 0 finds its item first, user 1 second
    assert row["measure"] == "split: peer somebody ease"
    assert row["measured"].startswith(f"hit_rate@10 1.0000, ndcg@10 {ndcg:.4f}")
    assert "somebody 1.2" in row["measured"]
    assert ROW_OF_MODELS.search(row["measured"]).groupdict() == {"cpu": "3.2", "fit": "1.5", "memory": "1.00"}


def test_lists_of_other_users_are_refused(monkeypatch, tmp_path, split):
    standing_in(monkeypatch, tmp_path, longer=1)
    with pytest.raises(SystemExit, match="not 20 items to each of 2"):
        peers.measured("peers", PEER, split)


def test_a_missing_environment_is_named_with_the_way_out(monkeypatch, tmp_path, split):
    monkeypatch.setattr(peers, "PYTHON", tmp_path / "none")
    with pytest.raises(SystemExit, match="--with-peers"):
        peers.measured("peers", PEER, split)


def test_what_a_user_has_used_is_never_in_the_list():
    scores = np.array([[0.9, 0.8, 0.7, -np.inf], [0.1, 0.2, 0.3, 0.4]])
    lists = peer_lists.best(scores, np.array([2, 5, 7, 7]), np.array([0, 1, 3, 0]), np.array([2, 7]), 3)
    assert lists.tolist() == [[1, 2, -1], [2, 1, -1]]


def test_every_peer_stands_behind_a_model_of_ours_on_the_same_split():
    rows = models.PARTS["peers"]
    assert [type(figure).__name__ for figure in rows] == ["Figure", "Peer"] * (len(rows) // 2)
    assert all(
        (ours.split, ours.model) == (theirs.split, theirs.name)
        for ours, theirs in zip(rows[::2], rows[1::2], strict=True)
    )
    assert json.dumps([peer.settings for peer in rows[1::2]])
