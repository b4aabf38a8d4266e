"""The DAG files under Airflow alone: they parse fast, name only known tasks, and run stations by command."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from recsys import artifacts
from recsys.settings import HOME

AIRFLOW_PYTHON = HOME / ".venv" / "orchestrator" / "bin" / "python"
DAG_FILES = sorted(path.name for path in (HOME / "dags").glob("recsys_*.py"))

DESCRIBE = """
import json, sys
from time import process_time
from airflow.dag_processing.dagbag import DagBag
import airflow.providers.standard, airflow.sdk, airflow.configuration
started = process_time()
bag = DagBag(sys.argv[1], collect_dags=True)
seconds = process_time() - started
print(json.dumps({
    "seconds": seconds,
    "errors": {str(k): str(v) for k, v in bag.import_errors.items()},
    "modules": sorted({name.split(".")[0] for name in sys.modules}),
    "notifiers": sorted(name for name in sys.modules if name.endswith((".notifications.http", ".notifications.smtp"))),
    "dags": {
        dag.dag_id: {
            "catchup": dag.catchup,
            "timetable": type(dag.timetable).__name__,
            "params": {name: dag.params.get_param(name).schema for name in dag.params},
            "tasks": {
                task.task_id: {
                    "upstream": sorted(task.upstream_task_ids),
                    "documented": bool(task.doc_md),
                    "is_mapped": task.is_mapped,
                }
                for task in dag.tasks
            },
        }
        for dag in bag.dags.values()
    },
}))
"""


@pytest.fixture(scope="module")
def described(tmp_path_factory) -> dict[str, dict]:
    home = tmp_path_factory.mktemp("airflow")
    environment = {"PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(home), "PYTHONPATH": f"{HOME}:{HOME / 'dags'}"}
    found = {}
    for name in DAG_FILES:
        done = subprocess.run(
            [str(AIRFLOW_PYTHON), "-c", DESCRIBE, str(HOME / "dags" / name)],
            capture_output=True, text=True, env=environment, cwd=home, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_there_are_dag_files_and_they_import(described):
    assert {"recsys_pipeline.py", "recsys_insight.py"} <= set(described)
    for name, facts in described.items():
        assert not facts["errors"], name
        assert len(facts["dags"]) == 1, name


def test_dag_files_load_no_station_and_no_heavy_library(described):
    heavy = {"pyspark", "torch", "tensorflow", "transformers", "feast", "mlflow", "pandas", "numpy", "etl", "training"}
    for name, facts in described.items():
        assert "airflow" in facts["modules"], name
        assert not heavy.intersection(facts["modules"]), name
        assert facts["notifiers"] == [], name  # nobody is to hear, and every task of every run parses its file anew


def test_dag_files_parse_in_under_two_seconds_of_cpu(described):
    """Processor time of the file itself with Airflow already imported, as the DAG processor has it."""
    for name, facts in described.items():
        assert facts["seconds"] < 2, name


def test_the_pipeline_is_scheduled_by_data_interval_and_catches_up(described):
    dag = described["recsys_pipeline.py"]["dags"][artifacts.DAG_PIPELINE]
    assert dag["timetable"] == "CronDataIntervalTimetable"
    assert dag["catchup"] is True


def test_the_pipelines_parameters_are_validated(described):
    params = described["recsys_pipeline.py"]["dags"][artifacts.DAG_PIPELINE]["params"]
    assert params["domains"]["items"]["enum"] == ["movies", "products", "books", "social"]
    assert params["models"]["contains"] == {"const": artifacts.BASELINE_MODEL}
    assert params["as_of"]["format"] == "date"


def ancestors(tasks: dict[str, dict], task_id: str) -> set[str]:
    found: set[str] = set()
    waiting = [task_id]
    while waiting:
        for upstream in tasks[waiting.pop()]["upstream"]:
            if upstream not in found:
                found.add(upstream)
                waiting.append(upstream)
    return found


def test_nothing_downstream_of_a_door_runs_before_its_judgement(described):
    tasks = described["recsys_pipeline.py"]["dags"][artifacts.DAG_PIPELINE]["tasks"]
    assert {"land_raw", "load_raw", "check_raw"} <= ancestors(tasks, "build_marts")
    assert "check_marts" in ancestors(tasks, "train")
    assert "check_features" in ancestors(tasks, "materialize_features")
    assert {"evaluate", "register", "promote", "check_drift", "rebuild_user_state"} <= ancestors(tasks, "deploy")
    assert ancestors(tasks, "precompute_lists") == set(tasks) - {"precompute_lists"}
    assert tasks["train"]["is_mapped"]


def test_every_task_has_its_runbook(described):
    for facts in described.values():
        for dag in facts["dags"].values():
            assert dag["tasks"]
            missing = [task_id for task_id, task in dag["tasks"].items() if not task["documented"]]
            assert missing == [] or missing == ["choose_models"]


RETRAINING = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
(dag,) = DagBag(sys.argv[1]).dags.values()
conf, is_due = dag.get_task("retrain").conf, dag.get_task("is_due").python_callable
yes = {"retrain": True, "conf": {"as_of": "2026-11-26", "staged": True}}
print(json.dumps({
    "from": [conf.operator.task_id, conf.key],
    "yes": is_due(yes),
    "no": is_due({"retrain": False, "conf": {}}),
}))
"""


def told_by(home: Path, script: str, dag: str) -> Any:
    """Run a script over a DAG's file in Airflow's own environment and return the JSON of its last line."""
    environment = {"PATH": "/usr/bin:/bin", "AIRFLOW_HOME": str(home), "PYTHONPATH": f"{HOME}:{HOME / 'dags'}"}
    done = subprocess.run(
        [str(AIRFLOW_PYTHON), "-c", script, str(HOME / "dags" / f"{dag}.py")],
        capture_output=True, text=True, env=environment, cwd=home, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_retraining_hands_the_whole_decision_to_the_pipeline_so_that_it_stays_staged(tmp_path):
    """A run without its parameters would make its winner champion at once."""
    found = told_by(tmp_path, RETRAINING, "recsys_retraining")
    assert found["from"] == ["is_due", "return_value"]
    assert found["yes"] == {"as_of": "2026-11-26", "staged": True}
    assert found["no"] == {}


FITS = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
(dag,) = DagBag(sys.argv[1]).dags.values()
choose = dag.get_task("choose_models").python_callable
fits = {staged: choose(["--as-of=D"], {"models": ["ials", "popularity"], "staged": staged}) for staged in (False, True)}
print(json.dumps({"cold": fits[False], "warm": fits[True], "cut": dag.get_task("cut_dataset").arguments}))
"""


def test_a_retraining_begins_where_the_served_model_is_and_is_judged_on_what_came_since(tmp_path):
    found = told_by(tmp_path, FITS, "recsys_pipeline")
    assert [fit[3] for fit in found["cold"]] == ["--model=ials", "--model=popularity"]
    assert found["warm"] == [[*fit, "--warm"] for fit in found["cold"]]
    assert "params.known_until" in found["cut"][-1]
