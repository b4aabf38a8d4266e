"""The whole loop as a newcomer runs it, and what is left of it when its parts are killed."""

import signal
from contextlib import suppress

import psutil
import pytest
import requests

from infra.local.airflow_client import Airflow
from recsys import artifacts
from tests.end_to_end.conftest import AS_OF, TABLES, USERS

pytestmark = [pytest.mark.services, pytest.mark.soak]

STATION_COMMANDS = (
    "etl land", "etl load", "expectations raw", "recsys.task dbt.build", "expectations marts",
    "recsys.task feast.apply",
    "expectations features", "recsys.task feast.materialize", "streaming rebuild", "training cut", "training fit",
    "training evaluate", "training register", "training promote", "monitoring drift", "infra.local deploy",
    "infra.local smoke", "serving batch",
)  # fmt: skip


def test_the_demo_ends_green_and_shows_the_loop_closing(installation, first_demo, last_json):
    assert first_demo.returncode == 0, first_demo.stdout[-4000:] + first_demo.stderr[-4000:]
    assert last_json(first_demo.stdout)["click_to_new_list_ms"] < 10_000
    for model in artifacts.MODEL_NAMES:
        assert model in first_demo.stdout
    assert "Champion:" in first_demo.stdout
    assert installation.settings.airflow_url in first_demo.stdout


def test_rows_are_conserved_from_the_raw_file_to_the_marts(installation, first_demo):
    quarantined = dict(installation.query("select reason, count(*) from raw.quarantine group by reason"))
    assert quarantined == {"rating_out_of_range": 1, "not_a_number": 1, "occurred_at_unparsable": 1}
    ((landed,),) = installation.query("select count(*) from raw.interactions_files")
    ((marts,),) = installation.query("select count(*) from marts.fct_interactions")
    ((users,),) = installation.query("select count(*) from marts.dim_users")
    assert landed == marts > 10_000
    assert users == USERS


def test_a_served_model_is_the_registered_champion(installation, first_demo):
    ready = requests.get(f"{installation.settings.serving_url}/readyz", timeout=10)
    assert ready.status_code == 200
    ((verdict,),) = installation.query("select detail from monitoring.receipts where task = 'training.promote'")
    assert ready.json()["model_version"] == str(verdict["version"])


def test_the_demo_ends_with_a_dashboard_that_is_up(installation, first_demo):
    url = installation.settings.dashboard_url

    assert url in first_demo.stdout
    assert requests.get(f"{url}/_stcore/health", timeout=10).text == "ok"


def test_the_click_reached_the_raw_tables_once(installation, first_demo):
    clicks = installation.query("select user_id, item_id, event_type from raw.interactions_stream")
    assert len(clicks) == 1
    assert clicks[0][2] == "click"
    ((impressions,),) = installation.query("select count(*) from raw.impressions")
    assert impressions >= 10


def test_a_second_demo_does_nothing_twice(installation, first_demo, last_json):
    before = installation.table_digests()
    again = installation.demo()
    assert again.returncode == 0, again.stdout[-4000:] + again.stderr[-4000:]
    airflow = Airflow(installation.settings)
    run = airflow.latest_run(artifacts.DAG_PIPELINE)
    tasks = airflow.tasks(artifacts.DAG_PIPELINE, run)
    results = {task.label: airflow.result(artifacts.DAG_PIPELINE, run, task) for task in tasks}
    changed = [task for task, result in results.items() if isinstance(result, dict) and not result["unchanged"]]
    assert changed == ["smoke_test"]  # asking the live service is the one thing that is done each time
    assert installation.table_digests() == before


def test_a_run_whose_every_task_is_killed_once_ends_with_the_same_tables(installation, first_demo):
    """Each task's first try is killed by SIGKILL as soon as its process is seen; Airflow tries again."""
    undisturbed = installation.table_digests()
    assert set(undisturbed) == set(TABLES)
    installation.query_nothing("delete from monitoring.receipts")
    airflow = Airflow(installation.settings)
    run = airflow.trigger(artifacts.DAG_PIPELINE, {"as_of": AS_OF})
    killed: set[str] = set()

    def kill_what_was_not_killed_yet(_) -> None:
        for process, command in installation.processes():
            station = next((s for s in STATION_COMMANDS if f"-m {s}" in " ".join(command)), None)
            if station and station not in killed and process.ppid() != 1:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
                    killed.add(station)

    state = airflow.watch(artifacts.DAG_PIPELINE, run, kill_what_was_not_killed_yet, every=0.1)
    assert state == "success", [(task.label, task.state) for task in airflow.tasks(artifacts.DAG_PIPELINE, run)]
    assert len(killed) >= len(STATION_COMMANDS) - 3, sorted(set(STATION_COMMANDS) - killed)
    assert {name for name in ("etl land", "recsys.task dbt.build", "training fit", "serving batch")} <= killed
    assert installation.table_digests() == undisturbed


SERVICE_DIES_DURING = {
    "airflow-dag-processor": "land_raw",
    "kafka": "load_raw",
    "postgres": "build_marts",
    "valkey": "rebuild_user_state",
    "records": "precompute_lists",
    "mlflow": "train",
    "airflow-scheduler": "check_drift",
    "airflow-api": "evaluate",
    "streaming": "register",
    "serving": "deploy",
}


def test_a_run_whose_every_service_is_killed_once_and_one_more_end_with_the_same_tables(installation, first_demo):
    """Each service gets SIGKILL once the named task has begun and is started again by its supervisor; what was left
    red is triggered again, as an operator would."""
    undisturbed = installation.table_digests()
    installation.query_nothing("delete from monitoring.receipts")
    services = dict(SERVICE_DIES_DURING)
    assert set(services) == set(installation.services()) - {"dashboard"}

    def kill_what_is_due(tasks) -> None:
        begun = {task.task_id for task in tasks if task.state not in {None, "scheduled", "queued"}}
        for service in [service for service, task in services.items() if task in begun]:
            installation.kill_service(service)
            del services[service]

    states = []
    while services or states[-1:] != ["success"]:
        assert len(states) < len(SERVICE_DIES_DURING) + 2, (states, services)
        states.append(installation.patient_run({"as_of": AS_OF}, kill_what_is_due))
    installation.wait_until_healthy()
    assert installation.table_digests() == undisturbed


@pytest.mark.parametrize(
    ("conf", "complaint"),
    [
        ({"domains": ["music"]}, "domains"),
        ({"models": ["ials"]}, "models"),  # without the baseline
        ({"as_of": "tomorrow"}, "as_of"),
    ],
)
def test_the_airflow_page_refuses_wrong_parameters(installation, conf, complaint):
    airflow = Airflow(installation.settings)
    answer = airflow.try_trigger(artifacts.DAG_PIPELINE, conf)
    assert answer.status_code in {400, 422}
    assert complaint in answer.text


def test_an_unusable_file_makes_the_run_red_with_one_sentence(installation, first_demo, tmp_path_factory):
    ratings = installation.data_dir / "ratings.csv"
    good = ratings.read_bytes()
    ratings.write_bytes(b"")
    try:
        failed = installation.demo()
    finally:
        ratings.write_bytes(good)
    assert failed.returncode == 1
    sentence = next(line for line in failed.stdout.splitlines() if line.startswith("land_raw"))
    assert "ratings.csv" in sentence
    assert "UnusableInput" in sentence
