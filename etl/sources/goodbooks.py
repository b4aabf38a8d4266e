"""goodbooks-10k (Z. Zając): ratings.csv, to_read.csv and books.csv, each plain or compressed.

The files hold **no instants**. Every row gets the last second of 2017, the year of publication that the data set's
citation gives: the truth about each of them is "not later", and their context says `{"instant": "unknown"}`, so that a
temporal split or an activity feature can leave them out. The instant is a constant, so landing again changes nothing.

A rating is `rate`, a mark in to_read.csv is `click` without a rating. Version 1 orders the columns book_id, user_id,
version 2 the other way round: the header decides.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from etl.files import RawFiles, checked, official
from recsys.columns import CONTEXT, ITEM_ID, RATING, USER_ID

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

DOMAIN = "books"
WANTED = "goodbooks-10k as it was unpacked: ratings.csv, books.csv and, if you like, to_read.csv in one folder"
NAME = "goodbooks"

PUBLISHED_AT = datetime(2017, 12, 31, 23, 59, 59, tzinfo=UTC)
UNKNOWN_INSTANT = '{"instant":"unknown"}'

HEADERS = {
    "ratings.csv": ("user_id", "book_id", "rating"),
    "to_read.csv": ("user_id", "book_id"),
    "books.csv": ("book_id", "authors", "original_publication_year", "title"),
}
TABLES = {"ratings.csv": "interactions", "to_read.csv": "interactions", "books.csv": "items"}


def discover(folder: Path) -> list[RawFiles] | None:
    """Return the data set's files, or None where ratings.csv and books.csv are not both in this folder."""
    found = {name: official(folder, name) for name in HEADERS}
    if found["ratings.csv"] is None or found["books.csv"] is None:
        return None
    return [
        checked(RawFiles(NAME, TABLES[name], name, (path,)), HEADERS[name])
        for name, path in found.items()
        if path is not None
    ]


def read(spark: SparkSession, files: RawFiles) -> DataFrame:
    """Return the rows with every field still text, under the official names."""
    from etl import casts

    return casts.csv(casts.lines(spark, files), files.header)


def cast(frame: DataFrame, files: RawFiles) -> DataFrame:
    """Return unified columns and the reason of refusal; ratings are whole stars from 1 to 5."""
    return _books(frame, files) if files.table == "items" else _interactions(frame, files)


def _interactions(frame: DataFrame, files: RawFiles) -> DataFrame:
    from pyspark.sql import functions as F

    from etl import casts as c

    is_rating = files.layout == "ratings.csv"
    typed = frame.withColumnRenamed("user_id", "reader").withColumns(
        {
            USER_ID: c.numeric_id(NAME, "reader"),
            ITEM_ID: c.numeric_id(NAME, "book_id"),
            RATING: c.number("rating") if is_rating else F.expr(c.NO_RATING),
            c.OCCURRED_MS: F.lit(int(PUBLISHED_AT.timestamp()) * 1000),
            CONTEXT: F.lit(UNKNOWN_INSTANT),
        }
    )
    rules = [*c.id_rules("reader", USER_ID), *c.id_rules("book_id", ITEM_ID)]
    if is_rating:
        rules += c.rating_rules(1.0, 5.0)
    return typed.select(*c.interaction("rate" if is_rating else "click"), c.reason(rules))


def _books(frame: DataFrame, files: RawFiles) -> DataFrame:
    from pyspark.sql import functions as F

    from etl import casts as c

    typed = frame.withColumns({ITEM_ID: c.numeric_id(NAME, "book_id"), "name": c.words("title")})
    known = {name: name for name in ("isbn", "language_code", "goodreads_book_id") if name in files.header}
    unified = c.item(
        ITEM_ID,
        "name",
        creators=F.array_compact(F.transform(F.split("authors", ","), lambda author: c.words(author))),
        published_year=c.number("original_publication_year"),  # negative before our era
        attributes=c.attributes(**known),
    )
    return typed.select(*unified, c.reason([*c.id_rules("book_id", ITEM_ID), *c.title_rules("name")]))
