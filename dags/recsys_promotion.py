"""Airflow DAG: a candidate's way to champion: shadow, 1, 10, 25, 50 %, all; or back.

Looks at a short interval. A look judges what was seen, takes the one step that is due, and lets serving follow; without
a candidate all three tasks do nothing. Looked at twice, the same step is taken once.
"""

from datetime import timedelta

import alerts
import pendulum
from airflow.configuration import conf
from airflow.sdk import DAG
from station_operator import station

from recsys import artifacts

with DAG(
    dag_id=artifacts.DAG_PROMOTION,
    doc_md=__doc__,
    schedule=timedelta(seconds=conf.getint("recsys", "promotion_look_seconds", fallback=60)),
    start_date=pendulum.datetime(2026, 11, 22, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={
        "retries": 1,
        "retry_delay": timedelta(seconds=5),
        "on_failure_callback": alerts.on_failure(),
    },
    tags=["recsys"],
):
    judge_candidate = station("judge_candidate", "experiments", "judge")
    move_candidate = station("move_candidate", "training", "move")
    follow_candidate = station("follow_candidate", "infra.local", "follow")

    judge_candidate >> move_candidate >> follow_candidate
