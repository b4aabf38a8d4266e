"""Goodreads, as the UCSD Book Graph has it (Wan and McAuley): JSON lines and CSV, each plain or compressed.

    goodreads_interactions_*.json     user_id, book_id, is_read, rating (0: none), date_added, date_updated
    goodreads_reviews_*.json          the same with the text of a review; the spoiler subsets are not read
    goodreads_interactions.csv        user_id, book_id, is_read, rating, is_reviewed as numbers, no instants; with
                                      user_id_map.csv and book_id_map.csv, and only where the JSON is absent
    goodreads_books*.json             title, description, popular_shelves, authors, publication_year, …
    goodreads_book_authors.json       the names of the authors (optional)
    goodreads_book_genres_initial.json  genres (optional); without it the shelves are the categories

A shelved book is one interaction, by what the reader last did with it: `rate` with stars; `view`, read without stars;
`click`, only marked to read; a review without stars is `share`. It occurred when it was last updated, since
nothing in the row tells when the stars came. The CSV has no instants: see etl.sources.goodbooks.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from etl.files import RawFiles, checked, official
from recsys.columns import CONTEXT, ITEM_ID, RATING, USER_ID
from recsys.errors import UnusableInput

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

DOMAIN = "books"
WANTED = "Goodreads files of the UCSD Book Graph: goodreads_interactions_*.json.gz with goodreads_books*.json.gz"
NAME = "goodreads"

PACKED = r"(\.gz|\.bz2|\.zst)?$"
INTERACTIONS = re.compile(rf"^goodreads_interactions_\w+\.json{PACKED}")
REVIEWS = re.compile(rf"^goodreads_reviews_(?!spoiler)\w+\.json{PACKED}")
BOOKS = re.compile(rf"^goodreads_books(_\w+)?\.json{PACKED}")
CSV, AUTHORS, GENRES = "goodreads_interactions.csv", "goodreads_book_authors.json", "goodreads_book_genres_initial.json"
CSV_HEADER = ("user_id", "book_id", "is_read", "rating")
MAPS = {"user_id_map.csv": ("user_id_csv", "user_id"), "book_id_map.csv": ("book_id_csv", "book_id")}

MEMBERS = {
    "interactions": ("user_id", "book_id", "review_id", "is_read", "rating", "date_added", "date_updated"),
    "reviews": ("user_id", "book_id", "review_id", "rating", "date_added", "date_updated"),
    "books": (
        "book_id", "title", "description", "authors", "popular_shelves", "publication_year", "isbn13", "language_code",
        "num_pages", "work_id",
    ),
    AUTHORS: ("author_id", "name"),
    GENRES: ("book_id", "genres"),
}  # fmt: skip
USER, BOOK = "[0-9A-Za-z]+", "[0-9]+"
OPENED_AT = datetime(2006, 1, 1, tzinfo=UTC)
PUBLISHED_AT = datetime(2017, 12, 31, 23, 59, 59, tzinfo=UTC)  # the crawl was late in 2017


def discover(folder: Path) -> list[RawFiles] | None:
    """Return the files in this folder, or None where it has no interactions.

    Raises:
        UnusableInput: the CSV is there without its maps.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())

    def named(pattern: re.Pattern[str], table: str, layout: str) -> list[RawFiles]:
        paths = tuple(path for path in files if pattern.match(path.name))
        return [checked(RawFiles(NAME, table, layout, paths))] if paths else []

    found = named(INTERACTIONS, "interactions", "interactions") + named(REVIEWS, "interactions", "reviews")
    if not found:
        found = _csv(folder)
    if not found:
        return None
    books = named(BOOKS, "items", "books")
    if books and (authors := official(folder, AUTHORS)):
        names = checked(RawFiles(NAME, "details", AUTHORS, (authors,)))
        books = [RawFiles(NAME, "items", "books", books[0].paths, lookups=(names,))]
    genres = official(folder, GENRES) if books else None
    details = [checked(RawFiles(NAME, "details", GENRES, (genres,)))] if genres else []
    return [*found, *books, *details]


def _csv(folder: Path) -> list[RawFiles]:
    path = official(folder, CSV)
    if path is None:
        return []
    maps = {name: official(folder, name) for name in MAPS}
    if missing := [name for name, where in maps.items() if where is None]:
        raise UnusableInput(
            "raw file", path, f"Its ids are numbers without meaning; put {' and '.join(missing)} beside it"
        )
    lookups = tuple(checked(RawFiles(NAME, "details", name, (maps[name],)), MAPS[name]) for name in MAPS)
    raw = checked(RawFiles(NAME, "interactions", CSV, (path,)), CSV_HEADER)
    return [RawFiles(NAME, "interactions", CSV, raw.paths, raw.header, raw.header_lines, lookups)]


def read(spark: SparkSession, files: RawFiles) -> DataFrame:
    """Return the rows with every member still text, under the official names; ids of the CSV are those of the JSON."""
    from etl import casts

    if files.header:
        frame = casts.csv(casts.lines(spark, files), files.header)
    else:
        frame = casts.json(casts.lines(spark, files), MEMBERS[files.layout])
    if files.layout == CSV:
        frame = frame.withColumnsRenamed({"user_id": "user_id_csv", "book_id": "book_id_csv"})
        for name, (code, meaning) in MAPS.items():
            frame = casts.named_by(frame, read(spark, files.lookup(name)), code, meaning)
    if files.layout == "books":
        frame = _with_authors(frame, spark, files.lookup(AUTHORS))
    return frame


def cast(frame: DataFrame, files: RawFiles) -> DataFrame:
    """Return unified columns and the reason of refusal; stars are whole, from 1 to 5, and 0 means none."""
    from etl import casts as c

    if files.layout == "books":
        return _books(frame)
    if files.layout == GENRES:
        return _genres(frame)
    from pyspark.sql import functions as F

    has_codes = files.layout == CSV
    typed = frame.withColumnsRenamed({"user_id": "reader", "rating": "given"}).withColumns(
        {
            USER_ID: c.text_id(NAME, "reader", USER),
            ITEM_ID: c.text_id(NAME, "book_id", BOOK),
            "stars": c.number("given"),
            c.OCCURRED_MS: F.lit(int(PUBLISHED_AT.timestamp()) * 1000) if has_codes else _updated(),
        }
    )
    stars, is_review = F.col("stars"), files.layout == "reviews"
    is_read = F.lit(False) if is_review else F.lower("is_read").isin("true", "1")
    without_stars = F.when(is_read, "view").otherwise(F.lit("share" if is_review else "click"))
    action = F.when(stars > 0, "rating").when(is_read, "read").otherwise("to-read")
    members = {"action": F.lit("review") if is_review else action}
    members |= {"instant": F.lit("unknown")} if has_codes else {"review_id": F.col("review_id")}
    typed = typed.withColumns({RATING: F.when(stars > 0, stars), CONTEXT: c.attributes(**members)})
    rules = []
    if has_codes:
        rules = [
            (F.col(code).isNotNull() & (F.trim(code) != "") & F.col(name).isNull(), c.UNKNOWN_CODE)
            for code, name in (("user_id_csv", "reader"), ("book_id_csv", "book_id"))
        ]
    rules += [
        *c.id_rules("reader", USER_ID),
        *c.id_rules("book_id", ITEM_ID),
        (stars.isNull(), c.NOT_A_NUMBER),
        (~stars.between(0.0, 5.0), c.RATING_OUT_OF_RANGE),
        *c.instant_rules(OPENED_AT),
    ]
    event_type = F.when(stars > 0, "rate").otherwise(without_stars)
    return typed.select(*c.interaction(event_type), c.reason(rules))


def _updated() -> Column:
    from pyspark.sql import functions as F

    from etl import casts as c

    is_given = F.trim(F.coalesce(F.col("date_updated"), F.lit(""))) != ""
    return F.when(is_given, c.asctime_ms("date_updated")).otherwise(c.asctime_ms("date_added"))


def _with_authors(books: DataFrame, spark: SparkSession, authors: RawFiles | None) -> DataFrame:
    """Add the array `creators` of the authors' names, in the order of the book; null where no file tells them."""
    from pyspark.sql import functions as F

    from etl import casts

    if authors is None:
        return books.withColumn("creators", F.lit(None).cast("array<string>"))
    written = F.from_json("authors", "array<struct<author_id: string>>")
    each = books.select(F.col("book_id").alias("written"), F.posexplode(written).alias("place", "author"))
    each = casts.named_by(
        each.select("written", "place", "author.author_id"), read(spark, authors), "author_id", "name"
    )
    in_order = F.array_sort(F.collect_set(F.when(F.col("name").isNotNull(), F.struct("place", "name"))))
    names = each.groupBy("written").agg(F.transform(in_order, lambda one: one["name"]).alias("creators"))
    return books.join(names, books["book_id"] == names["written"], "left").drop("written")


def _books(frame: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    from etl import casts as c
    from etl import shelves

    shelved = F.from_json("popular_shelves", "array<struct<count: string, name: string>>")
    subjects = F.filter(F.transform(shelved, lambda shelf: shelf["name"]), shelves.is_subject)
    typed = frame.withColumns({ITEM_ID: c.text_id(NAME, "book_id", BOOK), "name": c.words("title")})
    unified = c.item(
        ITEM_ID,
        "name",
        text=c.words("description"),
        categories=F.array_compact(F.transform(F.slice(subjects, 1, shelves.MOST), c.words)),
        creators=F.array_compact(F.transform("creators", c.words)),
        published_year=c.number("publication_year"),
        attributes=c.attributes(**{name: name for name in ("isbn13", "language_code", "num_pages", "work_id")}),
    )
    return typed.select(*unified, c.reason([*c.id_rules("book_id", ITEM_ID), *c.title_rules("name")]))


def _genres(frame: DataFrame) -> DataFrame:
    """A line holds all genres of a book with their votes: one detail, whose value is their list, most votes first."""
    from pyspark.sql import functions as F

    from etl import casts as c

    votes = F.map_entries(F.from_json("genres", "map<string, double>"))
    by_votes = F.array_sort(
        F.transform(votes, lambda one: F.struct((-one["value"]).alias("order"), one["key"].alias("name")))
    )
    names = F.array_compact(F.transform(by_votes, lambda one: c.words(one["name"])))
    typed = frame.withColumns({ITEM_ID: c.text_id(NAME, "book_id", BOOK), "names": F.to_json(names)})
    rules = [*c.id_rules("book_id", ITEM_ID), (F.col("names").isNull(), c.EMPTY_VALUE)]
    return typed.select(*c.detail("genres", "names"), c.reason(rules))


def describe(items: DataFrame, details: DataFrame) -> DataFrame:
    """Return the books with the genres of their file, where it names any, instead of their shelves."""
    from pyspark.sql import functions as F

    from etl import casts as c
    from recsys.columns import CATEGORIES

    genres = details.groupBy(ITEM_ID).agg(F.from_json(F.min(c.VALUE), "array<string>").alias("genres"))
    known = F.when(F.size("genres") > 0, F.col("genres")).otherwise(F.col(CATEGORIES))
    return items.join(genres, ITEM_ID, "left").withColumn(CATEGORIES, known).drop("genres")
