"""Airflow DAG: how the pipelines themselves are, every hour: green runs, duration, age of their data.

It waits for no other DAG: one that stands still is what it has to see.
"""

from datetime import timedelta

import alerts
import pendulum
from airflow.sdk import DAG, CronTriggerTimetable
from station_operator import station

from recsys import artifacts

with DAG(
    dag_id=artifacts.DAG_HEALTH,
    doc_md=__doc__,
    schedule=CronTriggerTimetable("@hourly", timezone="UTC"),
    start_date=pendulum.datetime(2026, 11, 22, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args={
        "retries": 2,
        "retry_delay": timedelta(seconds=5),
        "on_failure_callback": alerts.on_failure(),
    },
    tags=["recsys"],
):
    station("check_pipelines", "monitoring", "pipelines", on_success_callback=alerts.on_warnings())
