"""The check of the pipelines themselves: Airflow's runs in, three outcome rows a DAG out; and the runs are kept.

Airflow keeps its own history and cuts it; `monitoring.pipeline_runs` stays. A run is written once it has ended, and
again if somebody clears it and it ends another way.
"""

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import psycopg

from monitoring.airflow_runs import read_dags
from monitoring.pipelines import Dag, health, judge, summary
from recsys.artifacts import DAG_DEPLOY, DAG_INSIGHT, DAG_PIPELINE, PIPELINE_RUNS
from recsys.settings import Settings
from recsys.warehouse import connect, write_outcomes

log = logging.getLogger(__name__)

KEPT = (DAG_PIPELINE, DAG_INSIGHT, DAG_DEPLOY)
"""Those that look every minute would fill the table with what they did not do."""


def check_pipelines(settings: Settings, now: datetime) -> dict[str, Any]:
    """Judge every DAG of the platform and write the rows of today; a later judgement of a day replaces the earlier.

    Bad health is news (verdict `warn`, and a sentence among `warnings`), not an error of this task.

    Raises:
        ServiceUnavailable: Airflow or PostgreSQL does not answer.
    """
    dags = read_dags(settings)
    outcomes = [row for dag in dags for row in judge(health(dag, now), now.date(), now)]
    with connect(settings) as connection:
        keep_runs(connection, dags)
        write_outcomes(connection, outcomes)
    found = summary(outcomes)
    for sentence in found["warnings"]:
        log.warning("%s", sentence)
    return found


def keep_runs(connection: psycopg.Connection, dags: Iterable[Dag]) -> None:
    """Write the ended runs, one row each however often they are read."""
    rows = [
        (run.dag_id, run.run_id, run.ended.date(), run.state, run.seconds)
        for dag in dags
        if dag.dag_id in KEPT
        for run in dag.runs
        if run.ended is not None
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            f"insert into {PIPELINE_RUNS} (dag_id, run_id, run_date, state, seconds) values (%s, %s, %s, %s, %s)"
            " on conflict (dag_id, run_id) do update set"
            " run_date = excluded.run_date, state = excluded.state, seconds = excluded.seconds",
            rows,
        )
