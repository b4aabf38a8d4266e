"""The lake: raw tables as Parquet, one folder a partition, replaced as a whole.

    <lake>/<table>/domain=<d>/source=<s>/partition=<p>/part-*.parquet

A landing writes below `<lake>/.landing/` first and moves the folders into place when all are complete; one that is
killed before that leaves the old partitions untouched. The moves themselves are several: the receipt is withdrawn
before them and written after them, so nothing downstream reads a half-moved partition.
"""

import binascii
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.columns import EVENT_ID
from recsys.errors import RecsysError
from recsys.interval import Interval
from recsys.settings import Settings

TABLES = ("interactions", "items", "users", "details", "quarantine")


def lake_folder(settings: Settings) -> Path:
    """Return the lake's folder.

    Raises:
        RecsysError: the lake is in object storage, where a partition is not replaced by renaming folders.
    """
    if "://" in settings.lake:
        raise RecsysError("RECSYS_LAKE_URL", settings.lake, "Only a local or mounted folder can be landed in so far")
    return Path(settings.lake)


def partition_folder(lake: Path, table: str, domain: str, source: str, partition: str) -> Path:
    return lake / table / f"domain={domain}" / f"source={source}" / f"partition={partition}"


def parquet_files(folder: Path) -> list[Path]:
    """Return the data files of a partition, in order of their names; none where the folder is absent."""
    return sorted(folder.glob("part-*.parquet"))


def count_rows(folder: Path) -> int:
    """Return how many rows a partition holds, from the files' footers."""
    return sum(pq.read_metadata(path).num_rows for path in parquet_files(folder))


def count_reasons(folder: Path, table: str) -> dict[str, int]:
    """Return how many rows of `table` a quarantine partition holds, by reason."""
    reasons: dict[str, int] = {}
    for path in parquet_files(folder):
        columns = pq.read_table(path, columns=["table_name", "reason"], partitioning=None)
        of_table = columns.filter(pc.equal(columns["table_name"], table))
        for entry in of_table["reason"].value_counts().to_pylist():
            reasons[entry["values"]] = reasons.get(entry["values"], 0) + entry["counts"]
    return dict(sorted(reasons.items()))


def has_duplicates(folder: Path) -> bool:
    """Return whether two events of a partition may share their id: never a false no.

    Compares the first 64 of the id's 128 bits, eight bytes a row in memory; by chance alone two of a hundred million
    events agree in them once in some 3 700 partitions.
    """
    paths = parquet_files(folder)
    ends = np.cumsum([pq.read_metadata(path).num_rows for path in paths])
    prefixes = np.empty(ends[-1] if paths else 0, np.uint64)
    parts = np.split(prefixes, ends[:-1]) if paths else []  # views: the rows of each file have their place
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_read_prefixes, paths, parts))
    prefixes.sort()
    return bool((prefixes[1:] == prefixes[:-1]).any())


def has_equal(folder: Path, key: str) -> bool:
    """Return whether two rows of a partition have the same key, a column of text; all keys are in memory for that."""
    paths = parquet_files(folder)
    keys = pa.chunked_array(
        [chunk for path in paths for chunk in pq.read_table(path, columns=[key], partitioning=None)[key].chunks],
        pa.string(),
    )
    return pc.count_distinct(keys).as_py() < len(keys)


def _read_prefixes(path: Path, target: np.ndarray) -> None:
    """Fill in the first 64 bits of each event's id. (N,) uint64"""
    start = 0
    for batch in pq.ParquetFile(path).iter_batches(columns=[EVENT_ID], batch_size=1 << 18):
        digits = pc.binary_slice(batch[EVENT_ID].cast("binary"), 0, 16).buffers()[2]  # of all ids, nothing in between
        target[start : start + batch.num_rows] = np.frombuffer(binascii.unhexlify(digits), np.uint64)
        start += batch.num_rows


@dataclass(frozen=True)
class Draft:
    """The partitions that one landing writes, until they are moved into place."""

    lake: Path
    interval: Interval
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def _home(self) -> Path:
        """Drafts of this interval and these domains, those of killed landings too."""
        return self.lake / ".landing" / f"{self.interval.partition}+{'+'.join(self.interval.domains)}"

    @property
    def folder(self) -> Path:
        return self._home / self.name

    def begin(self) -> None:
        """Throw away what a killed landing of this interval left."""
        shutil.rmtree(self._home, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def partition(self, table: str, domain: str, source: str) -> Path:
        return partition_folder(self.folder, table, domain, source, self.interval.partition)

    def publish(self) -> None:
        """Replace the interval's partition of its domains, those of sources that are gone included."""
        replaced = self.folder / "replaced"
        pattern = f"source=*/partition={self.interval.partition}"
        for table in TABLES:
            for domain in self.interval.domains:
                home = f"{table}/domain={domain}"
                for old in sorted((self.lake / home).glob(pattern)):
                    _move(old, replaced / old.relative_to(self.lake))
                for new in sorted((self.folder / home).glob(pattern)):
                    _move(new, self.lake / new.relative_to(self.folder))
        shutil.rmtree(self._home)


def _move(folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
