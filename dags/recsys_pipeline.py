"""Airflow DAG: the whole way, from raw files to a served recommendation.

When and in what order, nothing more: every task is a command of its station (see station_operator.py).
"""

import alerts
import pendulum
from airflow.configuration import conf
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, task
from station_operator import (
    CHAMPION,
    DBT_BUILD,
    ENDPOINT,
    EVALUATIONS,
    FEAST,
    FEATURES,
    INSIGHT,
    MARTS,
    RAW,
    StationOperator,
    default_args,
    foreign,
    runbook,
    station,
)

from recsys import artifacts
from recsys.columns import DOMAINS

AS_OF = "{{ params.as_of or (data_interval_end or dag_run.run_after) | ds }}"
IS_SCHEDULED = "dag_run.run_type in ('scheduled', 'backfill')"
DOMAINS_GIVEN = "{{ params.domains | sort | join(',') }}"
INTERVAL = [f"--as-of={AS_OF}", f"--domains={DOMAINS_GIVEN}"]
LANDED_INTERVAL = [*INTERVAL, "{% if " + IS_SCHEDULED + " %}--since={{ data_interval_start | ds }}{% endif %}"]
MODELS = "--models={{ params.models | join(',') }}"

KNOWN_UNTIL = "{{ '--known-until=' ~ params.known_until if params.known_until else '' }}"
STAGED = "{{ '--staged' if params.staged else '' }}"
READS = f"--reads={artifacts.RAW_INTERACTIONS}_stream:occurred_at,{artifacts.RAW_IMPRESSIONS}:shown_at"


with DAG(
    dag_id=artifacts.DAG_PIPELINE,
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=pendulum.parse(conf.get("recsys", "schedule_from", fallback="") or "2026-11-22", tz="UTC"),
    catchup=True,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=default_args(),
    params={
        "domains": Param(
            ["movies"], type="array", items={"enum": list(DOMAINS)}, minItems=1, uniqueItems=True,
            description="Domains whose interactions are taken in",
        ),
        "models": Param(
            list(artifacts.MODEL_NAMES), type="array", items={"enum": list(artifacts.MODEL_ZOO)},
            contains={"const": artifacts.BASELINE_MODEL}, minItems=1, uniqueItems=True,
            description="Models to train; the popularity baseline is always among them",
        ),
        "as_of": Param(
            None, type=["null", "string"], format="date",
            description="Day (UTC) whose midnight ends the data; empty: the end of the run's data interval",
        ),
        "staged": Param(
            False, type="boolean",
            description="Let the winner become a candidate beside the champion, not champion at once; fits begin at "
            "the served model's vectors where they can",
        ),
        "known_until": Param(
            None, type=["null", "string"], format="date-time",
            description="When the champion's data ended: models are judged on the last fifth of what came since; "
            "empty: of everything",
        ),
    },
    tags=["recsys"],
):  # fmt: skip
    land_raw = station("land_raw", "etl", "land", *LANDED_INTERVAL)
    load_raw = station("load_raw", "etl", "load", *LANDED_INTERVAL, on_success_callback=alerts.on_warnings())
    check_raw = station("check_raw", "expectations", "raw", *LANDED_INTERVAL, outlets=[RAW])
    build_marts = foreign(
        "build_marts", "dbt.build", INTERVAL, ["--code=dbt", "--after=etl.load", READS],
        [*DBT_BUILD, "--exclude", INSIGHT, "--exclude-resource-type", "unit_test"],
    )  # fmt: skip
    check_marts = station("check_marts", "expectations", "marts", *INTERVAL, outlets=[MARTS])

    apply_features = foreign(
        "apply_features", "feast.apply", INTERVAL, ["--code=feature_repo"],
        [*FEAST, "apply", "--skip-source-validation", "--no-progress"],
    )  # fmt: skip
    check_features = station("check_features", "expectations", "features", *INTERVAL)
    materialize_features = foreign(
        "materialize_features", "feast.materialize", INTERVAL,
        ["--code=feature_repo,streaming", "--after=dbt.build,feast.apply", "--online"],
        ["python", "-m", "streaming", "materialize", *INTERVAL],
    )  # fmt: skip
    rebuild_user_state = station("rebuild_user_state", "streaming", "rebuild", *INTERVAL, outlets=[FEATURES])

    cut_dataset = station("cut_dataset", "training", "cut", *INTERVAL, KNOWN_UNTIL)

    @task
    def choose_models(interval: list[str], params=None) -> list[list[str]]:
        """One command a model: the map over the model registry."""
        warm = ["--warm"] if params["staged"] else []
        return [["-m", "training", "fit", f"--model={name}", *interval, *warm] for name in params["models"]]

    commands = choose_models(INTERVAL)
    train = StationOperator.partial(
        task_id="train",
        doc_md=runbook("train"),
        max_active_tis_per_dagrun=2,
        map_index_template="{{ task.arguments[3].removeprefix('--model=') }}",
    ).expand(arguments=commands)

    evaluate = station("evaluate", "training", "evaluate", *INTERVAL, MODELS, outlets=[EVALUATIONS])
    register = station("register", "training", "register", *INTERVAL, MODELS)
    keep_reference = station("keep_reference", "monitoring", "reference", *INTERVAL)
    promote = station("promote", "training", "promote", *INTERVAL, STAGED, outlets=[CHAMPION])
    check_drift = station("check_drift", "monitoring", "drift", *INTERVAL)
    deploy = station("deploy", "infra.local", "deploy", *INTERVAL, outlets=[ENDPOINT])
    smoke_test = station("smoke_test", "infra.local", "smoke")
    precompute_lists = station("precompute_lists", "serving", "batch", *INTERVAL)

    land_raw >> load_raw >> check_raw >> build_marts >> check_marts
    check_marts >> check_features >> materialize_features >> deploy
    apply_features >> materialize_features
    check_marts >> rebuild_user_state >> deploy
    check_marts >> check_drift >> deploy
    check_marts >> cut_dataset >> train
    apply_features >> train
    commands >> train >> evaluate >> register >> promote >> deploy >> smoke_test >> precompute_lists
    register >> keep_reference >> deploy
