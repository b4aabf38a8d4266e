"""Parquet partitions → Postgres `raw.*`, streamed through COPY, replacing what an earlier load of the interval left.

Judged before it is published: a source of which too many rows were refused keeps the task red and the raw tables as
they were; its quarantine is loaded all the same, for a person to look at.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as adbc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from etl.lake import parquet_files, partition_folder
from etl.sources.synthetic import NAME as SYNTHETIC
from recsys import artifacts
from recsys.erasure import FORGET_LOADED
from recsys.errors import CheckFailed, MissingArtifact
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.warehouse import Outcome

STATION = "etl"
BATCH_ROWS = 1 << 12
"""The driver encodes a batch, hands it over and waits until the connection has taken it. One that is small beside the
connection's buffers lies there while the next is encoded: client and server work at the same time, not in turn."""
WARN_REFUSED_SHARE = 0.01
FAIL_REFUSED_SHARE = 0.20
WARN_KEPT_SHARE = 0.80
HARMLESS = {
    "duplicate_event",
    "duplicate_item",
    "duplicate_user",
    "duplicate_detail",
    "author_deleted",
}  # no sign of broken input

ENTITIES = ("interactions", "items", "users")
TARGETS = {
    "interactions": artifacts.RAW_INTERACTIONS,
    "items": artifacts.RAW_ITEMS,
    "users": artifacts.RAW_USERS,
    "quarantine": artifacts.RAW_QUARANTINE,
}

FILES, FRESH = "raw.interactions_files", "raw.interactions_fresh"
"""The partition of events from files, and the table that takes its place at a first load."""
LANDED_TX = "landed_tx"
"""The column whose default is the transaction that writes the row."""
INDEX_MEMORY = "512MB"
NEW_SHARE = 0.05
"""Share of new rows from which on the planner's statistics are made anew."""


def judge_landing(interval: Interval, counts: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """Return the judgements of a landing, from its counts (the fields of `etl.land.Counts`): per source and table the
    conservation of rows and the share of refused rows among those of the interval.

    Duplicates and withdrawn authors are counted apart: they are true rows that count once, or nobody's.
    """
    outcomes = []
    for count in counts:
        subject = f"{count['source']}/{count['table']}/{interval.partition}"
        accounted = count["rows_landed"] + count["rows_quarantined"] + count["rows_outside_interval"]
        verdict = "pass" if accounted == count["rows_read"] else "fail"
        outcomes.append(_outcome(interval, "rows_conserved", subject, accounted, count["rows_read"], verdict))
        if count["source"] == SYNTHETIC and count["table"] == "interactions":
            # Tables without a source of their own are told apart by this: what is built on it is made up.
            made_up = count["rows_landed"]
            outcomes.append(_outcome(interval, "made_up_rows", subject, made_up, "none beside an experiment", "warn"))
        harmless = sum(rows for reason, rows in count["quarantine"].items() if reason in HARMLESS)
        here = count["rows_landed"] + count["rows_quarantined"]
        for name, rows, worst in (
            ("refused_share", count["rows_quarantined"] - harmless, "fail"),
            ("harmless_share", harmless, "warn"),
        ):
            share = rows / here if here else 0.0
            verdict = "pass" if share <= WARN_REFUSED_SHARE else "warn"
            verdict = worst if share > FAIL_REFUSED_SHARE else verdict
            expected = f"<= {WARN_REFUSED_SHARE} (fail above {FAIL_REFUSED_SHARE})"
            outcomes.append(
                _outcome(interval, name, subject, round(share, 6), expected, verdict, dict(count["quarantine"]))
            )
    return outcomes


def judge_kept(
    interval: Interval, held: Mapping[str, Any] | None, counts: Sequence[Mapping[str, Any]]
) -> list[Outcome]:  # fmt: skip
    """Return whether a partition keeps about as many interactions as its last load left there: a file that was cut off
    between two rows shows here, and nowhere else. Nothing is said of a first load, or of other sources.

    Args:
        held: the detail of the last load's receipt.
        counts: of this landing.
    """
    sources = sorted({count["source"] for count in counts})
    before = held["rows"].get("interactions", 0) if held is not None and held["sources"] == sources else 0
    if not before:
        return []
    now = sum(count["rows_landed"] for count in counts if count["table"] == "interactions")
    subject, expected = f"{','.join(sources)}/interactions/{interval.partition}", f">= {WARN_KEPT_SHARE} of {before}"
    verdict = "pass" if now >= WARN_KEPT_SHARE * before else "warn"
    return [_outcome(interval, "rows_kept", subject, now, expected, verdict)]


def _outcome(
    interval: Interval, check: str, subject: str, observed: Any, expected: Any, verdict: Any, detail: Any = None
) -> Outcome:
    return Outcome(STATION, interval.as_of, check, observed, expected, verdict, subject, detail or {})


def first_failure(outcomes: Sequence[Outcome]) -> CheckFailed | None:
    """Return the error that the first failed judgement means, or None."""
    for outcome in outcomes:
        if outcome.verdict == "fail":
            where = f"{outcome.observed} of {outcome.subject}, expected {outcome.expected}"
            return CheckFailed(
                outcome.check_name, where, f"Look into {artifacts.RAW_QUARANTINE} by reason: {outcome.detail}"
            )
    return None


@contextmanager
def transaction(settings: Settings) -> Iterator[adbc.Cursor]:
    """Yield a cursor whose block is one transaction."""
    with adbc.connect(settings.postgres_url) as connection, connection.cursor() as cursor:
        try:
            yield cursor
        except BaseException:
            connection.rollback()
            raise
        connection.commit()


def replace_partition(
    cursor: adbc.Cursor,
    lake: Path,
    interval: Interval,
    counts: Sequence[Mapping[str, Any]],
    tables: Sequence[str] = tuple(TARGETS),
) -> dict[str, int]:
    """Replace the interval's partition of its domains in the raw tables and return the rows written to each.

    Raises:
        MissingArtifact: a partition that was landed is no longer in the lake.
    """
    places = sorted({(count["domain"], count["source"]) for count in counts})
    sources = {source for _, source in places}
    expected = {table: sum(count["rows_landed"] for count in counts if count["table"] == table) for table in ENTITIES}
    expected["quarantine"] = sum(count["rows_quarantined"] for count in counts)
    written, is_first = {}, False
    for table in tables:  # the quarantine comes last
        sources |= _delete(cursor, table, interval, sources)
        folders = [partition_folder(lake, table, *place, interval.partition) for place in places]
        files = [path for folder in folders for path in parquet_files(folder)]
        target, told = TARGETS[table], {}
        if table == "interactions" and files and (is_first := not _has_events(cursor)):
            target, told = FRESH, constants_of(files)
            begin_first_load(cursor, told)
        written[table] = copy_files(cursor, target, files, told) if files else 0
        if written[table] != expected[table]:
            found = f"{written[table]} rows in the lake, {expected[table]} landed"
            raise MissingArtifact(TARGETS[table], found, "Land again: the lake has changed since")
    if is_first:  # last, as nobody reads the table from here until the end of the transaction
        end_first_load(cursor)
    for statement in FORGET_LOADED:
        cursor.execute(statement)
    return written


def _has_events(cursor: adbc.Cursor) -> bool:
    """Return whether an event of any file is there."""
    cursor.execute(f"select exists (select from {FILES})")
    return cursor.fetchone() == (True,)


def constants_of(files: Sequence[Path]) -> dict[str, str]:
    """Return the columns of text that hold one value in all rows of these files, from the files' footers; the rows
    are flat."""
    found: dict[str, set[Any]] = {}
    for path in files:
        metadata = pq.read_metadata(path)
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                told = column.statistics
                is_one = told is not None and told.has_min_max and told.null_count == 0 and told.min == told.max
                found.setdefault(column.path_in_schema, set()).add(told.min if is_one else None)
    return {name: value for name, (value, *others) in found.items() if not others and isinstance(value, str) and value}


def begin_first_load(cursor: adbc.Cursor, constants: Mapping[str, str]) -> None:
    """Make a table without indexes that will be the partition, with `constants` for defaults.

    Sorting all rows once into an index costs a third of putting each into its place. What is the same in all rows
    need not be encoded, sent, read and checked with each.
    """
    cursor.execute(f"create table {FRESH} (like {artifacts.RAW_INTERACTIONS} including defaults)")
    cursor.execute("select pg_current_xact_id()::text")
    ((transaction_id,),) = cursor.fetchall()
    for name, value in {**constants, LANDED_TX: transaction_id}.items():
        literal = value.replace("'", "''")
        cursor.execute(f"alter table {FRESH} alter column {name} set default '{literal}'")


def _restore_defaults(cursor: adbc.Cursor) -> None:
    """Give the new table's columns the defaults of the whole table's again."""
    cursor.execute(
        f"""
        select attribute.attname::text, pg_get_expr(given.adbin, given.adrelid)
        from pg_attribute as attribute
        left join pg_attrdef as given on given.adrelid = attribute.attrelid and given.adnum = attribute.attnum
        where attribute.attrelid = '{artifacts.RAW_INTERACTIONS}'::regclass
            and attribute.attnum > 0 and not attribute.attisdropped
        """
    )
    for name, default in cursor.fetchall():
        change = "drop default" if default is None else f"set default {default}"
        cursor.execute(f"alter table {FRESH} alter column {name} {change}")


def end_first_load(cursor: adbc.Cursor) -> None:
    """Index the new rows, and put their table into the place of the empty partition with what schema.sql gave that."""
    schema, name = FILES.split(".")
    _restore_defaults(cursor)
    for statement in (
        f"set local maintenance_work_mem = '{INDEX_MEMORY}'",
        f"create index on {FRESH} (user_id, item_id)",
        f"create index on {FRESH} using brin (landed_tx, landed_partition) with (pages_per_range = 32)",
        f"alter table {artifacts.RAW_INTERACTIONS} detach partition {FILES}",
        f"drop table {FILES}",
        f"alter table {FRESH} rename to {name}",
        f"alter table {artifacts.RAW_INTERACTIONS} attach partition {schema}.{name} default",
        f"create trigger activity_by_load after insert or update or truncate on {FILES}"
        f" for each statement execute function {schema}.note_changed_activity()",
        f"insert into {artifacts.INTERACTIONS_LOADS} default values",
    ):
        cursor.execute(statement)


def settle(cursor: adbc.Cursor, rows: int) -> None:
    """After a load of so many events: ranges of the new pages in their index, statistics where many rows are new.

    Without the entries the next build of the marts looks at all rows, until PostgreSQL's own housekeeping comes by.
    """
    cursor.execute(
        f"""
        select brin_summarize_new_values(index.indexrelid)
        from pg_index as index
        inner join pg_class as class on class.oid = index.indexrelid
        inner join pg_am as method on method.oid = class.relam
        where index.indrelid = '{FILES}'::regclass and method.amname = 'brin'
        """
    )
    # PostgreSQL itself keeps the number of the partition's rows up to date, that of the whole table only when analysed.
    cursor.execute(
        f"""
        select partition.reltuples, whole.reltuples from pg_class as partition, pg_class as whole
        where partition.oid = '{FILES}'::regclass and whole.oid = '{artifacts.RAW_INTERACTIONS}'::regclass
        """
    )
    ((there, analysed),) = cursor.fetchall()
    if max(there, 0) + rows > (1 + NEW_SHARE) * max(analysed, 0):
        cursor.execute(f"analyze {artifacts.RAW_INTERACTIONS}")


def _delete(cursor: adbc.Cursor, table: str, interval: Interval, sources: set[str]) -> set[str]:
    """Delete the interval's partition of its domains and return the sources that had rows there.

    Rows of a source that is no longer landed go too. The quarantine knows no domains: there, the partition of these
    sources goes, those that the other tables named included.
    """
    of_domains = "domain = any(string_to_array($2, ','))"
    of_sources = "source = any(string_to_array($2, ','))"
    names = sources if table == "quarantine" else interval.domains
    cursor.execute(
        f"""
        with gone as (
            delete from {TARGETS[table]}
            where landed_partition = $1 and {of_sources if table == "quarantine" else of_domains}
            returning source
        )
        select distinct source from gone
        """,
        (interval.partition, ",".join(sorted(names))),
    )
    return {source for (source,) in cursor.fetchall()}


def copy_files(cursor: adbc.Cursor, target: str, files: Sequence[Path], left_out: Iterable[str] = ()) -> int:
    """Append the files' rows to a table through COPY, one record batch in memory at a time; return how many.

    Columns that are `left_out` get the table's default.
    """
    schema, table = target.split(".")
    rows = ds.dataset([str(path) for path in files], format="parquet")
    columns = [name for name in rows.schema.names if name not in left_out]
    scanner = rows.scanner(
        columns=columns, batch_size=BATCH_ROWS, batch_readahead=2, fragment_readahead=1, use_threads=False
    )
    return cursor.adbc_ingest(table, scanner.to_reader(), mode="append", db_schema_name=schema)
