"""`python -m etl land|load --as-of D [--since S] --domains movies[,books]`, and the three ways to get raw files:
`python -m etl download SOURCE --to DIR`, `python -m etl mirror s3://BUCKET/PREFIX --to DIR`, `python -m etl synthesize
--to DIR`."""

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from etl.catalogue import PROVIDERS
from etl.discovery import discover
from recsys import artifacts, receipts, station
from recsys.interval import Interval, add_arguments, from_arguments
from recsys.settings import Settings, load_settings
from recsys.warehouse import connect, write_outcomes

LAND, LOAD = "etl.land", "etl.load"
IN_THE_FUTURE = "occurred_at_in_the_future"
"""Reason of a refusal that a later clock takes back."""

# Receipts of this task for this partition of any of these domains, whatever their as-of day: all of them say what the
# partition holds, and it is about to hold something else.
WITHDRAW = f"""
    delete from {artifacts.RECEIPTS}
    where task = $1 and split_part(key, '/', 1) = $2
      and string_to_array(split_part(split_part(key, '/', 2), '@', 1), ',') && string_to_array($3, ',')
"""


OF_PARTITION = f"""
    select detail from {artifacts.RECEIPTS}
    where task = %s and split_part(key, '/', 1) = %s and split_part(split_part(key, '/', 2), '@', 1) = %s
      and split_part(key, '@', 2) < %s
    order by key desc
"""


def key_of(interval: Interval) -> str:
    """Return the key of this interval's receipts; a `--since` partition has receipts of its own."""
    return f"{interval.partition}/{interval.key}"


def land(settings: Settings, interval: Interval, now: datetime) -> Mapping[str, Any]:
    settings = where_the_files_are(settings)
    found = discover(settings, interval.domains)
    code = receipts.code_fingerprint("etl", "recsys")
    wanted = receipts.fingerprint(code, interval.key, interval.partition, [files.fingerprint for _, files in found])
    with connect(settings) as connection:
        known = receipts.recall(connection, LAND, key_of(interval), wanted)

    from etl.lake import Draft, lake_folder, partition_folder

    lake = lake_folder(settings)

    def is_landed(detail: Mapping[str, Any]) -> bool:
        places = [(count["table"], count["domain"], count["source"]) for count in detail["sources"]]
        return all(partition_folder(lake, *place, interval.partition).is_dir() for place in places)

    if known and is_landed(known):
        return {**known, "unchanged": True}
    files = receipts.fingerprint(code, interval.domains, [one.fingerprint for _, one in found])
    earlier = _of_partition(settings, LAND, interval)
    same = next((one for one in earlier if one["files"] == files and _is_whole(one) and is_landed(one)), None)
    if same is not None:  # a later day, and no file has changed
        with connect(settings) as connection:
            receipts.record(connection, LAND, key_of(interval), wanted, same)
        return {**same, "unchanged": True}

    from etl import judge
    from etl import land as landing

    draft = Draft(lake, interval)
    draft.begin()
    counts = landing.land(settings, draft, judge.Clock(now), found)
    # Without a receipt while the folders move: whoever is killed in between has landed nothing.
    with connect(settings) as connection, psycopg.RawCursor(connection) as cursor:
        cursor.execute(WITHDRAW, (LAND, interval.partition, ",".join(interval.domains)))
    draft.publish()
    detail = {
        **landing.totals(counts, "interactions"),
        "items": landing.totals(counts, "items"),
        "users": landing.totals(counts, "users"),
        "sources": [count.as_dict() for count in counts],
        "files": files,
        "landing": wanted,
    }
    with connect(settings) as connection:
        receipts.record(connection, LAND, key_of(interval), wanted, detail)
    return {**detail, "unchanged": False}


def where_the_files_are(settings: Settings) -> Settings:
    """Return settings whose data_dir holds the raw files, or the heads that stand for those of an object store."""
    if not settings.data_url:
        return settings
    from etl import remote
    from etl.spark import session

    remote.check_url(settings.data_url)
    with session(settings, input_bytes=0, keep_classes=False) as spark:
        folder = remote.heads_folder(settings.var_dir, settings.data_url)
        heads = remote.bring_heads(spark, settings.data_url, folder)
    return settings.model_copy(update={"data_dir": heads})


def _of_partition(settings: Settings, task: str, interval: Interval) -> list[dict[str, Any]]:
    """Return the details of a task's receipts for this whole history until earlier days, the latest first; nothing for
    a stretch of days, which holds what its own two ends enclose."""
    if interval.since is not None:
        return []
    wanted = (task, interval.partition, ",".join(interval.domains), interval.as_of.isoformat())
    with connect(settings) as connection:
        return [row[0] for row in connection.execute(OF_PARTITION, wanted).fetchall()]


def _is_whole(detail: Mapping[str, Any]) -> bool:
    """Whether a later as-of day would land the very same: nothing lay after the earlier one, or after its clock."""
    return not any(one["rows_outside_interval"] or IN_THE_FUTURE in one["quarantine"] for one in detail["sources"])


def load(settings: Settings, interval: Interval) -> Mapping[str, Any]:
    code = receipts.code_fingerprint("etl", "recsys")
    with connect(settings) as connection:
        upstream, landed = receipts.latest(connection, LAND, key_of(interval))
        wanted = receipts.fingerprint(code, upstream)
        known = receipts.recall(connection, LOAD, key_of(interval), wanted)
        held = receipts.known(connection, LOAD, key_of(interval))
    if known:
        return {**known, "unchanged": True}

    from etl import load as loading
    from etl.lake import lake_folder

    outcomes = loading.judge_landing(interval, landed["sources"])
    failure = loading.first_failure(outcomes)
    loaded = _of_partition(settings, LOAD, interval)
    same = next((one for one in loaded if failure is None and one["landing"] == landed["landing"]), None)
    if same is not None:  # of an earlier day: the rows are there, and judged again for this one
        with connect(settings) as connection:
            write_outcomes(connection, outcomes)
            receipts.record(connection, LOAD, key_of(interval), wanted, same)
        return {**same, "unchanged": True}
    kept = loading.judge_kept(interval, held or next(iter(loaded), None), landed["sources"])
    outcomes += kept
    published = ("quarantine",) if failure else tuple(loading.TARGETS)
    # Rows and the withdrawal of the old receipt in one transaction; the new receipt after it: a load that is killed
    # in between is done again and replaces the same rows.
    with loading.transaction(settings) as cursor:
        cursor.execute(WITHDRAW, (LOAD, interval.partition, ",".join(interval.domains)))
        rows = loading.replace_partition(cursor, lake_folder(settings), interval, landed["sources"], published)
    with loading.transaction(settings) as cursor:
        loading.settle(cursor, rows.get("interactions", 0))
    verdicts = {verdict: sum(o.verdict == verdict for o in outcomes) for verdict in ("pass", "warn", "fail")}
    detail = {"rows": rows, "verdicts": verdicts, "sources": sorted({count["source"] for count in landed["sources"]}),
              "landing": landed["landing"]}  # fmt: skip
    with connect(settings) as connection:
        write_outcomes(connection, outcomes)
        if failure is None:
            receipts.record(connection, LOAD, key_of(interval), wanted, detail)
    if failure:
        raise failure
    fewer = [
        f"{one.subject} holds {one.observed} rows, expected {one.expected}: was a file cut off?"
        for one in kept
        if one.verdict == "warn"
    ]
    return {**detail, "unchanged": False, **({"warnings": fewer} if fewer else {})}


def fetch(arguments: argparse.Namespace) -> Mapping[str, Any]:
    import httpx
    from rich.console import Console

    from etl.download import TIMEOUT_SECONDS, download

    with httpx.Client(follow_redirects=True, timeout=TIMEOUT_SECONDS) as client:
        return download(arguments.source, arguments.release, arguments.to, client, Console(stderr=True))


def make_up(arguments: argparse.Namespace, seed: int) -> Mapping[str, Any]:
    from etl.synthetic.files import synthesize
    from etl.synthetic.population import World

    seed = seed if arguments.seed is None else arguments.seed
    world = World(seed=seed, events=arguments.events, days=arguments.days, drift_day=2 * arguments.days // 3)
    truths = synthesize(world, arguments.to)
    return {"folder": str(arguments.to), "label": truths["label"], **truths["drawn"]}


def main() -> Mapping[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m etl", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add_arguments(commands.add_parser("land", help="raw files to Parquet: cast, judge, replace the partition"))
    add_arguments(commands.add_parser("load", help="that Parquet to Postgres: replace the partition"))
    fetched = commands.add_parser("download", help="raw files from the provider's own site; prints the licence")
    fetched.add_argument("source", choices=sorted(PROVIDERS))
    fetched.add_argument(
        "--release", action="append", default=[], help="which one, may come again; an unknown lists all"
    )
    mirrored = commands.add_parser("mirror", help="raw files from object storage: s3://, gs://, abfs://")
    mirrored.add_argument("address", help="the folder there; credentials come from the provider's own configuration")
    made_up = commands.add_parser("synthesize", help="made-up interactions of all domains, with planted truths")
    made_up.add_argument("--events", type=int, default=100_000, help="how many, apart from clicks on impressions")
    made_up.add_argument("--days", type=int, default=180, help="from 1 January 2025 on; the drift is at two thirds")
    made_up.add_argument("--seed", type=int, default=None, help="default: RECSYS_SEED")
    for command in (fetched, mirrored, made_up):
        command.add_argument("--to", type=Path, required=True, help="folder to write into, below RECSYS_DATA_DIR")
    arguments = parser.parse_args()
    if arguments.command == "download":
        return fetch(arguments)
    if arguments.command == "mirror":
        from etl.mirror import mirror

        return mirror(arguments.address, arguments.to)
    if arguments.command == "synthesize":
        return make_up(arguments, load_settings().seed)
    settings, interval = load_settings(), from_arguments(arguments)
    if arguments.command == "land":
        return land(settings, interval, datetime.now(UTC))
    return load(settings, interval)


if __name__ == "__main__":
    station.run(main)
