"""Zstandard files. Spark reads them by itself, unless they were packed with a window above 128 MiB, as Pushshift's are
(`zstd --long=31`): those are packed anew, once a session, by the library that Spark itself uses.

Format of a frame's beginning: RFC 8878, section 3.1.1.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from etl.remote import remote_of
from recsys.errors import UnusableInput

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MAGIC = b"\x28\xb5\x2f\xfd"
SINGLE_SEGMENT = 0x20
MAX_PLAIN_WINDOW, MAX_WINDOW = 1 << 27, 1 << 31  # bytes: what every reader takes; what `--long=31` needs


def window(head: bytes) -> int | None:
    """Return the window in bytes that the frame needs; 0 where its size is that of the content, None for no frame."""
    if head[:4] != MAGIC or len(head) < 6:
        return None
    if head[4] & SINGLE_SEGMENT:
        return 0
    base = 1 << (10 + (head[5] >> 3))
    return base + base // 8 * (head[5] & 7)


def has_wide_window(path: Path) -> bool:
    """Return whether only a reader that was told so takes this file."""
    with path.open("rb") as file:
        return (window(file.read(6)) or 0) > MAX_PLAIN_WINDOW


def open_binary(path: Path, mode: str = "rb") -> BinaryIO:
    """Open a file for reading, as `gzip.open` does.

    Raises:
        OSError: it does not begin like such a file, or has a wide window.
    """
    import pyarrow as pa

    return pa.CompressedInputStream(pa.OSFile(str(path), mode), "zstd")


def readable(spark: SparkSession, path: Path) -> str:
    """Return where Spark reads the file's lines: here, in its store, or in a copy with a narrower window.

    The copy lies in the session's own scratch folder and goes with it. Unpacking takes as much memory as the window.

    Raises:
        UnusableInput: the file is damaged or cut off, or lies in a store and has a wide window.
    """
    there, is_wide = remote_of(path), path.suffix == ".zst" and has_wide_window(path)
    if not is_wide:
        return str(path) if there is None else there.url
    if there is not None:
        raise UnusableInput("raw file", there.url, "Its window is above 128 MiB; fetch it with `python -m etl mirror`")
    from py4j.protocol import Py4JJavaError
    from pyspark import SparkFiles

    copy = Path(SparkFiles.getRootDirectory()) / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}-{path.name}"
    if copy.exists():
        return str(copy)
    draft = copy.with_suffix(".draft")
    java, library = spark._jvm.java.io, spark._jvm.com.github.luben.zstd
    try:
        source = library.ZstdInputStream(java.FileInputStream(str(path)))
        source.setLongMax(MAX_WINDOW.bit_length() - 1)
        target = library.ZstdOutputStream(java.FileOutputStream(str(draft)))
        source.transferTo(target)
        target.close()
        source.close()
    except Py4JJavaError as error:
        raise UnusableInput("raw file", path, "It is damaged or cut off; fetch it again") from error
    draft.rename(copy)
    return str(copy)
