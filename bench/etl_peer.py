"""The landing's work by hand, in DuckDB and COPY: what a good engineer would write for this one file on one machine.

    python -m bench.etl_peer FOLDER OUT POSTGRES_URL [index-last]

Every field is read as text, cast without raising and judged by the same rules; refused rows go to a quarantine with
their record; ids are digests; copies of an event are looked for; Parquet by partition; COPY into PostgreSQL with an
index like that of raw.interactions: there from the beginning, or made last, as `etl load` does.
"""

import json
import sys
from pathlib import Path

import adbc_driver_postgresql.dbapi as adbc
import duckdb
import pyarrow.dataset as ds

MEMORY = "4GB"
JUDGED = """
create view judged as
with typed as (
    select *,
        case when regexp_full_match(userId, '[0-9]{1,18}') then 'ml-25m:' || ltrim(userId, '0') end as user_id,
        case when regexp_full_match(movieId, '[0-9]{1,18}') then 'movielens:' || ltrim(movieId, '0') end as item_id,
        try_cast(rating as double) as stars,
        try_cast("timestamp" as bigint) * 1000 as occurred_ms
    from read_csv($file, header = true, all_varchar = true, delim = ',', quote = '"', ignore_errors = false)
)
select *,
    case
        when user_id is null or item_id is null then 'invalid_id'
        when stars is null then 'not_a_number'
        when not (stars between 0.5 and 5) then 'rating_out_of_range'
        when occurred_ms is null then 'occurred_at_unparsable'
        when occurred_ms < 788918400000 then 'occurred_at_too_early'
        when occurred_ms > 1893456000000 then 'occurred_at_in_the_future'
    end as reason
from typed
"""
LANDED = """
copy (
    select md5(concat_ws('|', 'ml-25m', user_id, item_id, 'rate', occurred_ms)) as event_id, user_id, item_id,
        stars as rating, make_timestamptz(occurred_ms * 1000) as occurred_at, 'movies' as domain, 'rate' as event_type,
        '{}' as context, 'ml-25m' as source, 'history' as landed_partition
    from judged where reason is null
) to '$out' (format parquet, compression snappy)
"""
REFUSED = """
copy (
    select 'ml-25m' as source, 'history' as landed_partition, reason,
        concat_ws(',', userId, movieId, rating, "timestamp") as record
    from judged where reason is not null
) to '$out' (format parquet)
"""
TABLE = """
drop table if exists peer_interactions;
create table peer_interactions (like raw.interactions including defaults)
"""
INDEX = "create index on peer_interactions (user_id, occurred_at)"


def main(folder: Path, out: Path, postgres_url: str, index_last: bool) -> dict[str, int]:
    place = out / "interactions" / "domain=movies" / "source=ml-25m" / "partition=history"
    place.mkdir(parents=True)
    landed, refused = place / "part-0.parquet", out / "quarantine.parquet"
    with duckdb.connect() as engine:
        engine.execute(
            f"set memory_limit = '{MEMORY}'; set threads = 2; set timezone = 'UTC';set preserve_insertion_order = false"
        )
        engine.execute(JUDGED.replace("$file", f"'{folder / 'ratings.csv'}'"))
        engine.execute(LANDED.replace("$out", str(landed)))
        engine.execute(REFUSED.replace("$out", str(refused)))
        read = f"read_parquet('{landed}')"
        copies = engine.execute(f"select count(*) - count(distinct event_id) from {read}").fetchone()[0]
    rows = ds.dataset(str(landed), format="parquet")
    with adbc.connect(postgres_url) as connection, connection.cursor() as cursor:
        for statement in TABLE.split(";"):
            cursor.execute(statement)
        if not index_last:
            cursor.execute(INDEX)
        reader = rows.scanner(
            batch_size=1 << 16, batch_readahead=2, fragment_readahead=1, use_threads=False
        ).to_reader()
        written = cursor.adbc_ingest("peer_interactions", reader, mode="append")
        if index_last:
            cursor.execute("set local maintenance_work_mem = '512MB'")
            cursor.execute(INDEX)
        connection.commit()
    return {"rows": written, "copies": copies}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:] == ["index-last"])))
