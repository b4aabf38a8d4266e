"""Run a door's expectations on the warehouse with Great Expectations, and say what came out.

The context lives in memory only; Data Docs, the pages for people, are written to a folder.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import great_expectations as gx
import psycopg
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from psycopg import sql
from sqlalchemy import make_url

from expectations.suite import Batch, severity_of
from recsys.errors import CheckFailed
from recsys.receipts import fingerprint
from recsys.warehouse import Outcome

STATION = "expectations"
EXAMPLES = 5
SCHEMA = "monitoring"

logger = logging.getLogger(__name__)


def judge(batches: Iterable[Batch], postgres_url: str, docs: Path, door: str, subject: str, day: date) -> list[Outcome]:
    """Return one outcome per expectation, and replace the Data Docs of this door.

    Args:
        batches: what to judge.
        postgres_url: the warehouse, `postgresql://…`.
        docs: folder of the Data Docs, replaced.
        door: raw, marts, features or analysis; first part of the outcome's check name.
        subject: put before batch and column in the outcome's subject, e.g. the domains.
        day: outcome date.
    """
    batches = list(batches)
    with _views(postgres_url, batches) as view_of:
        suite_results = _run(_context(docs), postgres_url, batches, view_of, door)
    return [
        outcome_of(result.to_json_dict(), door, f"{subject}:{suite_result.suite_name.removeprefix(door + '.')}", day)
        for suite_result in suite_results
        for result in suite_result.results
    ]


@contextmanager
def _views(postgres_url: str, batches: Iterable[Batch]) -> Iterator[dict[str, str]]:
    """Yield batch → name of a view of its query in the schema of outcomes; the views are gone afterwards.

    GX learns a view's columns from the database's catalogue, those of a bare query by running it and fetching all rows.
    """
    view_of = {batch.name: f"judged_{fingerprint(batch.name, batch.query)[:16]}" for batch in batches}
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        try:
            for batch in batches:
                view = sql.Identifier(SCHEMA, view_of[batch.name])
                connection.execute(sql.SQL("drop view if exists {view}").format(view=view))
                connection.execute(sql.SQL("create view {view} as ").format(view=view) + sql.SQL(batch.query))
            yield view_of
        finally:
            for name in view_of.values():
                connection.execute(sql.SQL("drop view if exists {}").format(sql.Identifier(SCHEMA, name)))


def _run(context: Any, postgres_url: str, batches: list[Batch], view_of: Mapping[str, str], door: str) -> Iterable[Any]:
    """Return the result of each batch's suite, and build the Data Docs."""
    source = context.data_sources.add_postgres(
        "warehouse",
        connection_string=make_url(postgres_url).set(drivername="postgresql+psycopg2").render_as_string(False),
    )
    definitions = []
    for batch in batches:
        asset = source.add_table_asset(batch.name, table_name=view_of[batch.name], schema_name=SCHEMA)
        suite = context.suites.add(gx.ExpectationSuite(f"{door}.{batch.name}", expectations=list(batch.expectations)))
        definitions.append(
            context.validation_definitions.add(
                gx.ValidationDefinition(
                    name=suite.name, data=asset.add_batch_definition_whole_table(batch.name), suite=suite
                )
            )
        )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=door,
            validation_definitions=definitions,
            result_format={"result_format": "BASIC", "partial_unexpected_count": EXAMPLES},
        )
    )
    suite_results = checkpoint.run().run_results.values()
    context.build_data_docs()  # once, after all batches: an action of the checkpoint would build the index for each
    return suite_results


def _context(docs: Path) -> Any:
    shutil.rmtree(docs, ignore_errors=True)
    site = {
        "class_name": "SiteBuilder",
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)},
        "site_section_builders": {"expectations": "None", "profiling": "None"},  # results only
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    return gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            data_docs_sites={"pages": site},
            analytics_enabled=False,
            progress_bars=ProgressBarsConfig(globally=False),
        ),
    )


def outcome_of(result: Mapping[str, Any], door: str, subject: str, day: date) -> Outcome:
    """Return the outcome of one expectation's result; one that could not be judged at all counts as failed."""
    configuration = result["expectation_config"]
    arguments, severity = configuration["kwargs"], severity_of(configuration)
    column = arguments.get("column") or ", ".join(filter(None, (arguments.get("column_A"), arguments.get("column_B"))))
    fault = _exception(result.get("exception_info") or {})
    observed = fault or _observed(result.get("result") or {})
    return Outcome(
        station=STATION,
        outcome_date=day,
        check_name=f"{door}.{configuration['meta']['check']}",
        subject=f"{subject}.{column}" if column else subject,
        observed=observed,
        expected=_expected(configuration["type"], arguments),
        verdict="pass" if result["success"] else "fail" if fault else severity,
        detail={
            "expectation": configuration["type"],
            "severity": severity,
            "examples": (result.get("result") or {}).get("partial_unexpected_list", []),
        },
    )


def _observed(numbers: Mapping[str, Any]) -> str:
    if "unexpected_percent" in numbers:
        judged = numbers["element_count"] - numbers.get("missing_count", 0)
        count = numbers["unexpected_count"] or 0
        return f"{count} of {judged} rows ({(count / judged if judged else 0):.4%}) unexpected"
    return f"{numbers.get('observed_value')}"


def _expected(kind: str, arguments: Mapping[str, Any]) -> str:
    shown = {
        name: value for name, value in arguments.items() if name not in ("batch_id", "column") and value is not None
    }
    return f"{kind}({', '.join(f'{name}={value}' for name, value in sorted(shown.items()))})"


def _exception(info: Mapping[str, Any]) -> str:
    """Return what prevented the judgement, or an empty string. GX nests the information once per failed metric."""
    entries = [info] if "raised_exception" in info else list(info.values())
    messages = [str(entry["exception_message"]).split("\n")[0] for entry in entries if entry["raised_exception"]]
    return "; ".join(dict.fromkeys(messages))


def raise_for_failures(outcomes: Iterable[Outcome], docs: Path) -> None:
    """Raise for outcomes whose verdict is `fail`.

    Raises:
        CheckFailed: naming the first such expectation, its column and what was observed, how many there are, and
            where the Data Docs lie.
    """
    failed = [outcome for outcome in outcomes if outcome.verdict == "fail"]
    for outcome in failed:
        logger.error(
            "%s on %s: %s, expected %s", outcome.check_name, outcome.subject, outcome.observed, outcome.expected
        )
    if failed:
        first, others = failed[0], f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise CheckFailed(
            f"{first.check_name} on {first.subject}",
            f"{first.observed}, expected {first.expected}{others}",
            f"Look at the rows in the Data Docs ({docs / 'index.html'}), mend the source and land it again",
        )
