"""Raw files of any size for the measurements of the landing and the warehouse: real ratings, tiled and jittered.

Each tile is the whole real file with other user numbers and with instants moved by up to `JITTER_DAYS`, so that users,
items and days keep their real distributions. Written in MovieLens' official CSV layout.
"""

import gzip
import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

JITTER_DAYS = 30
DAY = 86_400
HEADER = ("userId", "movieId", "rating", "timestamp")


@dataclass(frozen=True)
class Ratings:
    """Columns of a ratings file: (N,) each."""

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    instants: np.ndarray

    @property
    def last_day(self) -> date:
        """The last day that every tile covers."""
        return datetime.fromtimestamp(int(self.instants.max()), UTC).date() - timedelta(days=JITTER_DAYS)


def read(path: Path) -> Ratings:
    """Return a real `ratings.csv.gz`."""
    table = csv.read_csv(pa.CompressedInputStream(pa.OSFile(str(path)), "gzip"))
    return Ratings(*(table[name].to_numpy() for name in HEADER))


def write(
    real: Ratings, movies: Path, rows: int, history: Path, day: Path, as_of: date, seed: int = 1
) -> tuple[int, int]:
    """Write `rows` ratings before `as_of` into the folder `history`, and those of that very day into `day`; both with
    the films. Returns the rows of each.
    """
    end = int(datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC).timestamp())
    random, left, of_day = np.random.default_rng(seed), rows, 0
    span = int(real.users.max()) + 1
    sinks = {}
    for folder in (history, day):
        folder.mkdir(parents=True, exist_ok=True)
        with gzip.open(movies) as packed, (folder / "movies.csv").open("wb") as plain:
            shutil.copyfileobj(packed, plain)
        sinks[folder] = (folder / "ratings.csv").open("wb")
        sinks[folder].write((",".join(HEADER) + "\n").encode())
    tile = 0
    while left:
        moved = real.instants + random.integers(-JITTER_DAYS * DAY, JITTER_DAYS * DAY, len(real.instants))
        moved = np.maximum(moved, real.instants.min())
        users = real.users + tile * span
        past, today = np.flatnonzero(moved < end)[:left], np.flatnonzero((moved >= end) & (moved < end + DAY))
        for folder, chosen in ((history, past), (day, today)):
            columns = (users[chosen], real.items[chosen], real.ratings[chosen], moved[chosen])
            table = pa.table(dict(zip(HEADER, columns, strict=True)))
            csv.write_csv(table, sinks[folder], csv.WriteOptions(include_header=False))
        left, of_day, tile = left - len(past), of_day + len(today), tile + 1
    for sink in sinks.values():
        sink.close()
    return rows, of_day
