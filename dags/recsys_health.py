"""Airflow DAG: how the pipelines themselves are, every hour: green runs, duration, age of their data.

It waits for no other DAG: one that stands still is what it has to see.
"""

import alerts
from airflow.sdk import CronTriggerTimetable
from station_operator import looking, station

from recsys import artifacts

with looking(artifacts.DAG_HEALTH, __doc__, CronTriggerTimetable("@hourly", timezone="UTC")):
    station("check_pipelines", "monitoring", "pipelines", on_success_callback=alerts.on_warnings())
