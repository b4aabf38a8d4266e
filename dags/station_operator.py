"""What the Airflow DAGs share: one operator (a command in its station's environment, an exit code, one line of JSON),
and the head of those that look every minute."""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import alerts
import pendulum
from airflow.configuration import conf
from airflow.sdk import DAG, Asset, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from recsys import artifacts

PR_SET_PDEATHSIG = 1
HOME = Path(__file__).resolve().parent.parent
RUNBOOKS = HOME / "docs" / "runbooks"
SETUP = "`make setup-cloud` brings the clouds' SDKs, `make setup` the others"

# A fault of the data stays one however often the task runs: these are not retried.
FINAL_FAULTS = ("FAILED CheckFailed:", "FAILED UnusableInput:")


DBT_BUILD = ["dbt", "--quiet", "build", "--project-dir", "dbt", "--profiles-dir", "dbt"]
INSIGHT = "tag:insight"
"""Models that nobody but people waits for: `recsys_insight` builds them, the pipeline does not."""

FEAST = ["env", "PYTHONOPTIMIZE=1", "feast", "-c", "feature_repo"]  # else it compiles itself anew, with type checks

RAW = Asset("recsys://warehouse/raw")
MARTS = Asset("recsys://warehouse/marts")
FEATURES = Asset("recsys://feature-store/online")
EVALUATIONS = Asset("recsys://warehouse/monitoring/model-evaluations")
CHAMPION = Asset(f"recsys://registry/{artifacts.REGISTERED_MODEL}/{artifacts.ALIAS_CHAMPION}")
ENDPOINT = Asset("recsys://endpoint/local")


def runbook(task_id: str) -> str | None:
    """Return the page that says what this task's failure means and what to do, or None where there is none."""
    page = RUNBOOKS / f"{task_id}.md"
    return page.read_text() if page.exists() else None


class StationOperator(BaseOperator):
    """Run `python <arguments>` of one environment from the repository's root.

    The last line of JSON that the command prints becomes the task's result (XCom), with `command_seconds` and
    `command_cpu_seconds` (of the command and all that it waited for) added. A command that fails makes the task red
    with the command's own sentence. A fault of the data or a missing environment is not retried; one of a service is.

    Args:
        arguments: templated; an argument that renders to nothing is left out. No shell is involved.
        environment: folder under `.venv/`: platform, serving or cloud; templated, so that a mapped task can choose.
    """

    template_fields = ("arguments", "environment")
    ui_color = "#e8f1f8"

    def __init__(self, *, arguments: list[str], environment: str = "platform", **kwargs):
        kwargs.setdefault("doc_md", runbook(kwargs["task_id"]))
        super().__init__(**kwargs)
        self.arguments = arguments
        self.environment = environment
        self._process: subprocess.Popen | None = None

    def execute(self, context):
        python = HOME / ".venv" / self.environment / "bin" / "python"
        if not python.exists():
            raise AirflowFailException(f"the environment {self.environment} is not installed here: {SETUP}")
        command = [str(python), *(argument for argument in self.arguments if argument)]
        self.log.info("Running %s", " ".join(command[1:]))
        started = perf_counter()
        self._process = subprocess.Popen(
            command, cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True, preexec_fn=_end_with_parent,
        )  # fmt: skip
        result, sentence = None, "it printed nothing"
        for line in self._process.stdout:
            line = line.rstrip()
            self.log.info("%s", line)
            if line.startswith("{") and line.endswith("}"):
                result = line
            if line:
                sentence = line
        code = self._process.wait()
        self._end(signal.SIGKILL)  # what a killed command left running must not meet the next try
        if code != 0:
            fault = AirflowFailException if sentence.startswith(FINAL_FAULTS) else AirflowException
            raise fault(f"{sentence} (exit code {code})")
        if result is None:
            raise AirflowException("the command succeeded but printed no line of JSON")
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = self._interval()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)  # this process runs nothing else
        return {
            **json.loads(result),
            "command_seconds": round(perf_counter() - started, 3),
            "command_cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
        }

    def _interval(self) -> dict[str, str]:
        """The stretch of data that this task worked on, for the DAGs that its assets wake."""
        options = dict(argument.removeprefix("--").split("=", 1) for argument in self.arguments if "=" in argument)
        return {name: options[name] for name in ("as-of", "domains") if name in options}

    def on_kill(self):
        self._end(signal.SIGTERM)

    def _end(self, kind: signal.Signals) -> None:
        """Send a signal to the command and to all that it started; they are one process group."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, kind)


def _end_with_parent() -> None:
    """In the command, before it begins: on Linux it is killed with the task's process, so that it does not go on beside
    the next try."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def default_args(retries: int = 2) -> dict[str, Any]:
    """Return what holds for every task of a DAG: it is tried again after 5, then 10 s, and whoever is to hear of a red
    one hears."""
    return {
        "retries": retries,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": 2.0,
        "on_failure_callback": alerts.on_failure(),
    }


def looking(dag_id: str, doc_md: str, schedule: Any) -> DAG:
    """A DAG that looks at short intervals and mostly has nothing to do: one look at a time, none made up for."""
    return DAG(
        dag_id=dag_id,
        doc_md=doc_md,
        schedule=schedule,
        start_date=pendulum.datetime(2026, 11, 22, tz="UTC"),
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        default_args=default_args(retries=1),
        tags=["recsys"],
    )


def every(setting: str, seconds: int) -> timedelta:
    """Return the interval of this setting of Airflow's section `recsys`."""
    return timedelta(seconds=conf.getint("recsys", setting, fallback=seconds))


def station(task_id: str, *arguments: str, **kwargs) -> StationOperator:
    """A task that runs `python -m <arguments>`."""
    return StationOperator(task_id=task_id, arguments=["-m", *arguments], **kwargs)


def foreign(task_id: str, name: str, interval: list[str], options: list[str], command: list[str], **kwargs):
    """A task that runs a command of dbt or Feast under a receipt called `name` (recsys/task.py)."""
    return station(task_id, "recsys.task", name, *interval, *options, "--", *command, **kwargs)
