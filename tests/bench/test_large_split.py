"""The large splits of the benchmark's own bench: made of small ones, nobody's items mixed with another shelf's."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from bench import large_split
from training.benchmark.formats import read

TRAIN = {0: [0, 1, 2], 1: [0, 3], 2: [4, 1, 0], 5: [3, 2]}
TEST = {0: [3], 1: [1], 5: [4]}


def packed(file: Path, lines: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


@pytest.fixture
def source(tmp_path) -> Path:
    for name, part in (("train", TRAIN), ("test", TEST)):
        lines = [f"{user} {' '.join(map(str, items))} " for user, items in part.items()]
        packed(tmp_path / large_split.BOOKS / f"{name}.txt.gz", lines)
    for file in (large_split.BEAUTY, large_split.TOYS):
        packed(tmp_path / file, ["1 1 2 3", "2 3 1", "3 2 3 1 4"])
    packed(tmp_path / large_split.FILMS, ["0\t1\t5\t2", "0\t0\t3\t1", "1\t1\t4\t", "1\t2\t4\t7"])
    return tmp_path


def ids(split, users: np.ndarray, items: np.ndarray) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for user, item in zip(users, items, strict=True):
        found.setdefault(split.user_ids[user], []).append(split.item_ids[item])
    return found


def test_two_users_are_one_with_two_shelves(source, tmp_path):
    split = read(*large_split.lightgcn(source, tmp_path, 100), "lightgcn")
    known = {user: set(map(int, items)) for user, items in ids(split, split.train.users, split.train.items).items()}
    assert known == {"0": {0, 1, 2, 5, 8}, "1": {4, 1, 0}, "2": {8, 7}}
    asked = np.repeat(split.asked.users, np.diff(split.asked.start))
    tested = {user: set(map(int, items)) for user, items in ids(split, asked, split.asked.items).items()}
    assert tested == {"0": {3, 6}, "2": {9}}


def test_shops_stand_side_by_side_in_order_of_time(source, tmp_path):
    split = read(*large_split.sequence(source, tmp_path, 100), "sequence")
    beauty = {"1": ["6", "7"], "2": ["3"], "3": ["7", "8", "6"]}
    toys = {"5": ["16", "17"], "6": ["13"], "7": ["17", "18", "16"]}
    assert ids(split, split.train.users, split.train.items) == beauty | toys


def test_the_last_item_stands_among_items_not_used(source, tmp_path, monkeypatch):
    monkeypatch.setattr(large_split, "NEGATIVES", 5)
    split = read(*large_split.ncf(source, tmp_path, 100), "ncf")
    known = ids(split, split.train.users, split.train.items)
    assert (len(split.asked.users), split.asked.candidates.shape) == (8, (8, 6))
    for user, candidates in zip(split.asked.users, split.asked.candidates, strict=True):
        shown = [split.item_ids[item] for item in candidates]
        assert len(set(shown)) == 6
        assert not set(shown) & set(known[split.user_ids[user]])
