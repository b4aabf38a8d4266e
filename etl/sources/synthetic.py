"""Made-up interactions, as etl.synthetic writes them: one folder a domain, three CSV files in it.

The only source that serves every domain, and none by default: somebody has to have written its files into
`RECSYS_DATA_DIR`, and it is refused beside real rows (etl.discovery). Ids carry the prefix `synthetic:` in the file
already; one without it is refused, so that nothing made up passes for real.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from etl.files import RawFiles, Table, checked, official
from recsys.columns import ATTRIBUTES, CONTEXT, DOMAINS, EVENT_TYPE, EVENT_TYPES, ITEM_ID, RATING, USER_ID

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

NAME = "synthetic"
HEADERS: dict[str, tuple[Table, tuple[str, ...]]] = {
    "synthetic_interactions.csv": (
        "interactions", ("event", "user_id", "item_id", "event_type", "rating", "occurred_ms", "context"),
    ),
    "synthetic_items.csv": (
        "items", ("item_id", "title", "text", "category", "creator", "price", "published_year"),
    ),
    "synthetic_users.csv": ("users", ("user_id", "label")),
}  # fmt: skip
ID = rf"{NAME}:[a-z]+-?[0-9]+"


@dataclass(frozen=True)
class Synthetic:
    """The source for one domain: the folder of that name below the generator's."""

    DOMAIN: str
    WANTED: str = "made-up data, written there by `python -m etl synthesize`"

    def discover(self, folder: Path) -> list[RawFiles] | None:
        """Return the files of this domain, or None where this folder is not the generator's."""
        if folder.resolve().name != self.DOMAIN:
            return None
        places = {name: official(folder, name) for name in HEADERS}
        if not all(places.values()):
            return None
        return [
            checked(RawFiles(NAME, HEADERS[name][0], name, (path,)), HEADERS[name][1]) for name, path in places.items()
        ]

    def read(self, spark: SparkSession, files: RawFiles) -> DataFrame:
        """Return the rows with every field still text."""
        from etl import casts

        return casts.csv(casts.lines(spark, files), files.header)

    def cast(self, frame: DataFrame, files: RawFiles) -> DataFrame:
        """Return unified columns and the reason of refusal."""
        return {"interactions": _interactions, "items": _items, "users": _users}[files.table](frame)


def _own(column: str):
    """Return the id as it stands; null where it is not one of the generator's."""
    from pyspark.sql import functions as F

    return F.when(F.rlike(column, F.lit(rf"\A{ID}\z")), F.col(column))


def _interactions(frame: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    from etl import casts as c

    renamed = frame.withColumnsRenamed({"user_id": "who", "item_id": "what", "rating": "stars", "context": "around"})
    typed = renamed.withColumns(
        {
            USER_ID: _own("who"),
            ITEM_ID: _own("what"),
            RATING: c.number("stars"),
            c.OCCURRED_MS: c.milliseconds("occurred_ms"),
            CONTEXT: F.to_json(F.from_json("around", "map<string, string>")),
        }
    )
    has_stars = c.words("stars").isNotNull()
    rules = [
        *c.id_rules("who", USER_ID),
        *c.id_rules("what", ITEM_ID),
        (~F.coalesce(F.col(EVENT_TYPE).isin(*EVENT_TYPES), F.lit(False)), c.UNKNOWN_CODE),
        (has_stars & F.col(RATING).isNull(), c.NOT_A_NUMBER),
        (~F.col(RATING).between(0.5, 5.0), c.RATING_OUT_OF_RANGE),
        (F.col(CONTEXT).isNull(), c.BROKEN_ROW),
        *c.instant_rules(),
    ]
    return typed.select(*c.interaction(F.col(EVENT_TYPE), c.words("event")), c.reason(rules))


def _items(frame: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    from etl import casts as c

    renamed = frame.withColumnsRenamed({"item_id": "what", "title": "called", "text": "told", "price": "asked"})
    typed = renamed.withColumns({ITEM_ID: _own("what"), "called": c.words("called"), "amount": c.number("asked")})
    unified = c.item(
        ITEM_ID,
        "called",
        text=c.words("told"),
        categories=F.array_compact(F.array(c.words("category"))),
        creators=F.array_compact(F.array(c.words("creator"))),
        price="amount",
        published_year=F.col("published_year"),
        attributes=F.lit('{"label":"synthetic"}'),
    )
    rules = [*c.id_rules("what", ITEM_ID), *c.title_rules("called"), *c.price_rules("amount")]
    return typed.select(*unified, c.reason(rules))


def _users(frame: DataFrame) -> DataFrame:
    from etl import casts as c

    typed = frame.withColumnRenamed("user_id", "who").withColumn(USER_ID, _own("who"))
    members = c.attributes(label="label").alias(ATTRIBUTES)
    return typed.select(*c.user(members), c.reason(c.id_rules("who", USER_ID)))


EVERY_DOMAIN = tuple(Synthetic(domain) for domain in DOMAINS)
