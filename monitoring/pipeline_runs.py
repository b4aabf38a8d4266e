"""How the DAGs' runs ended, from Airflow's REST API into a table, so that who looks at the marts sees them too.

Airflow keeps its own history and cuts it; this one stays. A run is written once it has ended, and again if somebody
clears it and it ends another way.
"""

from datetime import datetime
from typing import Any

import httpx
import psycopg

from recsys.artifacts import DAG_DEPLOY, DAG_INSIGHT, DAG_PIPELINE, PIPELINE_RUNS
from recsys.errors import ServiceUnavailable
from recsys.settings import Settings

PAGE = 100
ENDED = ("success", "failed")


def record_runs(settings: Settings, connection: psycopg.Connection) -> dict[str, Any]:
    """Write the ended runs that Airflow still knows; return how many of each state.

    Raises:
        ServiceUnavailable: Airflow does not answer, or refuses the login.
    """
    rows = [row for dag_id in (DAG_PIPELINE, DAG_INSIGHT, DAG_DEPLOY) for row in ended_runs(settings, dag_id)]
    with connection.cursor() as cursor:
        cursor.executemany(
            f"insert into {PIPELINE_RUNS} (dag_id, run_id, run_date, state, seconds) values (%s, %s, %s, %s, %s)"
            " on conflict (dag_id, run_id) do update set"
            " run_date = excluded.run_date, state = excluded.state, seconds = excluded.seconds",
            rows,
        )
    return {state: sum(row[3] == state for row in rows) for state in ENDED} | {"unchanged": False}


def ended_runs(settings: Settings, dag_id: str) -> list[tuple[str, str, str, str, float]]:
    """Return dag_id, run_id, UTC day of the end, state and seconds of each ended run; none of an unknown DAG."""
    login = {"username": settings.airflow_user, "password": settings.airflow_password}
    rows: list[tuple[str, str, str, str, float]] = []
    try:
        with httpx.Client(base_url=settings.airflow_url, timeout=30) as airflow:
            token = airflow.post("/auth/token", json=login).raise_for_status().json()["access_token"]
            airflow.headers["Authorization"] = f"Bearer {token}"
            while True:
                answer = airflow.get(
                    f"/api/v2/dags/{dag_id}/dagRuns",
                    params={"limit": PAGE, "offset": len(rows), "state": list(ENDED), "order_by": "run_after"},
                )
                if answer.status_code == httpx.codes.NOT_FOUND:
                    return []
                page = answer.raise_for_status().json()["dag_runs"]
                rows += [_row(run) for run in page]
                if len(page) < PAGE:
                    return rows
    except httpx.HTTPError as error:
        raise ServiceUnavailable("Airflow", error, "See `make status`; start it with `make up`") from error


def _row(run: dict[str, Any]) -> tuple[str, str, str, str, float]:
    started, ended = (datetime.fromisoformat(run[name]) for name in ("start_date", "end_date"))
    return run["dag_id"], run["dag_run_id"], run["end_date"][:10], run["state"], (ended - started).total_seconds()
