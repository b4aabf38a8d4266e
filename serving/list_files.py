"""The precomputed lists as Parquet, beside the table: for bulk consumers that read files.

    <lake>/precomputed_lists/domain=<d>/part-00000.parquet      user_id, rank, item_id, score, model_version

`precomputed_lists` is a link, moved when all parts of a batch are complete: a reader has one batch or the other.
A batch under way writes into a folder of its own and keeps its place there: whoever goes on takes from the table what
the last part did not hold yet. A part ends where a user ends, users ascend. Needs pyarrow, which the thin image lacks.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.artifacts import PRECOMPUTED_LISTS_FOLDER
from recsys.errors import RecsysError
from recsys.settings import Settings

ROWS_A_PART = 200_000
SCHEMA = pa.schema([
    ("user_id", pa.string()), ("rank", pa.int32()), ("item_id", pa.string()), ("score", pa.float64()),
    ("model_version", pa.string()),
])  # fmt: skip
VERSIONS = f".{PRECOMPUTED_LISTS_FOLDER}"
PLACE = "place.json"

Row = tuple[Any, ...]
"""user_id, domain, rank, item_id, score, model_version: a row of the table."""


class Place(NamedTuple):
    """How far the files of a batch have come."""

    parts: int = 0
    after_user: str = ""


def link_of(settings: Settings) -> Path:
    """Return where the lists in force are.

    Raises:
        RecsysError: the lake is in object storage, where nothing can be put in place as one.
    """
    if "://" in settings.lake:
        raise RecsysError("RECSYS_LAKE_URL", settings.lake, "Choose a local or mounted folder, or `--without-files`")
    return Path(settings.lake) / PRECOMPUTED_LISTS_FOLDER


def are_there(settings: Settings, wanted: str) -> bool:
    """Whether the lists in force are those of this fingerprint."""
    link = link_of(settings)
    return link.is_symlink() and link.exists() and link.readlink().name == wanted[:16]


class ListFiles:
    """The files of a batch under way."""

    def __init__(self, settings: Settings, wanted: str, rows_a_part: int = ROWS_A_PART):
        """Go on where a batch of this fingerprint stands; nothing is written yet."""
        self._link, self._rows_a_part = link_of(settings), rows_a_part
        self._whole = self._link.with_name(VERSIONS) / wanted[:16]
        self._begun = self._whole.with_suffix(".begun")
        self._waiting: list[Row] = []
        path = self._begun / PLACE
        self.place = Place(**json.loads(path.read_text())) if path.exists() else Place()

    def begin_anew(self) -> None:
        """Forget what is there of a batch under way."""
        shutil.rmtree(self._begun, ignore_errors=True)
        self.place = Place()

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows of whole users, behind those that were taken before; call `keep` when the table has them."""
        self._waiting.extend(rows)

    def keep(self) -> None:
        """Write a part, if enough waits for one."""
        if len(self._waiting) >= self._rows_a_part:
            self._write()

    def put_in_place(self) -> int:
        """Write what waits, move the link, and remove the lists that it left; return the number of parts."""
        if self._waiting:
            self._write()
        self._begun.mkdir(parents=True, exist_ok=True)
        parts = self.place.parts
        (self._begun / PLACE).unlink(missing_ok=True)
        if self._whole.exists():  # of the same inputs: the same lists
            shutil.rmtree(self._begun)
        else:
            self._begun.rename(self._whole)
        new = self._link.with_name(f"{VERSIONS}.link")
        new.unlink(missing_ok=True)
        new.symlink_to(self._whole.relative_to(self._link.parent))
        new.replace(self._link)
        for other in self._whole.parent.iterdir():
            if other != self._whole:
                shutil.rmtree(other)
        return parts

    def _write(self) -> None:
        """Write the rows that wait as one part; until the place says so, it is written again."""
        by_domain: dict[str, list[Row]] = defaultdict(list)
        for user_id, domain, *others in self._waiting:
            by_domain[domain].append((user_id, *others))
        for domain, rows in by_domain.items():
            folder = self._begun / f"domain={domain}"
            folder.mkdir(parents=True, exist_ok=True)
            columns = [
                pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)
            ]
            table = pa.Table.from_arrays(columns, schema=SCHEMA)
            pq.write_table(table, folder / f"part-{self.place.parts:05}.parquet", compression="zstd")
        self.place = Place(self.place.parts + 1, self._waiting[-1][0])
        draft = self._begun / f"{PLACE}.draft"
        draft.write_text(json.dumps(self.place._asdict()))
        draft.replace(self._begun / PLACE)
        self._waiting.clear()
