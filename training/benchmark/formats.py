"""Public splits in their published formats, read as they lie, compressed by gzip or not, whatever ends a line.

    lightgcn   a line a user: the user, then the user's items; TRAIN and TEST alike. The items are a set.
    ncf        a line an interaction: user, item, rating, time, tab-separated; `.train.rating`, `.test.rating`, and
               beside the latter `.test.negative`: `(user,item)`, then the items that the test item is ranked among.
    sequence   one file, a line a user: the user, then the user's items in order of time. The last item is the test.

Ids are any integers or strings. Where all ids of a file are integers they keep their numeric order, else that of their
letters; a code is a place in that order.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from pyarrow import csv

from recsys.bundle import Catalogue
from recsys.errors import UnusableInput
from training.benchmark.protocol import Asked, Split, rows_of
from training.dataset import TrainingData

FORMATS = ("lightgcn", "ncf", "sequence")
LONGEST_ID = 200
GZIP, BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"
FEW = 1000
"""One id among so many integers that is none is taken for a broken line."""


@dataclass(frozen=True)
class Pairs:
    """Interactions as they stand in a file, ids as bytes. n interactions."""

    users: np.ndarray  # (n,)
    items: np.ndarray  # (n,)
    lines: np.ndarray
    """Number of the line of each interaction. (n,)"""
    instants: np.ndarray | None = None
    """What the file says of the time; NaN where it says nothing. (n,)"""


def read(train: Path, test: Path | None, form: str) -> Split:
    """Read a split.

    Raises:
        UnusableInput: a file is missing, broken or empty, or they do not fit together.
    """
    if form not in FORMATS:
        raise UnusableInput("FORMAT", form, f"Choose among {', '.join(FORMATS)}")
    if (test is None) != (form == "sequence"):
        asked = "must be left out: the last item of each line is the test" if test else "is missing: name the test file"
        raise UnusableInput("TEST", test or "none", f"With FORMAT={form} it {asked}")
    if form == "lightgcn":
        return _lightgcn(train, test)
    return _ncf(train, test) if form == "ncf" else _sequence(train)


def _lightgcn(train: Path, test: Path) -> Split:
    known, asked = by_user(train), by_user(test)
    coder = Coder(known, asked, paths=(train, test))
    data = coder.data(known, is_ordered=False)
    users, items = coder.coded(asked)
    tested, start, listed = rows_of(users, items)
    return Split("lightgcn", data, Asked(tested, start, listed), coder.user_ids, coder.item_ids)


def _sequence(path: Path) -> Split:
    pairs = by_user(path)
    coder = Coder(pairs, paths=(path,))
    whole = coder.data(pairs, is_ordered=True)  # rows by user, then in order
    lengths = np.bincount(whole.users, minlength=len(coder.user_ids))  # (U,)
    last = (np.cumsum(lengths) - 1)[lengths > 1]
    kept = np.ones(len(whole.users), bool)
    kept[last] = False
    data = replace(whole, users=whole.users[kept], items=whole.items[kept], instants=whole.instants[kept])
    asked = Asked(whole.users[last], np.arange(len(last) + 1), whole.items[last])
    if not len(last):
        raise UnusableInput(f"lines of {path}", "none with two items", "The last item of a line is the test")
    return Split("sequence", data, asked, coder.user_ids, coder.item_ids)


def _ncf(train: Path, test: Path) -> Split:
    beside = negative_path(test)
    known, asked = ratings(train), ratings(test)
    negatives = Pairs(*_negatives(beside, asked))
    coder = Coder(known, asked, negatives, paths=(train, test, beside))
    data = coder.data(known, is_ordered=True)
    users, items = coder.coded(asked)
    _, listed = coder.coded(negatives)
    if len(np.unique(users)) < len(users):
        row = int(np.flatnonzero(np.bincount(users)[users] > 1)[-1])
        raise UnusableInput(
            f"line {row + 1} of {test}", asked.users[row].decode(), "A user is tested once; keep one line"
        )
    counts = np.bincount(negatives.lines - 1, minlength=len(users))  # (B,)
    candidates = np.full((len(users), counts.max() + 1), -1, np.int64)  # (B, 1 + N)
    candidates[:, 0] = items
    place = np.arange(len(listed)) - np.repeat(np.cumsum(counts) - counts, counts)
    row = negatives.lines - 1
    listed = np.where(listed == items[row], -1, listed)  # the test item itself stands among some negatives
    candidates[row, place + 1] = listed
    order = np.argsort(users, kind="stable")
    asked_of = Asked(users[order], np.arange(len(users) + 1), items[order], candidates[order])
    return Split("ncf", data, asked_of, coder.user_ids, coder.item_ids)


class Coder:
    """Ids to codes, over all files of a split. U users, I items."""

    def __init__(self, *files: Pairs, paths: tuple[Path, ...]):
        self.files, self.paths = files, paths
        self.user_ids, self._users = self._codes("users")
        self.item_ids, self._items = self._codes("items")

    def _codes(self, column: str) -> tuple[list[str], list[np.ndarray]]:
        parts = [getattr(file, column) for file in self.files]
        everything = np.concatenate(parts)
        numbers = _integers(everything)
        distinct, codes = np.unique(everything if numbers is None else numbers, return_inverse=True)
        if numbers is None:
            self._refuse_stranger(column, distinct)
        ids = [value.decode() if numbers is None else str(value) for value in distinct.tolist()]
        return ids, np.split(codes, np.cumsum([len(part) for part in parts])[:-1])

    def _refuse_stranger(self, column: str, distinct: np.ndarray) -> None:
        """Among thousands of integers, an id that is none is a broken line."""
        strange = np.array([not _is_integer(value) for value in distinct.tolist()])
        if len(distinct) < 20 or strange.sum() > max(1, len(distinct) // FEW):
            return
        for path, file in zip(self.paths, self.files, strict=True):
            at = np.flatnonzero(np.isin(getattr(file, column), distinct[strange]))
            if len(at):
                value = getattr(file, column)[at[0]].decode(errors="replace")
                raise UnusableInput(
                    f"line {file.lines[at[0]]} of {path}", value[:80], "All other ids are integers; mend the line"
                )

    def coded(self, file: Pairs) -> tuple[np.ndarray, np.ndarray]:
        """Return the codes of a file's users and items. Both (n,)"""
        number = next(number for number, one in enumerate(self.files) if one is file)
        return self._users[number], self._items[number]

    def data(self, file: Pairs, is_ordered: bool) -> TrainingData:
        """Return a file as training data. Its instants are places in the user's own order, in ms: ages in days mean
        nothing in a split that was published without its clock."""
        users, items = self.coded(file)
        told = np.zeros(len(users)) if file.instants is None else np.nan_to_num(file.instants, nan=-math.inf)
        order = np.lexsort((np.arange(len(users)), told, users))
        users, items = users[order], items[order]
        lengths = np.bincount(users, minlength=len(self.user_ids))
        place = np.arange(len(users)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        n_items = len(self.item_ids)
        catalogue = Catalogue(
            item_id=self.item_ids,
            domain=["products"] * n_items,
            title=[""] * n_items,
            categories=[[] for _ in range(n_items)],
            published_year=[None] * n_items,
        )
        return TrainingData(
            users.astype(np.int32), items.astype(np.int32), place, int(lengths.max()), catalogue, ("",) * n_items,
            is_ordered=is_ordered,
        )  # fmt: skip


def by_user(path: Path) -> Pairs:
    """Return the interactions of a file with a line a user; a user without items has none."""
    users, items, lines = [], [], []
    for number, tokens in _lines(path):
        users += tokens[:1] * (len(tokens) - 1)
        items += tokens[1:]
        lines += [number] * (len(tokens) - 1)
    if not items:
        raise UnusableInput(f"interactions in {path}", "none", "A line is a user and then the user's items, by spaces")
    pairs = Pairs(np.array(users), np.array(items), np.array(lines))
    order = np.argsort(pairs.users, kind="stable")
    return Pairs(pairs.users[order], pairs.items[order], pairs.lines[order])


def ratings(path: Path) -> Pairs:
    """Return the interactions of a file with a line an interaction: user, item [, rating [, time]]."""
    return _whole_columns(path) or _line_by_line(path)


def _whole_columns(path: Path) -> Pairs | None:
    """Read a file of four tab-separated columns at once; None where it is not quite one, to be read line by line."""
    names = ("user", "item", "rating", "time")
    kinds = {"user": pa.binary(), "item": pa.binary(), "rating": pa.float64(), "time": pa.float64()}
    try:
        with _opened(path) as file:
            table = csv.read_csv(
                pa.BufferReader(file.read()),
                csv.ReadOptions(column_names=names, use_threads=False),
                csv.ParseOptions(delimiter="\t", quote_char=False),
                csv.ConvertOptions(column_types=kinds),
            )
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid):
        return None
    users, items = (table[name].to_numpy().astype(bytes) for name in names[:2])
    rating, instants = (table[name].to_numpy() for name in names[2:])
    blank_or_wide = any(
        column.dtype.itemsize > LONGEST_ID or (column == b"").any() or b" " in column[0] for column in (users, items)
    )
    if not len(users) or blank_or_wide or not np.isfinite(rating).all() or np.isinf(instants).any():
        return None
    return Pairs(users, items, np.arange(1, len(users) + 1), instants)


def _line_by_line(path: Path) -> Pairs:
    users, items, lines, instants = [], [], [], []
    for number, tokens in _lines(path):
        if not 2 <= len(tokens) <= 4:
            raise UnusableInput(
                f"line {number} of {path}", f"{len(tokens)} columns", "A line is user, item, rating, time"
            )
        for what, value in zip(("rating", "time"), tokens[2:], strict=False):
            if not _is_finite(value):
                raise UnusableInput(
                    f"line {number} of {path}", f"{what} {value.decode()[:40]}", "It must be a finite number"
                )
        users.append(tokens[0])
        items.append(tokens[1])
        lines.append(number)
        instants.append(float(tokens[3]) if len(tokens) > 3 else math.nan)
    if not items:
        raise UnusableInput(f"interactions in {path}", "none", "A line is user, item, rating, time")
    return Pairs(np.array(users), np.array(items), np.array(lines), np.array(instants))


def negative_path(test: Path) -> Path:
    """Return where the negatives of a test file lie.

    Raises:
        UnusableInput: they do not lie beside it.
    """
    plain = test.name.removesuffix(".gz").removesuffix("rating") + "negative"
    found = [path for name in (plain, f"{plain}.gz") if (path := test.with_name(name)).is_file()]
    if not test.name.removesuffix(".gz").endswith(".rating") or not found:
        raise UnusableInput("negatives beside", test, f"Put {plain} or {plain}.gz there; TEST ends with .test.rating")
    return found[0]


def _negatives(path: Path, asked: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return users, items and test rows (from 1) of all negatives; a line answers to the test line of its number."""
    items, rows, row = [], [], 0
    for number, tokens in _lines(path):
        if tokens[0].endswith(b",") and len(tokens) > 1:  # (user, item)
            tokens = [tokens[0] + tokens[1], *tokens[2:]]
        user, _, item = tokens[0].removeprefix(b"(").removesuffix(b")").rpartition(b",")
        if row >= len(asked.users) or (user, item) != (asked.users[row], asked.items[row]) or len(tokens) < 2:
            wanted = b",".join((asked.users[row], asked.items[row])).decode() if row < len(asked.users) else "nothing"
            raise UnusableInput(
                f"line {number} of {path}", tokens[0].decode()[:80],
                f"Expected ({wanted}), as in the test file, and then negatives",
            )  # fmt: skip
        row += 1
        items += tokens[1:]
        rows += [row] * (len(tokens) - 1)
    if row < len(asked.users):
        raise UnusableInput(f"lines of {path}", row, f"The test has {len(asked.users)}; both need as many")
    at = np.array(rows)
    return asked.users[at - 1], np.array(items), at


def _lines(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Yield number and words of each line that is not blank.

    Raises:
        UnusableInput: the file cannot be read, or a line is no text.
    """
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, 1):
                tokens = line.removeprefix(BYTE_ORDER_MARK).split()
                if b"\0" in line or max(map(len, tokens), default=0) > LONGEST_ID or not _is_text(line):
                    raise UnusableInput(f"line {number} of {path}", "no text", "It must be UTF-8; is it another file?")
                if tokens:
                    yield number, tokens
    except FileNotFoundError as error:
        raise UnusableInput("file", path, "It is not there; check the path") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UnusableInput("file", path, f"It cannot be read ({error})") from error


def _opened(path: Path) -> IO[bytes]:
    """Open a file by what it is, not by what it is called."""
    with path.open("rb") as file:
        is_compressed = file.read(2) == GZIP
    return gzip.open(path) if is_compressed else path.open("rb")


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_integer(value: bytes) -> bool:
    return value.lstrip(b"-").isdigit()


def _is_finite(value: bytes) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _integers(values: np.ndarray) -> np.ndarray | None:
    """Return ids as whole numbers, of Python where they are huge; None if one is none."""
    if not _is_integer(values[0]):
        return None
    try:
        return values.astype(np.int64)
    except (OverflowError, ValueError):
        listed = values.tolist()
        return np.array([int(value) for value in listed], object) if all(map(_is_integer, listed)) else None
