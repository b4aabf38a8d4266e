"""The check of the pipelines themselves: Airflow's runs in, three outcome rows a DAG out."""

import logging
from datetime import datetime
from typing import Any

from monitoring.airflow_runs import read_dags
from monitoring.pipelines import health, judge, summary
from recsys.settings import Settings
from recsys.warehouse import connect, write_outcomes

log = logging.getLogger(__name__)


def check_pipelines(settings: Settings, now: datetime) -> dict[str, Any]:
    """Judge every DAG of the platform and write the rows of today; a later judgement of a day replaces the earlier.

    Bad health is news (verdict `warn`, and a sentence among `warnings`), not an error of this task.

    Raises:
        ServiceUnavailable: Airflow or PostgreSQL does not answer.
    """
    outcomes = [row for dag in read_dags(settings) for row in judge(health(dag, now), now.date(), now)]
    with connect(settings) as connection:
        write_outcomes(connection, outcomes)
    found = summary(outcomes)
    for sentence in found["warnings"]:
        log.warning("%s", sentence)
    return found
