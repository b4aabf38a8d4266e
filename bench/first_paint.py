"""How long a page of the dashboard takes to its first paint and to its last figure, over marts of 20 M interactions.

    python -m bench.first_paint

The marts are made in a real PostgreSQL at the grain and the number of rows that 20 M interactions of four domains over
five years give them; two tables that have a row a user are filled too (1.5 M users), which no page may read. Chromium
is headless, its profile new for each page; the dashboard is the embedded platform's own process. Nothing is
cached by an earlier visit in the first round: the process starts anew before it.
"""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from bench.results import publish
from infra.local import applications, stores
from recsys import artifacts
from recsys.columns import DOMAINS
from recsys.warehouse import apply_schema, connect
from tests.browser.chromium import Chromium
from tests.browser.test_dashboard import FIGURES, PAGES, QUIET
from tests.conftest import Services, start, stop
from tests.ports import free_port
from tests.worlds import insight_marts

TARGET_SECONDS, ROUNDS = 2.0, 5
USERS = 1_500_000
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def fill(connection: psycopg.Connection) -> dict[str, int]:
    """Make the marts as large as they would be; return the number of rows of those that pages read and do not."""
    insight_marts.create(connection)
    insight_marts.plant(connection)
    day = "date '2026-11-21' - number"
    of_domains = "unnest(%(domains)s::text[]) as domain"
    days = f"generate_series(61, 1825) as number, {of_domains}"
    queries = {
        artifacts.AGG_DAILY_ENGAGEMENT: f"select {day}, domain, 2740, 900, 80, 3.5 from {days}",
        artifacts.AGG_DAILY_OUTCOMES: f"select {day}, domain, 9000, 540, 50, 0.06, 0.006, 70, 800 from {days}",
        artifacts.AGG_SESSIONS: f"select {day}, domain, 500, 400, 2740, 90, 4, 6.5 from {days}",
        artifacts.AGG_RECOMMENDATION_FUNNEL: f"select {day}, domain, variant, '3', rung, 90, 900, 54, 0.06 from {days},"
        " unnest(array['champion', 'popular', 'shuffle']) as variant,"
        " unnest(array['personalised', 'session', 'popular']) as rung",
        artifacts.AGG_COHORT_RETENTION: "select domain, date '2020-12-01' - 30 * number, age, 900, 400, 0.44, true,"
        " false"
        f" from generate_series(1, 60) as number, generate_series(0, 24) as age, {of_domains}",
        artifacts.OUTCOMES: f"select 'expectations', {day}, 'check ' || of_check, '', 'seen', 'wanted', 'pass', '{{}}'"
        " from generate_series(1, 365) as number, generate_series(1, 60) as of_check",
    }  # fmt: skip
    for table, query in queries.items():
        connection.execute(f"insert into {table} {query}", {"domains": list(DOMAINS)})
    connection.execute(
        f"insert into {artifacts.USER_SEGMENTS} select 'movies', 'user:' || n, 's1', date '2026-11-22'"
        " from generate_series(1, %s) as n",
        [USERS],
    )
    connection.execute(
        f"insert into {artifacts.CUSTOMER_VALUES} select 'movies', 'user:' || n, 3, 20, 90, 9.5, 0.6, 1.2, 11,"
        " date '2026-11-22' from generate_series(1, %s) as n",
        [USERS // 3],
    )
    connection.execute("analyze")
    tables = (*queries, artifacts.USER_SEGMENTS, artifacts.CUSTOMER_VALUES)
    return {table: connection.execute(f"select count(*) from {table}").fetchone()[0] for table in tables}


def visit(chromium: Chromium, url: str, heading: str, charts: int) -> tuple[float, float]:
    """Return the seconds to the first contentful paint, and until every figure of the page stands and is quiet."""
    with chromium.page() as page:
        page.open(url, f"document.body.innerText.includes('{heading}') && {FIGURES} >= {charts} && {QUIET}")
        return page.run(PAINT) / 1000, page.run("performance.now()") / 1000


def reads_of_users(connection: psycopg.Connection) -> int:
    """Return how often the tables with a row a user have been scanned."""
    return connection.execute(
        "select sum(coalesce(seq_scan, 0) + coalesce(idx_scan, 0)) from pg_stat_user_tables"
        " where schemaname || '.' || relname = any(%s)",
        [[artifacts.USER_SEGMENTS, artifacts.CUSTOMER_VALUES]],
    ).fetchone()[0]


def main() -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="first-paint-") as folder:
        var_dir = Path(folder)
        var_dir.chmod(0o711)
        services = Services(var_dir)
        services.start("postgres")
        settings = services.settings.model_copy(update={"dashboard_url": f"http://127.0.0.1:{free_port()}"})
        stores.create_database(settings.postgres_url, "recsys")
        apply_schema(settings)
        with connect(settings) as connection:
            sizes = fill(connection)
            connection.commit()
            before = reads_of_users(connection)
        service = applications.dashboard(settings)
        service = replace(service, environment={**service.environment, "RECSYS_POSTGRES_URL": settings.postgres_url})
        dashboard = start(service, var_dir / "dashboard.log")
        chromium = Chromium(var_dir / "profile")
        try:
            for path, (heading, charts) in PAGES.items():
                url = f"{settings.dashboard_url}/{path}?domain=movies"
                paints, drawn = zip(*(visit(chromium, url, heading, charts) for _ in range(ROUNDS)), strict=True)
                paint, whole = statistics.median(paints), statistics.median(drawn)
                rows.append(
                    {
                        "measure": f"{path or 'overview'}: first paint, median of {ROUNDS} (first visit)",
                        "target": f"under {TARGET_SECONDS:.0f} s: {'met' if paint < TARGET_SECONDS else 'MISSED'}",
                        "measured": f"{paint:.2f} s ({paints[0]:.2f}); "
                        f"every figure drawn after {whole:.2f} s ({drawn[0]:.2f})",
                        "command": "python -m bench.first_paint",
                    }
                )
            with connect(settings) as connection:
                scanned = reads_of_users(connection) - before
        finally:
            chromium.close()
            stop(dashboard)
            services.stop()
    held = ", ".join(f"{table} {count:,}" for table, count in sizes.items())
    rows.append(
        {
            "measure": "scans of tables with a row a user, all pages",
            "target": f"0: {'met' if scanned == 0 else 'MISSED'}",
            "measured": f"{scanned}",
            "command": "python -m bench.first_paint",
        }
    )
    publish(
        "first_paint",
        "First paint of the dashboard",
        rows,
        f"Rows: {held}. First paint is the browser's own first-contentful-paint; a page is drawn when its last heading "
        "and its charts stand and nothing runs any more: the first paint is the frame, not yet the figures.",
    )


if __name__ == "__main__":
    main()
