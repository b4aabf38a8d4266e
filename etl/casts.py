"""Column expressions that all sources share: from a line of text to typed columns and a reason of refusal.

Nothing here raises on bad data. A value that cannot be read becomes null and the row gets a reason; the record itself
is kept beside it, so that the quarantine shows what the source said.
"""

import re
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from etl.files import RawFiles
from recsys.columns import (
    ATTRIBUTES,
    CATEGORIES,
    CONTEXT,
    CREATORS,
    EVENT_TYPE,
    ITEM_ID,
    PRICE,
    PUBLISHED_YEAR,
    RATING,
    TEXT,
    TITLE,
    USER_ID,
)

RECORD, UNREADABLE, REASON, OCCURRED_MS = "record", "unreadable", "reason", "occurred_ms"

BROKEN_ROW = "broken_row"
UNDECODABLE_TEXT = "undecodable_text"
RECORD_TOO_LONG = "record_too_long"
HEADER_AGAIN = "header_again"
EMPTY_ID = "empty_id"
INVALID_ID = "invalid_id"
NOT_A_NUMBER = "not_a_number"
RATING_OUT_OF_RANGE = "rating_out_of_range"
OCCURRED_AT_UNPARSABLE = "occurred_at_unparsable"
EMPTY_TITLE = "empty_title"
TITLE_TOO_LONG = "title_too_long"
PRICE_OUT_OF_RANGE = "price_out_of_range"
AUTHOR_DELETED = "author_deleted"

MAX_RECORD_BYTES = 1_000_000
MAX_ID_CHARACTERS = 200  # an id with its namespace stays below recsys.schemas.Identifier's 256
MAX_TITLE_CHARACTERS = 1_000
MAX_EPOCH_SECONDS = 10**15  # in milliseconds it still fits a bigint
NUL, UNIT = "\0", "\x1f"


def lines(spark: SparkSession, files: RawFiles, latin_1: bool = False) -> DataFrame:
    """Return the non-blank lines of these files as `record`, and why one cannot be read as `unreadable` (or null).

    With `latin_1`, a line that is not valid UTF-8 is Latin-1: redistributions of such a file are often re-coded.
    """
    value = F.col("value")
    is_utf_8 = F.is_valid_utf8(value)
    record = F.when(is_utf_8, value).otherwise(F.decode(value.cast("binary"), "ISO-8859-1")) if latin_1 else value
    unreadable = [(F.octet_length(value) > MAX_RECORD_BYTES, RECORD_TOO_LONG)]
    if not latin_1:
        unreadable.append((~is_utf_8, UNDECODABLE_TEXT))
    if files.header_lines:
        unreadable.insert(0, (value.isin(*set(files.header_lines)), HEADER_AGAIN))
    text = spark.read.text([str(path) for path in files.paths])
    return text.filter(F.trim(value) != "").select(record.alias(RECORD), first_reason(unreadable).alias(UNREADABLE))


def split(frame: DataFrame, separator: str, names: Sequence[str]) -> DataFrame:
    """Return the fields of lines that are separated by a literal text without any quoting, all as text."""
    # One character is split without a regular expression; a line that holds that character itself is broken.
    text = F.col(RECORD) if len(separator) == 1 else F.replace(RECORD, F.lit(separator), F.lit(UNIT))
    mark = separator if len(separator) == 1 else UNIT
    frame = frame.withColumn("fields", F.split(text, re.escape(mark), -1))
    fields = [F.get("fields", F.lit(place)).alias(name) for place, name in enumerate(names)]
    return _readable(frame, (F.size("fields") != len(names)) | F.contains(RECORD, F.lit(UNIT)), fields)


def csv(frame: DataFrame, names: Sequence[str]) -> DataFrame:
    """Return the fields of CSV lines (RFC 4180 quoting, no line breaks inside a field), all as text."""
    places = [f"c{place}" for place in range(len(names))]
    schema = ", ".join(f"{place} string" for place in (*places, "broken"))
    options = {"columnNameOfCorruptRecord": "broken", "quote": '"', "escape": '"', "mode": "PERMISSIVE"}
    frame = frame.withColumn("fields", F.from_csv(RECORD, schema, options))
    fields = [F.col(f"fields.{place}").alias(name) for place, name in zip(places, names, strict=True)]
    return _readable(frame, F.col("fields.broken").isNotNull(), fields)


def json(frame: DataFrame, names: Sequence[str]) -> DataFrame:
    """Return the named members of lines that each hold one JSON object, all as text; an absent one is null."""
    schema = ", ".join(f"`{name}` string" for name in (*names, "broken"))
    options = {"columnNameOfCorruptRecord": "broken", "mode": "PERMISSIVE"}
    frame = frame.withColumn("fields", F.from_json(RECORD, schema, options))
    broken = F.col("fields").isNull() | F.col("fields.broken").isNotNull() | ~F.ltrim(RECORD).startswith("{")
    return _readable(frame, broken, [F.col(f"fields.`{name}`").alias(name) for name in names])


def _readable(frame: DataFrame, broken: Column, fields: list[Column]) -> DataFrame:
    unreadable = F.coalesce(F.col(UNREADABLE), F.when(broken, F.lit(BROKEN_ROW))).alias(UNREADABLE)
    return frame.select(*fields, RECORD, unreadable)


def first_reason(rules: Sequence[tuple[Column, str]]) -> Column:
    """Return the reason of the first rule whose condition holds, or null."""
    return F.coalesce(*(F.when(condition, F.lit(reason)) for condition, reason in rules), F.lit(None).cast("string"))


def words(column: Column | str) -> Column:
    """Return text without NUL characters (PostgreSQL has none) and outer blanks; null when nothing is left."""
    cleaned = F.trim(F.translate(column, NUL, ""))
    return F.when(cleaned != "", cleaned)


def text_id(namespace: str, column: str, pattern: str) -> Column:
    """Return `<namespace>:<external id>`; null where the id is not of the provider's pattern."""
    value = F.trim(column)
    is_valid = (F.length(value) <= MAX_ID_CHARACTERS) & value.rlike(pattern)
    return F.when(is_valid, F.concat(F.lit(f"{namespace}:"), value))


def numeric_id(namespace: str, column: str) -> Column:
    """Return `<namespace>:<number>`, without leading zeros; null where the id is no whole number."""
    value = F.col(column).try_cast("bigint")
    return F.when(value >= 0, F.concat(F.lit(f"{namespace}:"), value.cast("string")))


def id_rules(column: str, typed: str) -> list[tuple[Column, str]]:
    """Return the rules of an external id; `typed` names the column that `text_id` or `numeric_id` made of it."""
    return [
        (F.trim(F.coalesce(F.col(column), F.lit(""))) == "", EMPTY_ID),
        (F.col(typed).isNull(), INVALID_ID),
    ]


def number(column: Column | str) -> Column:
    """Return a decimal text as a double; null where it is none: `nan`, `inf`, and Java's `4d` are none."""
    text = F.trim(column)
    ends_in_digit = F.substring(text, -1, 1).between("0", "9")
    return F.when(ends_in_digit, text.try_cast("double"))


def rating_rules(low: float, high: float) -> list[tuple[Column, str]]:
    """Return the rules that an explicit rating, already a number in the column `rating`, must pass."""
    value = F.col(RATING)
    return [(value.isNull(), NOT_A_NUMBER), (~value.between(low, high), RATING_OUT_OF_RANGE)]


def epoch_ms(column: str) -> Column:
    """Return Unix seconds in text as milliseconds; null where they are no whole number of seconds since 1970."""
    value = F.col(column).try_cast("bigint")
    return F.when(value.between(0, MAX_EPOCH_SECONDS), value * 1000)


def instant_rules() -> list[tuple[Column, str]]:
    """Return the rule of an instant, already in the column `occurred_ms`."""
    return [(F.col(OCCURRED_MS).isNull(), OCCURRED_AT_UNPARSABLE)]


def title_rules(column: str) -> list[tuple[Column, str]]:
    """Return the rules of a title that went through `words`."""
    title = F.col(column)
    return [(title.isNull(), EMPTY_TITLE), (F.length(title) > MAX_TITLE_CHARACTERS, TITLE_TOO_LONG)]


def reason(rules: Sequence[tuple[Column, str]]) -> Column:
    """Return why the row is refused: what made it unreadable, else the first broken rule, else null."""
    return F.coalesce(F.col(UNREADABLE), first_reason(rules)).alias(REASON)


def interaction(event_type: str) -> list[Column]:
    """Return the unified columns of an interaction, in order.

    user_id, item_id and occurred_ms must be in the frame; rating and context (JSON text) must be there too, as literals
    where the source has none.
    """
    return [
        *(F.col(name) for name in (USER_ID, ITEM_ID, RATING, OCCURRED_MS, CONTEXT, RECORD)),
        F.lit(event_type).alias(EVENT_TYPE),
    ]


NO_RATING = "cast(null as double)"
NO_CONTEXT = "'{}'"


def item(
    item_id: Column | str,
    title: Column | str,
    text: Column | None = None,
    categories: Column | None = None,
    creators: Column | None = None,
    price: Column | str | None = None,
    published_year: Column | None = None,
    attributes: Column | None = None,
) -> list[Column]:
    """Return the unified columns of an item, in order; absent ones are null or empty, `attributes` is JSON text."""
    empty = F.array().cast("array<string>")

    def of(value: Column | str | None, absent: Column) -> Column:
        return absent if value is None else F.coalesce(value, absent)

    return [
        of(item_id, F.lit(None)).alias(ITEM_ID),
        of(title, F.lit(None)).alias(TITLE),
        of(text, F.lit(None).cast("string")).alias(TEXT),
        of(categories, empty).alias(CATEGORIES),
        of(creators, empty).alias(CREATORS),
        of(price, F.lit(None).cast("double")).alias(PRICE),
        of(published_year, F.lit(None)).cast("int").alias(PUBLISHED_YEAR),
        of(attributes, F.lit("{}")).alias(ATTRIBUTES),
        F.col(RECORD),
    ]


def user(attributes: Column) -> list[Column]:
    """Return the unified columns of a user, in order; user_id must be in the frame, `attributes` is JSON text."""
    return [F.col(USER_ID), attributes.alias(ATTRIBUTES), F.col(RECORD)]


def attributes(**members: Column | str) -> Column:
    """Return JSON text of the members that are not empty."""
    return F.to_json(F.struct(*(words(column).alias(name) for name, column in members.items())))
