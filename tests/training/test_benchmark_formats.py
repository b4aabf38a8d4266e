"""The benchmark's formats: what their files say, however they are spelt, and which faults are told."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import RecsysError
from tests.worlds import checkerboard as world
from training.benchmark.formats import read
from training.benchmark.protocol import judge


class Oracle:
    """Scores from a table. (U, I)"""

    def __init__(self, table: np.ndarray):
        self.table = table

    def score_users(self, users: np.ndarray) -> np.ndarray:
        return self.table[users].copy()


def write(path: Path, lines: list[str]) -> Path:
    text = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def lightgcn(tmp_path: Path, user="{}".format, item="{}".format) -> tuple[Path, Path]:
    """The checkerboard, what is held back as the test."""
    used = world.histories()
    train = [" ".join([user(u), *map(item, items.tolist())]) for u, items in enumerate(used)]
    test = [" ".join([user(u), *map(item, sorted(world.held_back(u)))]) for u in range(world.USERS)]
    return write(tmp_path / "train.txt.gz", train), write(tmp_path / "test.txt", test)


def ncf(tmp_path: Path) -> tuple[Path, Path]:
    rng, train, test, negatives = np.random.default_rng(1), [], [], []
    for user, items in enumerate(world.histories()):
        order = rng.permutation(len(items))
        train += [f"{user}\t{items[place]}\t5\t{place}" for place in order]  # the file's order is not that of time
        wanted = min(world.held_back(user))
        others = [item for item in range(world.ITEMS) if item % 2 != user % 2]
        test.append(f"{user}\t{wanted}\t4\t99")
        negatives.append("\t".join([f"({user},{wanted})", *map(str, [*others, wanted][:13])]))
    write(tmp_path / "x.test.negative.gz", negatives)
    return write(tmp_path / "x.train.rating", train), write(tmp_path / "x.test.rating.gz", test)


@pytest.mark.parametrize(
    "spell", ["{}".format, lambda n: str(10**30 + int(n)), lambda n: f"-{int(n) + 1}7", lambda n: f"käse-{n}"]
)
def test_any_integers_and_strings_are_ids(tmp_path, spell):
    split = read(*lightgcn(tmp_path, item=spell), "lightgcn")
    assert len(split.user_ids) == world.USERS
    assert set(split.item_ids) <= {spell(item) for item in range(world.ITEMS)}
    for user, items in enumerate(world.histories()):
        code = split.user_ids.index(str(user))
        coded = split.train.items[split.train.users == code]
        assert [split.item_ids[item] for item in coded] == [spell(item) for item in items.tolist()]
        asked = split.asked.items[split.asked.start[code] : split.asked.start[code + 1]]
        assert {split.item_ids[item] for item in asked} == {spell(item) for item in world.held_back(user)}
    assert not split.train.is_ordered


def test_integers_keep_their_numeric_order(tmp_path):
    split = read(*lightgcn(tmp_path), "lightgcn")
    assert split.item_ids == [str(item) for item in range(world.ITEMS)]


def test_ncf_puts_a_user_in_the_order_of_time(tmp_path):
    split = read(*ncf(tmp_path), "ncf")
    for user, items in enumerate(world.histories()):
        assert split.train.items[split.train.users == user].tolist() == items.tolist()
    assert split.asked.items.tolist() == [min(world.held_back(user)) for user in range(world.USERS)]
    own = split.asked.candidates[:, :1]
    assert (split.asked.candidates[:, 1:] != own).all(), "the test item among its own negatives counts once"


def test_both_ways_of_reading_ratings_agree(tmp_path):
    train, test = ncf(tmp_path)
    whole = read(train, test, "ncf")
    write(train, [line.replace("\t", " ") for line in train.read_text().splitlines()])  # no longer four tab columns
    slow = read(train, test, "ncf")
    np.testing.assert_array_equal(whole.train.items, slow.train.items)
    np.testing.assert_array_equal(whole.train.users, slow.train.users)


def test_the_last_item_of_a_sequence_is_the_test(tmp_path):
    path = write(tmp_path / "s.txt", ["10 4 5 6", "9 7", "2 6 4"])
    split = read(path, None, "sequence")
    assert [split.user_ids[user] for user in split.asked.users] == ["2", "10"]
    assert [split.item_ids[item] for item in split.asked.items] == ["4", "6"]
    assert [split.item_ids[item] for item in split.train.items] == ["6", "7", "4", "5"]
    assert split.train.is_ordered


def half(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


BROKEN = {
    "missing": (lambda t: (t / "no.txt", t / "test.txt"), "lightgcn", "It is not there"),
    "empty test": (lambda t: (t / "train.txt.gz", write(t / "e.txt", ["3", ""])), "lightgcn", "interactions in"),
    "broken id": (
        lambda t: (t / "train.txt.gz", write(t / "e.txt", ["1 3", "2 4x"])), "lightgcn", "line 2 of .*e.txt: 4x",
    ),
    "binary": (lambda t: (t / "train.txt.gz", write(t / "e.txt", ["1 3", "2 \0"])), "lightgcn", "line 2 of"),
    "half a gzip": (lambda t: (half(t / "train.txt.gz"), t / "test.txt"), "lightgcn", "file: "),
    "unknown format": (lambda t: (t / "train.txt.gz", t / "test.txt"), "csv", "Choose among"),
    "no test": (lambda t: (t / "train.txt.gz", None), "lightgcn", "is missing"),
    "a test too many": (lambda t: (t / "train.txt.gz", t / "test.txt"), "sequence", "must be left out"),
    "one item a line": (lambda t: (write(t / "e.txt", ["1 2", "2 3"]), None), "sequence", "none with two items"),
    "columns": (
        lambda t: (write(t / "e", ["1\t2\t3\t4", "1\t2\t3\t4\t5"]), t / "x.test.rating.gz"), "ncf", "line 2 of .*5 col",
    ),
    "rating": (
        lambda t: (write(t / "e", ["1\t2\t3\t4", "1\t2\tnan\t4"]), t / "x.test.rating.gz"), "ncf", "rating nan",
    ),
    "no negatives": (
        lambda t: (t / "x.train.rating", write(t / "y.test.rating", ["1\t2\t3\t4"])), "ncf", "y.test.negative",
    ),
    "foreign negatives": (
        lambda t: (t / "x.train.rating", write(t / "x.test.rating", ["0\t1\t3\t4"])), "ncf", "line 1 of .*Expected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_one_sentence_that_names_it(tmp_path, fault):
    lightgcn(tmp_path)
    ncf(tmp_path)
    paths, form, sentence = BROKEN[fault]
    with pytest.raises(RecsysError, match=sentence):
        read(*paths(tmp_path), form)


SPELLINGS = {
    "blanks at the ends of lines": lambda text: text.replace(b"\n", b" \t \n"),
    "line ends of Windows": lambda text: text.replace(b"\n", b"\r\n"),
    "a mark of the byte order": lambda text: b"\xef\xbb\xbf" + text,
    "empty lines": lambda text: b"\n" + text.replace(b"\n", b"\n\n"),
    "no end of the last line": lambda text: text.rstrip(),
    "compressed without saying so": gzip.compress,
    "a blank within the brackets": lambda text: text.replace(b",", b", "),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("form", "write_files"), [("lightgcn", lightgcn), ("ncf", ncf), ("sequence", lightgcn)])
def test_however_a_file_is_spelt_it_says_the_same(tmp_path, form, write_files, spelling):
    paths = write_files(tmp_path) if form != "sequence" else (write_files(tmp_path)[0], None)
    plain = read(*paths, form)
    for path in tmp_path.iterdir():
        text = path.read_bytes()
        text = gzip.decompress(text) if path.suffix == ".gz" else text
        path.write_bytes(SPELLINGS[spelling](text))
    again = read(*paths, form)
    assert (again.user_ids, again.item_ids) == (plain.user_ids, plain.item_ids)
    for name in ("users", "items", "instants"):
        np.testing.assert_array_equal(getattr(again.train, name), getattr(plain.train, name))
    for name in ("users", "start", "items", "candidates"):
        np.testing.assert_array_equal(getattr(again.asked, name), getattr(plain.asked, name))


def test_users_without_items_and_what_only_one_of_the_files_knows(tmp_path):
    train = write(tmp_path / "train.txt", ["0 5 6 ", "1 ", "", "2 5 7", "3"])
    test = write(tmp_path / "test.txt", ["0 7", "1 6", "2 ", "9 99999999999999999999"])
    split = read(train, test, "lightgcn")
    assert [split.user_ids[user] for user in np.unique(split.train.users)] == ["0", "2"]
    assert [split.user_ids[user] for user in split.asked.users] == ["0", "1", "9"]
    assert split.strangers() == 2
    assert split.item_ids == ["5", "6", "7", "99999999999999999999"]
    judged = judge(Oracle(np.zeros((len(split.user_ids), 4), np.float32)), split.train, split.asked)
    assert judged.per_user["recall@20"].tolist() == [1, 1, 1], "every item that was not used is shown"
