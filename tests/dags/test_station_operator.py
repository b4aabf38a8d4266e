"""The operator that runs a station's command, in the orchestrator's own environment."""

import re
import subprocess
import sys

import psutil
import pytest

from recsys.settings import HOME
from tests.dags.test_dag_files import AIRFLOW_PYTHON

RUN = """
from station_operator import StationOperator
command = "import os, signal; print('pid:', os.getpid(), flush=True); signal.pause()"
StationOperator(task_id="waiting", arguments=["-c", command]).execute({})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_command_ends_with_the_task_that_is_killed(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": f"{HOME}:{HOME / 'dags'}"}
    with subprocess.Popen(
        [str(AIRFLOW_PYTHON), "-c", RUN], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as task:
        said = (re.search(r"pid: (\d+)", line) for line in task.stdout)
        command = psutil.Process(next(int(found[1]) for found in said if found))
        assert command.ppid() == task.pid
        task.kill()
        assert psutil.wait_procs([command], timeout=20) == ([command], [])
