"""MovieLens 1M from its rebuilt form back to the official three files, for the benchmarks.

    python -m bench.prepare_ml1m REBUILT_DIR OUT_DIR

REBUILT_DIR holds ratings.csv.gz (UserID, MovieID, Rating, Position, Timestamp), movies.dat.gz and users.dat.gz.
Position is the place of a rating in its user's own order of time and blank for few rows; Timestamp (Unix seconds) is
real where it is given and blank elsewhere. OUT_DIR gets ratings.dat, movies.dat and users.dat.

The missing instants are made, not found. For each user, over the rows with a position:

1. a known timestamp is kept;
2. between two known ones the instant is interpolated linearly by position and rounded down to a second;
3. before the first known one it is that instant less one second a position, after the last plus one second a position.

A row without a position keeps its timestamp if it has one, else it gets the median (the lower one) of its user's
instants. The order of each user's ratings is therefore the real one; the distances between them are not, so figures
that depend on the time of day or on gaps must not be read from this file. Same input, same bytes.

Writes the number of rows and of real timestamps to standard output as one line of JSON.
"""

import argparse
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd


def interpolated(ratings: pd.DataFrame) -> np.ndarray:
    """Return Unix seconds, one a row, for rating rows with UserID, Position and Timestamp (NaN where blank).

    Raises:
        ValueError: a user has no known timestamp at a known position.
    """
    instants = ratings["Timestamp"].to_numpy(dtype=float).copy()  # (N,)
    for user, rows in ratings.groupby("UserID", sort=True).indices.items():
        position = ratings["Position"].to_numpy()[rows]
        placed = rows[np.isfinite(position)]
        place = position[np.isfinite(position)]
        known = np.isfinite(instants[placed])
        if not known.any():
            raise ValueError(f"user {user} has no known timestamp")
        order = np.argsort(place[known], kind="stable")
        at, seconds = place[known][order], instants[placed][known][order]
        filled = np.interp(place, at, seconds)
        filled = np.where(place < at[0], seconds[0] - (at[0] - place), filled)
        filled = np.where(place > at[-1], seconds[-1] + (place - at[-1]), filled)
        instants[placed] = np.where(known, instants[placed], np.floor(filled))
        blank = rows[~np.isfinite(position) & ~np.isfinite(instants[rows])]
        instants[blank] = np.sort(instants[placed])[(len(placed) - 1) // 2]
    return instants.astype(np.int64)


def prepare(rebuilt: Path, out: Path) -> dict[str, int]:
    """Write the official files and return the counts."""
    ratings = pd.read_csv(rebuilt / "ratings.csv.gz")
    out.mkdir(parents=True, exist_ok=True)
    lines = ratings[["UserID", "MovieID", "Rating"]].assign(Timestamp=interpolated(ratings)).astype(str)
    text = lines["UserID"] + "::" + lines["MovieID"] + "::" + lines["Rating"] + "::" + lines["Timestamp"]
    (out / "ratings.dat").write_text("\n".join(text) + "\n")
    for name in ("movies.dat", "users.dat"):
        with gzip.open(rebuilt / f"{name}.gz") as packed, (out / name).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    return {"rows": len(ratings), "real_timestamps": int(ratings["Timestamp"].notna().sum())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.prepare_ml1m")
    parser.add_argument("rebuilt_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(prepare(arguments.rebuilt_dir, arguments.out_dir)))
