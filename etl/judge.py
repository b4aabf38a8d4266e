"""From cast rows to a verdict on each: landed, refused with a reason, or outside the interval.

A row belongs to the partition that its instant falls into. A row without a usable instant (unreadable, or from the
future) belongs to the partition `history`, so every row of a file has exactly one home however the file is cut into
intervals. Items and users have no instant: they all belong to `history`, and to a later partition those that an
interaction landed there names.
"""

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from etl.casts import KIND, OCCURRED_MS, OWN_ID, REASON, RECORD, VALUE
from recsys.columns import (
    CONTEXT,
    DOMAIN,
    EVENT_ID,
    EVENT_TYPE,
    ITEM_ID,
    LANDED_PARTITION,
    OCCURRED_AT,
    RATING,
    SOURCE,
    USER_ID,
)
from recsys.interval import Interval
from recsys.schemas import MAX_CLOCK_SKEW

VERDICT, LANDED, REFUSED, OUTSIDE = "verdict", "landed", "refused", "outside"
COPY = "copy"
IN_THE_FUTURE = "occurred_at_in_the_future"
DUPLICATE_EVENT = "duplicate_event"
DUPLICATES = {
    "interactions": DUPLICATE_EVENT,
    "items": "duplicate_item",
    "users": "duplicate_user",
    "details": "duplicate_detail",
}
KEYS = {
    "interactions": (USER_ID, OCCURRED_MS, ITEM_ID, EVENT_TYPE, OWN_ID),
    "items": (ITEM_ID,),
    "users": (USER_ID,),
    "details": (ITEM_ID, KIND, VALUE, USER_ID, OCCURRED_MS),
}
MAX_RECORD_SHOWN = 10_000  # bytes


@dataclass(frozen=True)
class Clock:
    """The instant of landing; an event later than it by more than `MAX_CLOCK_SKEW` is from the future."""

    now: datetime

    @property
    def horizon_ms(self) -> int:
        return _ms(self.now + MAX_CLOCK_SKEW)


def _ms(instant: datetime) -> int:
    return int(instant.timestamp()) * 1000


def judge_interactions(cast: DataFrame, interval: Interval, clock: Clock) -> DataFrame:
    """Add the verdict to cast interactions; `reason` is null for all but refused rows."""
    instant = F.col(OCCURRED_MS)
    inside = instant < _ms(interval.end)
    if interval.start is not None:
        inside &= instant >= _ms(interval.start)
    belongs = F.when(instant.isNull() | _is_future(clock), F.lit(interval.start is None)).otherwise(inside)
    return _verdict(cast, belongs, _reason(clock))


def judge_details(cast: DataFrame, interval: Interval, clock: Clock, named: DataFrame | None) -> DataFrame:
    """Add the verdict to cast details: those that were said before the interval's end, of all items or of the named."""
    said = F.coalesce(F.col(OCCURRED_MS) < _ms(interval.end), F.lit(True)) | _is_future(clock)
    marked, of_item = _marked(cast, ITEM_ID, named)
    return _verdict(marked, said & of_item, _reason(clock)).drop("is_named")


def _is_future(clock: Clock) -> Column:
    return F.coalesce(F.col(OCCURRED_MS) > clock.horizon_ms, F.lit(False))


def _reason(clock: Clock) -> Column:
    return F.coalesce(REASON, F.when(_is_future(clock), F.lit(IN_THE_FUTURE)))


def judge_entities(cast: DataFrame, table: str, named: DataFrame | None) -> DataFrame:
    """Add the verdict to cast items or users; `named` holds the keys that landed interactions name, None for all."""
    marked, is_named = _marked(cast, KEYS[table][0], named)
    return _verdict(marked, is_named, F.col(REASON)).drop("is_named")


def _marked(cast: DataFrame, key: str, named: DataFrame | None) -> tuple[DataFrame, Column]:
    """Return the rows and whether each one's key is among the named ones; all are, where there is no such list."""
    if named is None:
        return cast, F.lit(True)
    # In one piece: a few names are not worth a shuffle, which costs a short job half a second.
    names = named.select(key).coalesce(1).distinct().withColumn("is_named", F.lit(True))
    return cast.join(F.broadcast(names), key, "left"), F.coalesce("is_named", F.lit(False))


def _verdict(frame: DataFrame, belongs: Column, reason: Column) -> DataFrame:
    verdict = F.when(~belongs, F.lit(OUTSIDE)).when(reason.isNotNull(), F.lit(REFUSED)).otherwise(F.lit(LANDED))
    return frame.withColumns({VERDICT: verdict, REASON: reason})


def copies(judged: DataFrame, table: str) -> DataFrame:
    """Return the rows to land, numbered within their key: 1 lands, the others are duplicates.

    Which copy lands does not depend on the order of the rows: the highest rating, then the context, then a digest of
    the record. The rows of one user come out together and in order of time, which is how the warehouse's index likes
    them.
    """
    order = [F.xxhash64(RECORD)]
    if table == "interactions":
        order = [F.desc_nulls_last(RATING), F.asc(CONTEXT), *order]
    keys = KEYS[table]
    landing = judged.filter(F.col(VERDICT) == LANDED).repartition(F.col(keys[0]))
    return landing.withColumn(COPY, F.row_number().over(Window.partitionBy(*keys).orderBy(*order)))


def landed_interactions(rows: DataFrame, table: str, source: str, domain: str, partition: str) -> DataFrame:
    """Return rows in the columns of `raw.interactions`."""
    # An event without an id of its own has none in its digest either: concat_ws leaves nulls out.
    event = (F.lit(source), USER_ID, ITEM_ID, EVENT_TYPE, F.col(OCCURRED_MS).cast("string"), OWN_ID)
    return rows.select(
        F.md5(F.concat_ws("|", *event)).alias(EVENT_ID),
        USER_ID,
        ITEM_ID,
        RATING,
        F.timestamp_millis(OCCURRED_MS).alias(OCCURRED_AT),
        F.lit(domain).alias(DOMAIN),
        EVENT_TYPE,
        CONTEXT,
        F.lit(source).alias(SOURCE),
        F.lit(partition).alias(LANDED_PARTITION),
    )


def landed_entities(rows: DataFrame, table: str, source: str, domain: str, partition: str) -> DataFrame:
    """Return rows in the columns of `raw.items`, `raw.users` or the lake's details."""
    key = KEYS[table][0]
    fields = [name for name in rows.columns if name not in (key, RECORD, REASON, VERDICT, COPY)]
    places = [F.lit(source).alias(SOURCE), F.lit(partition).alias(LANDED_PARTITION)]
    return rows.select(key, F.lit(domain).alias(DOMAIN), *fields, *places)


def quarantined(rows: DataFrame, table: str, source: str, partition: str) -> DataFrame:
    """Return refused rows in the columns of `raw.quarantine`; of a record the first ten kilobytes, as valid text."""
    head = F.substring(F.col(RECORD).cast("binary"), 1, MAX_RECORD_SHOWN).cast("string")
    return rows.select(
        F.lit(source).alias(SOURCE),
        F.lit(partition).alias(LANDED_PARTITION),
        F.lit(table).alias("table_name"),
        F.col(REASON).alias("reason"),
        F.translate(F.make_valid_utf8(head), "\0", "\ufffd").alias("record"),
    )
