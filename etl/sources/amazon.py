"""Amazon reviews (McAuley lab, UCSD) and their metadata, one record a line, of three releases.

    2023   <Category>.jsonl          user_id, parent_asin, rating, timestamp (milliseconds), verified_purchase
           meta_<Category>.jsonl     parent_asin, title, store, categories, description, features, price, details
    2018   <Category>_5.json         reviewerID, asin, overall, unixReviewTime, verified
           meta_<Category>.json      asin, title, brand, category, description, price, date
    2014   reviews_<Category>_5.json reviewerID, asin, overall, unixReviewTime
           meta_<Category>.json      asin, title, brand, categories, description, price; Python literals, not JSON

Products are one space over all categories and years, so all files are one source; reviewers too, though 2023 numbers
them anew. Every review is `rate`. 2023's products are families (`parent_asin`): that is what its metadata describe.
A price that is no amount (a range, a fragment of a page) is unknown, not a reason to refuse the product; a category
that is a fragment of a page (`</span>`, in 2018) is none.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from etl.files import RawFiles, checked
from recsys.columns import CONTEXT, ITEM_ID, RATING, USER_ID

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

DOMAIN = "products"
WANTED = (
    "Amazon review files such as Gift_Cards.jsonl.gz (2023) or Gift_Cards_5.json.gz (2018, 2014), with "
    "meta_Gift_Cards.jsonl.gz or .json.gz beside them"
)
NAME = "amazon"

CATEGORIES_2023 = (
    "All_Beauty", "Amazon_Fashion", "Appliances", "Arts_Crafts_and_Sewing", "Automotive", "Baby_Products",
    "Beauty_and_Personal_Care", "Books", "CDs_and_Vinyl", "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry",
    "Digital_Music", "Electronics", "Gift_Cards", "Grocery_and_Gourmet_Food", "Handmade_Products",
    "Health_and_Household", "Health_and_Personal_Care", "Home_and_Kitchen", "Industrial_and_Scientific",
    "Kindle_Store", "Magazine_Subscriptions", "Movies_and_TV", "Musical_Instruments", "Office_Products",
    "Patio_Lawn_and_Garden", "Pet_Supplies", "Software", "Sports_and_Outdoors", "Subscription_Boxes",
    "Tools_and_Home_Improvement", "Toys_and_Games", "Video_Games", "Unknown",
)  # fmt: skip
PACKED = r"(\.gz|\.bz2|\.zst)?$"
CATEGORY_2023 = f"({'|'.join(CATEGORIES_2023)})"

# layout → which table it feeds, the names of its files, the members that are read
LAYOUTS = {
    "reviews": (
        "interactions", r"(?!meta_)\w+_5\.json",
        ("reviewerID", "asin", "overall", "unixReviewTime", "verified"),
    ),
    "reviews 2023": (
        "interactions", rf"{CATEGORY_2023}\.jsonl",
        ("user_id", "parent_asin", "rating", "timestamp", "verified_purchase"),
    ),
    "meta": (
        "items", r"meta_\w+\.json",
        ("asin", "title", "brand", "category", "categories", "description", "price", "date"),
    ),
    "meta 2023": (
        "items", rf"meta_{CATEGORY_2023}\.jsonl",
        ("parent_asin", "title", "store", "author", "categories", "description", "features", "price", "details"),
    ),
}  # fmt: skip
ID = "[0-9A-Za-z]+"
AMOUNT = r"^\$?\s*(-?[0-9][0-9,]*(?:\.[0-9]+)?)$"
YEAR_AT_END = r"\b([0-9]{4})\s*$"
OPENED_AT = datetime(1995, 1, 1, tzinfo=UTC)


def discover(folder: Path) -> list[RawFiles] | None:
    """Return the review and metadata files in this folder, or None where there is no review file."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    found = {
        layout: RawFiles(
            NAME, table, layout, tuple(folder / name for name in names if re.match(rf"{file}{PACKED}", name))
        )
        for layout, (table, file, _) in LAYOUTS.items()
    }
    if not any(files.paths and files.table == "interactions" for files in found.values()):
        return None
    return [checked(files) for files in found.values() if files.paths]


def read(spark: SparkSession, files: RawFiles) -> DataFrame:
    """Return the records with every member still text, under the official names."""
    from etl import casts

    return casts.json(casts.lines(spark, files), LAYOUTS[files.layout][2], python_literals=files.layout == "meta")


def cast(frame: DataFrame, files: RawFiles) -> DataFrame:
    """Return unified columns and the reason of refusal; ratings are stars from 1 to 5."""
    if files.table == "items":
        return _families(frame) if files.layout.endswith("2023") else _products(frame)
    if files.layout.endswith("2023"):
        return _reviews(frame, "user_id", "parent_asin", "rating", "verified_purchase", is_2023=True)
    return _reviews(frame, "reviewerID", "asin", "overall", "verified", is_2023=False)


def _reviews(frame: DataFrame, user: str, item: str, stars: str, verified: str, is_2023: bool) -> DataFrame:
    from etl import casts as c

    frame = frame.withColumnsRenamed({user: "reviewer", item: "product", stars: "stars"})
    typed = frame.withColumns(
        {
            USER_ID: c.text_id(NAME, "reviewer", ID),
            ITEM_ID: c.text_id(NAME, "product", ID),
            RATING: c.number("stars"),
            c.OCCURRED_MS: c.milliseconds("timestamp") if is_2023 else c.epoch_ms("unixReviewTime"),
            CONTEXT: c.attributes(verified=verified),
        }
    )
    rules = [
        *c.id_rules("reviewer", USER_ID),
        *c.id_rules("product", ITEM_ID),
        *c.rating_rules(1.0, 5.0),
        *c.instant_rules(OPENED_AT),
    ]
    return typed.select(*c.interaction("rate"), c.reason(rules))


def _products(frame: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    flat = F.from_json("category", "array<string>")  # 2018: one path
    nested = F.flatten(F.from_json("categories", "array<array<string>>"))  # 2014: several paths
    return _items(frame, "asin", F.col("brand"), F.coalesce(flat, nested), _paragraphs("description"), F.col("date"))


def _families(frame: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    maker = F.coalesce(F.get_json_object("author", "$.name"), F.col("store"))
    paragraphs = F.concat(*(F.coalesce(_paragraphs(name), F.array()) for name in ("description", "features")))
    since = F.get_json_object("details", "$['Date First Available']")
    return _items(frame, "parent_asin", maker, F.from_json("categories", "array<string>"), paragraphs, since)


def _paragraphs(column: str) -> Column:
    from pyspark.sql import functions as F

    return F.coalesce(F.from_json(column, "array<string>"), F.array(column))


def _is_a_name(category: Column) -> Column:
    return ~category.startswith("<")


def _items(
    frame: DataFrame, key: str, maker: Column, categories: Column, paragraphs: Column, available_since: Column
) -> DataFrame:
    from pyspark.sql import functions as F

    from etl import casts as c

    typed = frame.withColumns(
        {
            ITEM_ID: c.text_id(NAME, key, ID),
            "name": c.words("title"),
            "maker": c.words(maker),
            "amount": c.number(F.replace(F.regexp_extract("price", AMOUNT, 1), F.lit(","), F.lit(""))),
        }
    )
    unified = c.item(
        ITEM_ID,
        "name",
        text=c.words(F.array_join(paragraphs, "\n")),
        categories=F.array_distinct(F.array_compact(F.transform(F.filter(categories, _is_a_name), c.words))),
        creators=F.when(F.col("maker").isNotNull(), F.array("maker")),
        price="amount",
        published_year=F.nullif(F.regexp_extract(available_since, YEAR_AT_END, 1), F.lit("")),
    )
    return typed.select(
        *unified, c.reason([*c.id_rules(key, ITEM_ID), *c.title_rules("name"), *c.price_rules("amount")])
    )
