"""Airflow's REST API, as a user's click would use it: trigger a run, watch it, read why a task failed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import requests
import tenacity

from recsys.errors import RecsysError, ServiceUnavailable
from recsys.settings import Settings

FINISHED = {"success", "failed"}
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class TaskState:
    """One task of a run as Airflow reports it. `state` is None before the scheduler has seen it."""

    task_id: str
    label: str
    state: str | None
    seconds: float
    tries: int
    map_index: int


class Airflow:
    """A logged-in client.

    Raises:
        ServiceUnavailable: the API server does not answer or refuses the login.
    """

    def __init__(self, settings: Settings):
        self.url = settings.airflow_url
        self._session = requests.Session()
        login = {"username": settings.airflow_user, "password": settings.airflow_password}
        try:
            answer = self._session.post(f"{self.url}/auth/token", json=login, timeout=30)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise ServiceUnavailable("Airflow", error, "See `make status`; start it with `make up`") from error
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def _call(self, method: str, path: str, **kwargs) -> Any:
        answer = self._session.request(method, f"{self.url}/api/v2/{path}", timeout=60, **kwargs)
        if answer.status_code >= 400:
            raise RecsysError(f"Airflow {method} {path}", f"{answer.status_code} {answer.text[:300]}", "See its page")
        return answer.json()

    def wait_for_dag(self, dag_id: str, seconds: float = 120) -> None:
        """Wait until the DAG processor has parsed a DAG.

        Raises:
            RecsysError: a DAG file does not import, or the DAG does not appear in time.
        """

        def known() -> bool:
            errors = self._call("GET", "importErrors")["import_errors"]
            if errors:
                raise RecsysError("DAG file", errors[0]["filename"], errors[0]["stack_trace"].strip().splitlines()[-1])
            return any(dag["dag_id"] == dag_id for dag in self._call("GET", "dags", params={"limit": 100})["dags"])

        try:
            tenacity.Retrying(
                retry=tenacity.retry_if_result(lambda found: not found),
                stop=tenacity.stop_after_delay(seconds), wait=tenacity.wait_fixed(POLL_SECONDS),
            )(known)  # fmt: skip
        except tenacity.RetryError as error:
            raise RecsysError("DAG", dag_id, "Airflow did not parse it in time; see the DAG processor's log") from error

    def resume(self, dag_id: str) -> None:
        """End a DAG's pause."""
        self._call("PATCH", f"dags/{dag_id}", json={"is_paused": False})

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Trigger a run with these parameters and return its id.

        Raises:
            RecsysError: Airflow refuses the parameters.
        """
        answer = self.try_trigger(dag_id, conf)
        if answer.status_code >= 400:
            raise RecsysError(f"parameters of {dag_id}", conf, f"Airflow says: {answer.text[:300]}")
        return answer.json()["dag_run_id"]

    def try_trigger(self, dag_id: str, conf: dict[str, Any]) -> requests.Response:
        """Ask for a run with these parameters and return Airflow's answer, whatever it is."""
        body = {"logical_date": None, "conf": conf}
        return self._session.post(f"{self.url}/api/v2/dags/{dag_id}/dagRuns", json=body, timeout=60)

    def latest_run(self, dag_id: str) -> str:
        """Return the id of the run that was triggered last."""
        parameters = {"order_by": "-run_after", "limit": 1}
        return self._call("GET", f"dags/{dag_id}/dagRuns", params=parameters)["dag_runs"][0]["dag_run_id"]

    def run_state(self, dag_id: str, run_id: str) -> str:
        return self._call("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"]

    def fail(self, dag_id: str, run_id: str) -> None:
        """End a run as failed; what still runs in it is stopped."""
        self._call("PATCH", f"dags/{dag_id}/dagRuns/{run_id}", json={"state": "failed"})

    def span(self, dag_id: str, run_id: str) -> float:
        """Return how many seconds a finished run took, from its first task to its last."""
        found = self._call("GET", f"dags/{dag_id}/dagRuns/{run_id}")
        return (datetime.fromisoformat(found["end_date"]) - datetime.fromisoformat(found["start_date"])).total_seconds()

    def tasks(self, dag_id: str, run_id: str) -> list[TaskState]:
        """Return the run's tasks in the order in which they started; those that have not stand last."""
        answer = self._call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 100})
        instances = sorted(answer["task_instances"], key=lambda task: task["start_date"] or "9999")
        return [
            TaskState(
                task["task_id"],
                _label(task),
                task["state"], task["duration"] or 0.0, task["try_number"], task["map_index"],
            )
            for task in instances
        ]  # fmt: skip

    def watch(
        self, dag_id: str, run_id: str, show: Callable[[list[TaskState]], None], every: float = POLL_SECONDS
    ) -> str:
        """Call `show` with the tasks until the run has finished; return the run's final state."""

        def look() -> str:
            state = self.run_state(dag_id, run_id)
            show(self.tasks(dag_id, run_id))
            return state

        return tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda state: state not in FINISHED),
            stop=tenacity.stop_never, wait=tenacity.wait_fixed(every),
        )(look)  # fmt: skip

    def result(self, dag_id: str, run_id: str, task: TaskState) -> Any:
        """Return what a task returned (its XCom), or None where it returned nothing."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task.task_id}/xcomEntries/return_value"
        answer = self._session.get(
            f"{self.url}/api/v2/{path}", params={"map_index": task.map_index, "deserialize": True}, timeout=60
        )
        return answer.json()["value"] if answer.ok else None

    def sentence(self, dag_id: str, run_id: str, task: TaskState) -> str:
        """Return the last line that a failed task's log calls an error."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task.task_id}/logs/{max(task.tries, 1)}"
        answer = self._call("GET", path, params={"map_index": task.map_index}, headers={"Accept": "application/json"})
        events = [event for event in answer["content"] if isinstance(event, dict)]
        lines = [str(event.get("event", "")) for event in events]
        failures = [line for line in lines if line.startswith("FAILED ")]
        return (failures or lines or ["no log"])[-1]


def _label(task: dict[str, Any]) -> str:
    """Return a task's name; of a mapped task also its place, or what it works on once Airflow has rendered that."""
    if task["map_index"] < 0:
        return task["task_id"]
    place, rendered = str(task["map_index"]), task.get("rendered_map_index")
    return f"{task['task_id']} {rendered}" if rendered and rendered != place else f"{task['task_id']} #{place}"
