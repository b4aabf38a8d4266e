"""Raw files → typed, partitioned Parquet, with every refused row in the quarantine and every row accounted for."""

import logging
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from itertools import groupby
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from etl import casts, judge
from etl.discovery import Found
from etl.files import RawFiles, Source, Table
from etl.lake import Draft, count_reasons, count_rows, has_duplicates, has_equal
from etl.spark import session
from recsys.columns import ITEM_ID, USER_ID
from recsys.errors import CheckFailed, UnusableInput
from recsys.interval import Interval
from recsys.settings import Settings

log = logging.getLogger("etl.land")

IDS = f"{USER_ID} string, {ITEM_ID} string"
EVENT_IDS_DIFFER = "parquet.enable.dictionary#event_id"  # no use in looking for equal ones
UNREADABLE_FILE = re.compile(r"\[FAILED_READ_FILE[^\]]*\].*?reading file (?:file:(?://)?)?(\S+?)\.?\s")


@dataclass(frozen=True)
class Counts:
    """What became of the rows of one raw table of one source."""

    domain: str
    source: str
    table: str
    rows_read: int
    rows_landed: int
    rows_outside_interval: int
    quarantine: dict[str, int] = field(default_factory=dict)

    @property
    def rows_quarantined(self) -> int:
        return sum(self.quarantine.values())

    def check_conservation(self) -> None:
        """Raise CheckFailed unless every row read was landed, refused or outside."""
        if self.rows_read != self.rows_landed + self.rows_quarantined + self.rows_outside_interval:
            raise CheckFailed(
                "conservation of rows", self, "Rows were lost or doubled in landing; nothing was published"
            )

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "rows_quarantined": self.rows_quarantined}


def land(settings: Settings, draft: Draft, clock: judge.Clock, found: Sequence[Found]) -> list[Counts]:
    """Write the draft of every partition and return the counts, one entry a source and table.

    Raises:
        UnusableInput: a file turns out unreadable half-way, or no interaction lies in a whole history.
        CheckFailed: the counts do not add up.
    """
    input_bytes = sum(files.bytes for _, files in found)
    counts: list[Counts] = []
    with session(settings, input_bytes) as spark:
        for (domain, name), pairs in groupby(found, key=lambda pair: (pair[0].DOMAIN, pair[1].source)):
            counts.extend(_Landing(spark, draft, clock, domain, name).run(list(pairs)))
    for count in counts:
        log.info("%s", count)
        count.check_conservation()
    landed = sum(count.rows_landed for count in counts if count.table == "interactions")
    if not landed and draft.interval.since is None:
        names = ", ".join(sorted({count.source for count in counts}))
        raise UnusableInput("raw files of", names, f"They hold no usable interaction before {draft.interval.as_of}")
    return counts


@dataclass(frozen=True)
class _Landing:
    """The landing of one source."""

    spark: SparkSession
    draft: Draft
    clock: judge.Clock
    domain: str
    source: str

    @property
    def interval(self) -> Interval:
        return self.draft.interval

    def run(self, pairs: list[Found]) -> list[Counts]:
        module = pairs[0][0]
        tables = {table: [f for _, f in pairs if f.table == table] for table in get_args(Table)}
        cast = {table: _cast(self.spark, module, files) for table, files in tables.items() if files}
        headers = {table: [line for raw in files for line in raw.header_lines] for table, files in tables.items()}

        if resolve := getattr(module, "resolve", None):
            cast["interactions"] = resolve(cast["interactions"])
        judged = judge.judge_interactions(cast["interactions"], self.interval, self.clock)
        counts = [self._write("interactions", judged, headers["interactions"])]
        named = None if self.interval.since is None else self._landed("interactions", IDS)
        if "details" in cast:
            judged = judge.judge_details(cast["details"], self.interval, self.clock, named)
            counts.append(self._write("details", judged, headers["details"]))
            if "items" in cast:
                cast["items"] = module.describe(cast["items"], self._landed("details"))
        for table in ("items", "users"):
            if table in cast:
                judged = judge.judge_entities(cast[table], table, named)
                counts.append(self._write(table, judged, headers[table]))
        if derive := getattr(module, "items_of", None):
            judged = judge.judge_entities(derive(self._landed("interactions")), "items", None)
            counts.append(self._write("items", judged, []))
        return counts

    def _landed(self, table: str, schema: str | None = None) -> DataFrame:
        """Return what was landed; Spark needs no look at the files for a schema that is given."""
        reader = self.spark.read if schema is None else self.spark.read.schema(schema)
        return reader.parquet(str(self.draft.partition(table, self.domain, self.source)))

    def _write(self, table: str, judged: DataFrame, headers: list[str]) -> Counts:
        """Write the landed and, in a further pass that clean files do not need, the refused rows of one table."""
        folder = self.draft.partition(table, self.domain, self.source)
        # Most files hold nothing twice, and looking for copies is cheaper than sorting all rows.
        seen = self._write_landed(table, judged, folder, sort=table == "details")
        if table == "details":
            has_copies = count_rows(folder) < seen[judge.LANDED]
        else:
            has_copies = has_duplicates(folder) if table == "interactions" else has_equal(folder, judge.KEYS[table][0])
            if has_copies:
                shutil.rmtree(folder)
                self._write_landed(table, judged, folder, sort=True)

        # A file's own first line is no row. Where rows without an instant do not belong, the headers were outside.
        is_history = self.interval.since is None
        outside = seen[judge.OUTSIDE] - (0 if is_history else len(headers))
        refused = seen[judge.REFUSED] - (len(headers) if is_history else 0)
        quarantine = self.draft.partition("quarantine", self.domain, self.source)
        if refused or has_copies:
            watched, _ = _watched(judged)
            _save(self._refusals(watched, table, headers, has_copies).coalesce(1), quarantine)
        return Counts(
            self.domain,
            self.source,
            table,
            rows_read=seen["rows"] - len(headers),
            rows_landed=count_rows(folder),
            rows_outside_interval=outside,
            quarantine=count_reasons(quarantine, table),
        )

    def _write_landed(self, table: str, judged: DataFrame, folder: Path, sort: bool) -> dict[str, int]:
        """Write the rows to land, with `sort` one a key, and return the counts of the scan."""
        # The counting hands on whole rows. What an event looked like in the file only tells its copies apart; of the
        # entities some are refused in nearly every file, and for the same rows Spark compiles the same code once.
        is_lean = table == "interactions" and not sort
        watched, scan = _watched(judged.drop(casts.RECORD, casts.REASON) if is_lean else judged)
        if sort:
            rows = judge.copies(watched, table).filter(F.col(judge.COPY) == 1)
        else:
            rows = watched.filter(F.col(judge.VERDICT) == judge.LANDED)
        columns = judge.landed_interactions if table == "interactions" else judge.landed_entities
        _save(columns(rows, table, self.source, self.domain, self.interval.partition), folder)
        return scan.get

    def _refusals(self, judged: DataFrame, table: str, headers: list[str], has_copies: bool) -> DataFrame:
        """Return the rows of the quarantine: those with a reason, and all but one of the rows with the same key."""
        refused = judged.filter(F.col(judge.VERDICT) == judge.REFUSED).select(casts.RECORD, casts.REASON)
        if headers:
            own = self.spark.createDataFrame([(line, casts.HEADER_AGAIN) for line in headers], refused.schema)
            is_header = F.col(casts.REASON) == casts.HEADER_AGAIN
            refused = refused.filter(~is_header).union(refused.filter(is_header).exceptAll(own))
        if has_copies:
            others = judge.copies(judged, table).filter(F.col(judge.COPY) > 1)
            refused = refused.union(others.select(casts.RECORD, F.lit(judge.DUPLICATES[table])))
        return judge.quarantined(refused, table, self.source, self.interval.partition)


def _watched(judged: DataFrame) -> tuple[DataFrame, Observation]:
    """Return the rows and the counts of their verdicts, taken as they pass.

    The counting also keeps the optimizer from pushing a filter on the verdict below the casts, which would cast twice.
    """
    scan = Observation()
    verdicts = (judge.LANDED, judge.REFUSED, judge.OUTSIDE)
    counts = [F.count_if(F.col(judge.VERDICT) == verdict).alias(verdict) for verdict in verdicts]
    return judged.observe(scan, F.count(F.lit(1)).alias("rows"), *counts), scan


def _cast(spark: SparkSession, module: Source, files: list[RawFiles]) -> DataFrame:
    return reduce(DataFrame.unionByName, (module.cast(module.read(spark, raw), raw) for raw in files))


def _save(frame: DataFrame, folder: Path) -> None:
    try:
        frame.write.mode("append").option(EVENT_IDS_DIFFER, "false").parquet(str(folder))
    except (PySparkException, Py4JJavaError) as error:
        unreadable = UNREADABLE_FILE.search(str(error))
        if unreadable is None:
            raise
        raise UnusableInput("raw file", unquote(unreadable[1]), "It is damaged or cut off; fetch it again") from error


def totals(counts: Sequence[Counts], table: str) -> dict[str, Any]:
    """Return the sums over all sources of one table."""
    of_table = [count for count in counts if count.table == table]
    quarantine = sum((Counter(count.quarantine) for count in of_table), Counter())
    return {
        "rows_read": sum(count.rows_read for count in of_table),
        "rows_landed": sum(count.rows_landed for count in of_table),
        "rows_quarantined": quarantine.total(),
        "rows_outside_interval": sum(count.rows_outside_interval for count in of_table),
        "quarantine": dict(sorted(quarantine.items())),
    }
