"""Airflow's metadata, read through its REST API: the platform's DAGs and their finished runs."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx

from monitoring.pipelines import GREEN, RED, Dag, Run
from recsys.errors import ServiceUnavailable
from recsys.settings import Settings

TAG = "recsys"
RUNS = 50
"""So many of a DAG's newest runs are looked at: seven days of one an hour would be cut, seven of one a day are not."""


def read_dags(settings: Settings) -> list[Dag]:
    """Return every DAG of the platform with its newest finished runs.

    Raises:
        ServiceUnavailable: Airflow does not answer, or refuses the login.
    """
    login = {"username": settings.airflow_user, "password": settings.airflow_password}
    try:
        with httpx.Client(base_url=settings.airflow_url, timeout=30) as client:
            token = client.post("/auth/token", json=login).raise_for_status().json()["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"

            def get(path: str, **query: Any) -> dict[str, Any]:
                return client.get(f"/api/v2/{path}", params=query).raise_for_status().json()

            return [_dag(get, found) for found in get("dags", tags=[TAG], limit=100)["dags"]]
    except httpx.HTTPError as error:
        raise ServiceUnavailable("Airflow", error, "See `make status`; start it with `make up`") from error


def _dag(get: Callable[..., dict[str, Any]], found: dict[str, Any]) -> Dag:
    answer = get(
        f"dags/{found['dag_id']}/dagRuns", state=[GREEN, RED], order_by="-run_after", limit=RUNS
    )  # the newest ones
    start, end = (_instant(found.get(f"next_dagrun_data_interval_{edge}")) for edge in ("start", "end"))
    # an asset's or a person's DAG has no next run, or one whose interval is a point
    period = end - start if start and end and end > start else None
    return Dag(found["dag_id"], found["is_paused"], period, tuple(run(one) for one in answer["dag_runs"]))


def run(found: dict[str, Any]) -> Run:
    """Return one run of the API's answer. Its data ends where its parameters say, else with its interval, else with
    the instant from which it could start."""
    as_of = (found.get("conf") or {}).get("as_of")
    until = (
        datetime.fromisoformat(as_of).replace(tzinfo=UTC)
        if as_of
        else _instant(found.get("data_interval_end")) or _instant(found["run_after"])
    )
    return Run(
        found["dag_id"],
        found["dag_run_id"],
        found["state"],
        _instant(found["start_date"]),
        _instant(found["end_date"]),
        until,
    )


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
