"""goodbooks-10k (Z. Zając): ratings.csv, to_read.csv, books.csv, book_tags.csv and tags.csv, each plain or compressed.

The files hold **no instants**. Every row gets the last second of 2017, the year of publication that the data set's
citation gives: the truth about each of them is "not later", and their context says `{"instant": "unknown"}`, so that a
temporal split or an activity feature can leave them out. The instant is a constant, so landing again changes nothing.

A rating is `rate`, a mark in to_read.csv is `click` without a rating. Version 1 orders the columns book_id, user_id,
version 2 the other way round: the header decides. The shelves of book_tags.csv that say what a book is about become its
categories.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from etl.files import RawFiles, checked, official
from recsys.columns import CATEGORIES, CONTEXT, ITEM_ID, RATING, USER_ID

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

DOMAIN = "books"
WANTED = "goodbooks-10k as it was unpacked: ratings.csv, books.csv and, if you like, to_read.csv and book_tags.csv"
NAME = "goodbooks"

PUBLISHED_AT = datetime(2017, 12, 31, 23, 59, 59, tzinfo=UTC)
UNKNOWN_INSTANT = '{"instant":"unknown"}'
TO_READ = '{"action":"to-read","instant":"unknown"}'

HEADERS = {
    "ratings.csv": ("user_id", "book_id", "rating"),
    "to_read.csv": ("user_id", "book_id"),
    "books.csv": ("book_id", "authors", "original_publication_year", "title"),
    "book_tags.csv": ("goodreads_book_id", "tag_id", "count"),
    "tags.csv": ("tag_id", "tag_name"),
}
TABLES = {
    "ratings.csv": "interactions",
    "to_read.csv": "interactions",
    "books.csv": "items",
    "book_tags.csv": "details",
}


def discover(folder: Path) -> list[RawFiles] | None:
    """Return the data set's files, or None where ratings.csv and books.csv are not both in this folder."""
    places = {name: official(folder, name) for name in HEADERS}
    if places["ratings.csv"] is None or places["books.csv"] is None:
        return None
    found = {
        name: checked(RawFiles(NAME, TABLES.get(name, "details"), name, (path,)), HEADERS[name])
        for name, path in places.items()
        if path is not None
    }
    tags = found.pop("tags.csv", None)
    if "book_tags.csv" in found:
        if tags is None or "goodreads_book_id" not in found["books.csv"].header:
            del found["book_tags.csv"]  # numbers whose meaning is not there
        else:
            found["book_tags.csv"] = replace(found["book_tags.csv"], lookups=(tags, found["books.csv"]))
    return list(found.values())


def read(spark: SparkSession, files: RawFiles) -> DataFrame:
    """Return the rows with every field still text, under the official names."""
    from etl import casts

    frame = casts.csv(casts.lines(spark, files), files.header)
    if files.layout == "book_tags.csv":
        frame = casts.named_by(frame, read(spark, files.lookup("tags.csv")), "tag_id", "tag_name")
        frame = casts.named_by(frame, read(spark, files.lookup("books.csv")), "goodreads_book_id", "book_id")
    return frame


def cast(frame: DataFrame, files: RawFiles) -> DataFrame:
    """Return unified columns and the reason of refusal; ratings are whole stars from 1 to 5."""
    return {"interactions": _interactions, "items": _books, "details": _shelves}[files.table](frame, files)


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
            CONTEXT: F.lit(UNKNOWN_INSTANT if is_rating else TO_READ),
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


def _shelves(frame: DataFrame, files: RawFiles) -> DataFrame:
    from pyspark.sql import functions as F

    from etl import casts as c

    typed = frame.withColumns({ITEM_ID: c.numeric_id(NAME, "book_id"), "votes": c.number("count")})
    rules = [
        (F.col("book_id").isNull() | F.col("tag_name").isNull(), c.UNKNOWN_CODE),
        *c.id_rules("book_id", ITEM_ID),
        (F.col("votes").isNull(), c.NOT_A_NUMBER),
    ]
    return typed.select(*c.detail("shelf", "tag_name", "votes"), c.reason(rules))


def describe(items: DataFrame, details: DataFrame) -> DataFrame:
    """Return the books with the shelves that most readers put them on for categories, of those that name a subject."""
    from pyspark.sql import functions as F

    from etl import casts as c
    from etl import shelves

    subjects = c.strongest(details.filter(shelves.is_subject(F.col(c.VALUE))), "shelf", shelves.MOST, "subjects")
    categories = F.coalesce("subjects", CATEGORIES)
    return items.join(subjects, ITEM_ID, "left").withColumn(CATEGORIES, categories).drop("subjects")
