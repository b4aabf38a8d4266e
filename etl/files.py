"""Raw files as they lie on disk: where they are, whether they can be used at all, and what identifies their content."""

from __future__ import annotations

import bz2
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from etl import remote, zstd
from recsys.errors import UnusableInput
from recsys.receipts import file_fingerprint, fingerprint

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MAX_DEPTH = 4
PROBE_BYTES = 1 << 16
MAX_NUL_SHARE = 0.01  # text in a two-byte encoding has about one NUL in two bytes
COMPRESSIONS = {".gz": gzip.open, ".bz2": bz2.open, ".zst": zstd.open_binary}
BYTE_ORDER_MARK = "\ufeff"

Table = Literal["interactions", "items", "users", "details"]


@dataclass(frozen=True)
class RawFiles:
    """Files of one layout that feed one raw table.

    `source` is the data set's name: it names the partition, and the users' id space where the set numbers its own.
    `header` holds the columns that the first line of every file names; empty where the layout has no such line.
    `lookups` are dictionaries that the rows need to be understood, such as the names behind numbers: files of the same
    provider, read like these but not counted as rows.
    """

    source: str
    table: Table
    layout: str
    paths: tuple[Path, ...]
    header: tuple[str, ...] = ()
    header_lines: tuple[str, ...] = ()
    lookups: tuple[RawFiles, ...] = ()

    def joined(self, other: RawFiles) -> RawFiles:
        """Return both files as one entry."""
        return replace(
            self,
            paths=self.paths + other.paths,
            header_lines=self.header_lines + other.header_lines,
            lookups=tuple(merged([*self.lookups, *other.lookups])),
        )

    def lookup(self, layout: str) -> RawFiles | None:
        """Return the dictionary of this layout, or None."""
        return next((files for files in self.lookups if files.layout == layout), None)

    @property
    def bytes(self) -> int:
        """Size on disk, dictionaries included."""
        return sum(map(_bytes_of, self.paths)) + sum(files.bytes for files in self.lookups)

    @property
    def fingerprint(self) -> str:
        """Digest of the content, not of the place."""
        digests = sorted(map(_digest_of, self.paths))
        return fingerprint(
            self.source, self.table, self.layout, digests, *(files.fingerprint for files in self.lookups)
        )


def _bytes_of(path: Path) -> int:
    there = remote.remote_of(path)
    return path.stat().st_size if there is None else there.bytes


def _digest_of(path: Path) -> str:
    there = remote.remote_of(path)
    return file_fingerprint(path) if there is None else fingerprint(there.bytes, there.changed_ms)


class Source(Protocol):
    """One provider's official formats; a module of `etl.sources`.

    `cast` returns, beside `record` (the source's line) and `reason` (why the row is refused, or null), for the table
    interactions: user_id, item_id, rating, occurred_ms, event_type, own_id, context; for items and users the columns of
    their raw table without domain, source and landed_partition; for details those of `etl.casts.detail`.

    A module may define three more functions, each from landed or cast rows to rows:

        resolve(interactions) → interactions     what only the whole source knows, e.g. the author of a parent comment
        describe(items, details) → items         items with what the landed details say of them
        items_of(interactions) → items           items of a source that has no file of them
    """

    DOMAIN: str
    WANTED: str

    def discover(self, folder: Path) -> list[RawFiles] | None: ...
    def read(self, spark: SparkSession, files: RawFiles) -> DataFrame: ...
    def cast(self, frame: DataFrame, files: RawFiles) -> DataFrame: ...


def folders(root: Path) -> Iterator[Path]:
    """Yield `root` and the folders below it down to `MAX_DEPTH`, in order of their names; hidden ones are left out."""
    for current, below, _ in os.walk(root, followlinks=True):
        depth = len(Path(current).relative_to(root).parts)
        below[:] = sorted(name for name in below if not name.startswith(".")) if depth < MAX_DEPTH else []
        yield Path(current)


def official(folder: Path, name: str) -> Path | None:
    """Return the file of this official name in `folder`, plain before compressed, or None."""
    for suffix in ("", *COMPRESSIONS):
        if (path := folder / f"{name}{suffix}").is_file():
            return path
    return None


def merged(found: list[RawFiles]) -> list[RawFiles]:
    """Join entries that differ in their paths only: one source may be spread over several folders."""
    together: dict[tuple[str, str, str, tuple[str, ...]], RawFiles] = {}
    for files in found:
        key = (files.source, files.table, files.layout, files.header)
        known = together.get(key)
        together[key] = files if known is None else known.joined(files)
    return list(together.values())


def checked(files: RawFiles, required: tuple[str, ...] = ()) -> RawFiles:
    """Return `files` after a look at the first bytes of each; with `required`, the first line is a header.

    Raises:
        UnusableInput: a file cannot be opened or decompressed, is empty, is not text in a one-byte or UTF-8 encoding,
            holds nothing after its header, or its header lacks a required column.
    """
    headers = set()
    header_lines = []
    for path in files.paths:
        lines = _first_lines(path)
        if required:
            header_lines.append(lines[0])
            names = tuple(name.strip().strip('"') for name in lines[0].split(","))
            headers.add(names)
            if missing := [name for name in required if name not in names]:
                raise UnusableInput("raw file", path, f"Its header lacks {', '.join(missing)}; fetch the official file")
            if len(lines) < 2:
                raise UnusableInput("raw file", path, "It holds a header and no rows; put the official file there")
    if len(headers) > 1:
        raise UnusableInput("raw files", files.paths[-1], f"Its header differs from that of {files.paths[0]}")
    return replace(files, header=headers.pop() if headers else (), header_lines=tuple(header_lines))


def _first_lines(path: Path) -> list[str]:
    """Return the first non-blank lines that start in the first `PROBE_BYTES`, without a byte order mark; the last line
    may be cut."""
    if path.suffix == ".zst" and zstd.has_wide_window(path):
        return [""]  # not looked into before Spark unpacks it
    try:
        with COMPRESSIONS.get(path.suffix, open)(path, "rb") as file:
            head = file.read(PROBE_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UnusableInput("raw file", path, f"It cannot be read ({error}); fetch it again") from error
    if head.count(0) > len(head) * MAX_NUL_SHARE:
        raise UnusableInput("raw file", path, "It is not text in UTF-8 or Latin-1; put the official file there")
    text = head.decode(errors="replace").removeprefix(BYTE_ORDER_MARK)
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    if not lines:
        raise UnusableInput("raw file", path, "It is empty; put the official file there, or take this one away")
    return lines
