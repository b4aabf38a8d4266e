"""Amazon reviews (McAuley lab, UCSD): 5-core reviews of 2014 and 2018 and their metadata, one JSON object a line.

    <Category>_5.json, reviews_<Category>_5.json    reviewerID, asin, overall, unixReviewTime, verified (2018)
    meta_<Category>.json                            asin, title, brand, category or categories, description, price

Reviewers and products are one space over all categories and both years, so all files are one source. 2014's metadata
are Python literals, not JSON; those with single quotes only are read, the rest goes to the quarantine as `broken_row`.
A price that is no amount (a range, a fragment of a page) is unknown, not a reason to refuse the product.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from etl.files import RawFiles, checked
from recsys.columns import CONTEXT, ITEM_ID, RATING, USER_ID

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

DOMAIN = "products"
WANTED = "5-core review files such as Gift_Cards_5.json.gz, with meta_Gift_Cards.json.gz beside them"
NAME = "amazon"

REVIEWS = re.compile(r"^(?!meta_)\w+_5\.json(\.gz|\.bz2)?$")
METADATA = re.compile(r"^meta_\w+\.json(\.gz|\.bz2)?$")
REVIEW_FIELDS = ("reviewerID", "asin", "overall", "unixReviewTime", "verified")
META_FIELDS = ("asin", "title", "brand", "category", "categories", "description", "price")
ID = r"^[0-9A-Za-z]+$"
AMOUNT = r"^\$?\s*(-?[0-9][0-9,]*(?:\.[0-9]+)?)$"


def discover(folder: Path) -> list[RawFiles] | None:
    """Return the review and metadata files in this folder, or None where there is no review file."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    reviews = tuple(folder / name for name in names if REVIEWS.match(name))
    metadata = tuple(folder / name for name in names if METADATA.match(name))
    if not reviews:
        return None
    found = [checked(RawFiles(NAME, "interactions", "reviews", reviews))]
    return [*found, checked(RawFiles(NAME, "items", "meta", metadata))] if metadata else found


def read(spark: SparkSession, files: RawFiles) -> DataFrame:
    """Return the records with every member still text, under the official names."""
    from etl import casts

    return casts.json(casts.lines(spark, files), REVIEW_FIELDS if files.layout == "reviews" else META_FIELDS)


def cast(frame: DataFrame, files: RawFiles) -> DataFrame:
    """Return unified columns and the reason of refusal; ratings are stars from 1 to 5, times Unix seconds."""
    return _reviews(frame) if files.layout == "reviews" else _products(frame)


def _reviews(frame: DataFrame) -> DataFrame:
    from etl import casts as c

    typed = frame.withColumns(
        {
            USER_ID: c.text_id(NAME, "reviewerID", ID),
            ITEM_ID: c.text_id(NAME, "asin", ID),
            RATING: c.number("overall"),
            c.OCCURRED_MS: c.epoch_ms("unixReviewTime"),
            CONTEXT: c.attributes(verified="verified"),
        }
    )
    rules = [
        *c.id_rules("reviewerID", USER_ID),
        *c.id_rules("asin", ITEM_ID),
        *c.rating_rules(1.0, 5.0),
        *c.instant_rules(),
    ]
    return typed.select(*c.interaction("rate"), c.reason(rules))


def _products(frame: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    from etl import casts as c

    flat = F.from_json("category", "array<string>")  # 2018: one path
    nested = F.flatten(F.from_json("categories", "array<array<string>>"))  # 2014: several paths
    paragraphs = F.coalesce(F.from_json("description", "array<string>"), F.array("description"))
    typed = frame.withColumns(
        {
            ITEM_ID: c.text_id(NAME, "asin", ID),
            "name": c.words("title"),
            "maker": c.words("brand"),
            "amount": c.number(F.replace(F.regexp_extract("price", AMOUNT, 1), F.lit(","), F.lit(""))),
        }
    )
    unified = c.item(
        ITEM_ID,
        "name",
        text=c.words(F.array_join(paragraphs, "\n")),
        categories=F.array_distinct(F.array_compact(F.transform(F.coalesce(flat, nested), c.words))),
        creators=F.when(F.col("maker").isNotNull(), F.array("maker")),
        price="amount",
    )
    rules = [*c.id_rules("asin", ITEM_ID), *c.title_rules("name"), (F.col("amount") < 0, c.PRICE_OUT_OF_RANGE)]
    return typed.select(*unified, c.reason(rules))
