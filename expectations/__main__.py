"""Judge the data at a door of the warehouse.

python -m expectations raw      --as-of D --domains movies [--since S]   what etl loaded
python -m expectations marts    --as-of D --domains movies               what dbt built
python -m expectations features --as-of D --domains movies               what Feast is about to offer
python -m expectations analysis --as-of D --domains movies               what it offers to analyses besides
"""

import argparse
import importlib
import logging
from typing import Any

from recsys import interval as intervals
from recsys import receipts, station, warehouse
from recsys.interval import Interval
from recsys.settings import Settings, load_settings

AFTER = {
    "raw": ("etl.load",),
    "marts": ("dbt.build",),
    "features": ("dbt.build",),
    "analysis": ("dbt.analytics", "analytics.texts"),
}


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m expectations", description=__doc__.split("\n")[0])
    parser.add_argument("door", choices=AFTER)
    intervals.add_arguments(parser)
    arguments = parser.parse_args()
    return judge_door(load_settings(), arguments.door, intervals.from_arguments(arguments))


def judge_door(settings: Settings, door: str, interval: Interval) -> dict[str, Any]:
    """Judge a door unless its receipt says that this very data has passed; write the outcomes.

    Raises:
        CheckFailed: an expectation with severity `fail` does not hold.
    """
    task = f"expectations.{door}"
    with warehouse.connect(settings) as connection:
        wanted = receipts.fingerprint(
            task,
            interval,
            receipts.code_fingerprint("expectations", "recsys"),
            receipts.upstream(connection, AFTER[door], interval.key),
        )
        detail = receipts.recall(connection, task, interval.key, wanted)
    if detail is not None:
        return {**detail, "unchanged": True}

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    definitions = importlib.import_module(f"expectations.{door}")
    judge = importlib.import_module("expectations.judge")

    docs = settings.var_dir / "expectations" / door
    outcomes = judge.judge(
        definitions.batches(interval), settings.postgres_url, docs, door, ",".join(interval.domains), interval.as_of
    )
    verdicts = [outcome.verdict for outcome in outcomes]
    detail = {"checks": len(verdicts), "failed": verdicts.count("fail"), "warned": verdicts.count("warn")}
    with warehouse.connect(settings) as connection:
        warehouse.write_outcomes(connection, outcomes)
        if not detail["failed"]:
            receipts.record(connection, task, interval.key, wanted, detail)
    judge.raise_for_failures(outcomes, docs)
    return {**detail, "unchanged": False, "docs": str(docs / "index.html")}


if __name__ == "__main__":
    station.run(main)
