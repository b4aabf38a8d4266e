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

from etl.casts import OCCURRED_MS, REASON, RECORD
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
DUPLICATES = {"interactions": DUPLICATE_EVENT, "items": "duplicate_item", "users": "duplicate_user"}
KEYS = {"interactions": (USER_ID, OCCURRED_MS, ITEM_ID, EVENT_TYPE), "items": (ITEM_ID,), "users": (USER_ID,)}
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
    is_future = F.coalesce(instant > clock.horizon_ms, F.lit(False))
    inside = instant < _ms(interval.end)
    if interval.start is not None:
        inside &= instant >= _ms(interval.start)
    belongs = F.when(instant.isNull() | is_future, F.lit(interval.start is None)).otherwise(inside)
    reason = F.coalesce(REASON, F.when(is_future, F.lit(IN_THE_FUTURE)))
    return _verdict(cast, belongs, reason)


def judge_entities(cast: DataFrame, table: str, named: DataFrame | None) -> DataFrame:
    """Add the verdict to cast items or users; `named` holds the keys that landed interactions name, None for all."""
    if named is None:
        return _verdict(cast, F.lit(True), F.col(REASON))
    (key,) = KEYS[table]
    marked = cast.join(F.broadcast(named.select(key).distinct().withColumn("is_named", F.lit(True))), key, "left")
    return _verdict(marked, F.coalesce("is_named", F.lit(False)), F.col(REASON)).drop("is_named")


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
    event = (F.lit(source), F.col(USER_ID), F.col(ITEM_ID), F.col(EVENT_TYPE), F.col(OCCURRED_MS).cast("string"))
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
    """Return rows in the columns of `raw.items` or `raw.users`."""
    (key,) = KEYS[table]
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
