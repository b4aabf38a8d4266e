"""Airflow DAG: every hour, endpoints that nobody asked for a day go to rest: nothing of them is paid for.

Paused until somebody has clouds in `RECSYS_CLOUDS`; `recsys_deploy` wakes an endpoint. Needs the environment `cloud`.
"""

import pendulum
from airflow.sdk import DAG, CronTriggerTimetable
from station_operator import StationOperator, default_args

from recsys import artifacts

with DAG(
    dag_id=artifacts.DAG_REST,
    doc_md=__doc__,
    schedule=CronTriggerTimetable("@hourly", timezone="UTC"),
    start_date=pendulum.datetime(2026, 11, 22, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    default_args=default_args(),
    tags=["recsys"],
):
    StationOperator(
        task_id="rest_endpoints", arguments=["-m", "infra", "rest", "--target", "every"], environment="cloud"
    )
