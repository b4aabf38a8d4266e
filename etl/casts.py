"""Column expressions that all sources share: from a line of text to typed columns and a reason of refusal.

Nothing here raises on bad data. A value that cannot be read becomes null and the row gets a reason; the record itself
is kept beside it, so that the quarantine shows what the source said.
"""

import re
from collections.abc import Sequence
from datetime import datetime

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from etl import zstd
from etl.files import BYTE_ORDER_MARK, RawFiles
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
OWN_ID = "own_id"
KIND, VALUE, WEIGHT = "kind", "value", "weight"

BROKEN_ROW = "broken_row"
UNDECODABLE_TEXT = "undecodable_text"
RECORD_TOO_LONG = "record_too_long"
HEADER_AGAIN = "header_again"
EMPTY_ID = "empty_id"
INVALID_ID = "invalid_id"
NOT_A_NUMBER = "not_a_number"
RATING_OUT_OF_RANGE = "rating_out_of_range"
OCCURRED_AT_UNPARSABLE = "occurred_at_unparsable"
OCCURRED_AT_TOO_EARLY = "occurred_at_too_early"
PYTHON_LITERAL = "python_literal"
UNKNOWN_CODE = "unknown_code"
EMPTY_VALUE = "empty_value"
WEIGHT_OUT_OF_RANGE = "weight_out_of_range"
EMPTY_TITLE = "empty_title"
TITLE_TOO_LONG = "title_too_long"
PRICE_OUT_OF_RANGE = "price_out_of_range"
AUTHOR_DELETED = "author_deleted"

MAX_RECORD_BYTES = 1_000_000
MAX_ID_CHARACTERS = 200  # an id with its namespace stays below recsys.schemas.Identifier's 256
MAX_TITLE_CHARACTERS = 1_000
MAX_EPOCH_SECONDS = 10**15  # in milliseconds it still fits a bigint
MAX_PRICE = 10_000_000
MAX_CSV_COLUMNS = 20_000  # the parser gives up at 20 480
NUL, UNIT = "\0", "\x1f"
ASCTIME = r"^\w{3} (\w{3}) (\d{2}) (\d{2}:\d{2}:\d{2}) ([+-]\d{4}) (\d{4})\z"
PYTHON_LITERAL_START = r"^\s*\{\s*u?'"


def lines(spark: SparkSession, files: RawFiles, latin_1: bool = False) -> DataFrame:
    """Return the non-blank lines of these files as `record`, and why one cannot be read as `unreadable` (or null).

    With `latin_1`, a line that is not valid UTF-8 is Latin-1: redistributions of such a file are often re-coded.
    """
    value = F.col("value")
    value = F.when(value.startswith(BYTE_ORDER_MARK), F.expr("substring(value, 2)")).otherwise(value)
    is_utf_8 = F.is_valid_utf8(value)
    record = F.when(is_utf_8, value).otherwise(F.decode(value.cast("binary"), "ISO-8859-1")) if latin_1 else value
    unreadable = [(F.octet_length(value) > MAX_RECORD_BYTES, RECORD_TOO_LONG)]
    if not latin_1:
        unreadable.append((~is_utf_8, UNDECODABLE_TEXT))
    if files.header_lines:
        unreadable.insert(0, (value.isin(*set(files.header_lines)), HEADER_AGAIN))
    text = spark.read.text([zstd.readable(spark, path) for path in files.paths])
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
    """Return the fields of CSV lines (RFC 4180 quoting, no line breaks inside a field), all as text; an empty one is
    null.

    A line without a quote, as nearly all are, is split at its commas: a parser would cost several times as much.
    """
    places = [f"c{place}" for place in range(len(names))]
    schema = ", ".join(f"{place} string" for place in (*places, "broken"))
    options = {"columnNameOfCorruptRecord": "broken", "quote": '"', "escape": '"', "mode": "PERMISSIVE"}
    is_plain = ~(F.contains(RECORD, F.lit('"')) | F.contains(RECORD, F.lit(NUL)))
    commas = F.length(RECORD) - F.length(F.translate(RECORD, ",", ""))
    has_many = (F.octet_length(RECORD) > MAX_CSV_COLUMNS) & (commas > MAX_CSV_COLUMNS)  # few lines are worth counting
    is_readable = F.col(UNREADABLE).isNull()
    pieces = F.when(is_readable & is_plain, F.split(RECORD, ",", len(names) + 1))
    parsed = F.when(is_readable & ~is_plain & ~has_many, F.from_csv(RECORD, schema, options))
    frame = frame.withColumns({"pieces": pieces, "fields": parsed})
    fields = []
    for number, (place, name) in enumerate(zip(places, names, strict=True)):
        piece = F.get("pieces", F.lit(number))
        fields.append(F.coalesce(F.when(piece != "", piece), F.col(f"fields.{place}")).alias(name))
    is_broken = F.col("fields").isNull() | F.col("fields.broken").isNotNull()
    is_broken = F.when(F.col("pieces").isNull(), is_broken).otherwise(F.size("pieces") != len(names))
    return _readable(frame, is_broken, fields)


def json(frame: DataFrame, names: Sequence[str], python_literals: bool = False) -> DataFrame:
    """Return the named members of lines that each hold one JSON object, all as text; an absent one is null.

    With `python_literals`, a line may also be a dictionary as Python prints it: single quotes, `\\'` inside them. What
    is in such a line and not in JSON (None, True, u'…', \\x41) makes it unreadable, as `python_literal`.
    """
    schema = ", ".join(f"`{name}` string" for name in (*names, "broken"))
    options = {"columnNameOfCorruptRecord": "broken", "mode": "PERMISSIVE"}
    parsed = F.from_json(RECORD, schema, options)
    is_python = F.rlike(RECORD, F.lit(PYTHON_LITERAL_START)) if python_literals else F.lit(False)
    if python_literals:
        escaped = F.from_json(RECORD, schema, {**options, "allowBackslashEscapingAnyCharacter": "true"})
        parsed = F.when(is_python & ~F.contains(RECORD, F.lit("\\x")), escaped).when(~is_python, parsed)
    frame = frame.withColumn("fields", parsed)
    broken = F.col("fields").isNull() | F.col("fields.broken").isNotNull() | ~F.ltrim(RECORD).startswith("{")
    why = F.when(is_python, F.lit(PYTHON_LITERAL)).otherwise(F.lit(BROKEN_ROW))
    return _readable(frame, broken, [F.col(f"fields.`{name}`").alias(name) for name in names], why)


def _readable(frame: DataFrame, broken: Column, fields: list[Column], why: Column | None = None) -> DataFrame:
    why = F.lit(BROKEN_ROW) if why is None else why
    unreadable = F.coalesce(F.col(UNREADABLE), F.when(broken, why)).alias(UNREADABLE)
    return frame.select(*fields, RECORD, unreadable)


def first_reason(rules: Sequence[tuple[Column, str]]) -> Column:
    """Return the reason of the first rule whose condition holds, or null."""
    return F.coalesce(*(F.when(condition, F.lit(reason)) for condition, reason in rules), F.lit(None).cast("string"))


def words(column: Column | str) -> Column:
    """Return text without NUL characters (PostgreSQL has none) and outer blanks; null when nothing is left."""
    cleaned = F.trim(F.replace(column, F.lit(NUL), F.lit("")))
    return F.when(cleaned != "", cleaned)


def text_id(namespace: str, column: str, pattern: str) -> Column:
    """Return `<namespace>:<external id>`; null where the id is not wholly of the provider's pattern."""
    value = F.trim(column)
    is_valid = (F.length(value) <= MAX_ID_CHARACTERS) & value.rlike(rf"\A(?:{pattern})\z")
    return F.when(is_valid, F.concat(F.lit(f"{namespace}:"), value))


def numeric_id(namespace: str, column: str) -> Column:
    """Return `<namespace>:<number>`, without leading zeros; null where the id is no whole number."""
    return F.concat(F.lit(f"{namespace}:"), whole_number(column).cast("string"))


def id_rules(column: str, typed: str) -> list[tuple[Column, str]]:
    """Return the rules of an external id; `typed` names the column that `text_id` or `numeric_id` made of it."""
    return [
        (F.trim(F.coalesce(F.col(column), F.lit(""))) == "", EMPTY_ID),
        (F.col(typed).isNull(), INVALID_ID),
    ]


def number(column: Column | str) -> Column:
    """Return a decimal text as a double; null where it is none: `nan`, `inf`, and Java's `4d` and `0x1p1` are none."""
    text = F.trim(column)
    # Not `upper`: Spark's knows every title case of Unicode, and learns them for two seconds when it is first used.
    is_hexadecimal = F.contains(text, F.lit("x")) | F.contains(text, F.lit("X"))
    return F.when(_ends_with_digit(text) & ~is_hexadecimal, text.try_cast("double"))


def whole_number(column: str) -> Column:
    """Return decimal digits in text as a number; null where there is anything else.

    What a cast would forgive stands at the ends: a sign, or control characters down to NUL.
    """
    text = F.trim(column)
    begins_with_digit = (text >= "0") & (text < ":")  # by their bytes; no character is cut out for it
    return F.when(begins_with_digit & _ends_with_digit(text), text.try_cast("bigint"))


def _ends_with_digit(text: Column) -> Column:
    return F.substring(text, -1, 1).between("0", "9")


def rating_rules(low: float, high: float) -> list[tuple[Column, str]]:
    """Return the rules that an explicit rating, already a number in the column `rating`, must pass."""
    value = F.col(RATING)
    return [(value.isNull(), NOT_A_NUMBER), (~value.between(low, high), RATING_OUT_OF_RANGE)]


def epoch_ms(column: str) -> Column:
    """Return Unix seconds in text as milliseconds; null where they are no whole number of seconds since 1970."""
    value = whole_number(column)
    return F.when(value <= MAX_EPOCH_SECONDS, value * 1000)


def milliseconds(column: str) -> Column:
    """Return Unix milliseconds in text as a number; null where they are no whole number of them since 1970."""
    value = whole_number(column)
    return F.when(value <= MAX_EPOCH_SECONDS * 1000, value)


def asctime_ms(column: str) -> Column:
    """Return `Wed Mar 22 11:37:04 -0700 2017` as Unix milliseconds; null where the text is no such instant."""
    text = F.trim(column)
    ordered = F.regexp_replace(text, ASCTIME, "$5 $1 $2 $3 $4")
    instant = F.try_to_timestamp(ordered, F.lit("yyyy MMM dd HH:mm:ss Z"))
    return F.when(F.rlike(text, F.lit(ASCTIME)), F.unix_millis(instant))


def instant_rules(earliest: datetime | None = None) -> list[tuple[Column, str]]:
    """Return the rules of an instant, already in the column `occurred_ms`: it is known, and not before the provider
    was there; a wrong unit of time shows as one or the other, or as an instant in the future."""
    value = F.col(OCCURRED_MS)
    rules = [(value.isNull(), OCCURRED_AT_UNPARSABLE)]
    if earliest is not None:
        rules.append((value < int(earliest.timestamp()) * 1000, OCCURRED_AT_TOO_EARLY))
    return rules


def price_rules(column: str) -> list[tuple[Column, str]]:
    """Return the rule of a price that is a number or null."""
    return [(~F.col(column).between(0, MAX_PRICE), PRICE_OUT_OF_RANGE)]


def title_rules(column: str) -> list[tuple[Column, str]]:
    """Return the rules of a title that went through `words`."""
    title = F.col(column)
    return [(title.isNull(), EMPTY_TITLE), (F.length(title) > MAX_TITLE_CHARACTERS, TITLE_TOO_LONG)]


def reason(rules: Sequence[tuple[Column, str]]) -> Column:
    """Return why the row is refused: what made it unreadable, else the first broken rule, else null."""
    return F.coalesce(F.col(UNREADABLE), first_reason(rules)).alias(REASON)


def interaction(event_type: str | Column, own_id: Column | None = None) -> list[Column]:
    """Return the unified columns of an interaction, in order.

    user_id, item_id and occurred_ms must be in the frame; rating and context (JSON text) must be there too, as literals
    where the source has none. `own_id` is the provider's number of the event, which tells apart what one user does
    with one item at one instant; without it, such events are one.
    """
    return [
        *(F.col(name) for name in (USER_ID, ITEM_ID, RATING, OCCURRED_MS, CONTEXT, RECORD)),
        F.lit(event_type).alias(EVENT_TYPE),
        (F.lit(None).cast("string") if own_id is None else own_id).alias(OWN_ID),
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
        of(published_year, F.lit(None)).try_cast("int").alias(PUBLISHED_YEAR),
        of(attributes, F.lit("{}")).alias(ATTRIBUTES),
        F.col(RECORD),
    ]


def detail(
    kind: str,
    value: Column | str,
    weight: Column | str | None = None,
    user_id: Column | str | None = None,
    occurred_ms: Column | str | None = None,
) -> list[Column]:
    """Return the columns of a detail, in order: what a file beside the items says of one of them.

    item_id must be in the frame. `weight` orders the values of one kind; `user_id` is who said it; a value without
    `occurred_ms` has always been true.
    """

    def of(column: Column | str | None, kind: str) -> Column:
        return F.lit(None).cast(kind) if column is None else F.col(column) if isinstance(column, str) else column

    return [
        F.col(ITEM_ID),
        F.lit(kind).alias(KIND),
        of(value, "string").alias(VALUE),
        of(weight, "double").alias(WEIGHT),
        of(user_id, "string").alias(USER_ID),
        of(occurred_ms, "bigint").alias(OCCURRED_MS),
        F.col(RECORD),
    ]


def strongest(details: DataFrame, kind: str, most: int, name: str) -> DataFrame:
    """Return item_id and, as the array `name`, its values of this kind: those of most weight first, at most `most`."""
    of_kind = details.filter(F.col(KIND) == kind).groupBy(ITEM_ID, VALUE).agg(F.sum(WEIGHT).alias(WEIGHT))
    by_weight = F.array_sort(F.collect_list(F.struct((-F.col(WEIGHT)).alias("order"), F.col(VALUE).alias(VALUE))))
    values = F.transform(F.slice(by_weight, 1, most), lambda one: one[VALUE])
    return of_kind.groupBy(ITEM_ID).agg(values.alias(name))


def named_by(frame: DataFrame, dictionary: DataFrame, code: str, name: str) -> DataFrame:
    """Return the rows with the column `name` that a dictionary gives to their `code`; null where it has none.

    The dictionary has these two columns, as text. Of two entries for a code the first in the alphabet counts, so rows
    are neither lost nor doubled.
    """
    entries = dictionary.filter(F.col(UNREADABLE).isNull()).groupBy(F.trim(code).alias("entry"))
    entries = entries.agg(F.min(words(name)).alias(name))
    return frame.join(entries, F.trim(frame[code]) == entries["entry"], "left").drop("entry")


def user(attributes: Column) -> list[Column]:
    """Return the unified columns of a user, in order; user_id must be in the frame, `attributes` is JSON text."""
    return [F.col(USER_ID), attributes.alias(ATTRIBUTES), F.col(RECORD)]


def attributes(**members: Column | str) -> Column:
    """Return JSON text of the members that are not empty."""
    return F.to_json(F.struct(*(words(column).alias(name) for name, column in members.items())))
