"""Airflow DAG: the champion's way to its targets: canary, half, verify, all; or back to the old release.

Triggered by hand. Targets roll out beside each other; one that fails goes back alone. A second run changes nothing.
"""

from airflow.sdk import DAG, Param, TriggerRule, task, task_group
from station_operator import StationOperator, default_args

from recsys import artifacts

with DAG(
    dag_id=artifacts.DAG_DEPLOY,
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=default_args(),
    params={
        "targets": Param(
            ["local"], type="array", items={"type": "string", "pattern": "^[a-z0-9]+$"}, minItems=1, uniqueItems=True,
            description="Where the champion goes: local, aws, gcp, azure, k8s; a cloud has to stand in RECSYS_CLOUDS",
        ),
        "dry_run": Param(False, type="boolean", description="Only say what would be created, and its monthly cost"),
    },
    tags=["recsys"],
):  # fmt: skip

    @task
    def choose_targets(params=None) -> list[dict[str, str]]:
        """One rollout a target; in a dry run each of its steps only plans."""
        return [
            {"target": target, "environment": "platform" if target == "local" else "cloud"}
            for target in params["targets"]
        ]

    def arguments(step: str, target: str) -> list[str]:
        return ["-m", "infra", step, "--target", target, "{{ '--dry-run' if params.dry_run else '' }}"]

    @task_group
    def roll_out(target: str, environment: str):
        canary = StationOperator(task_id="canary", arguments=arguments("canary", target), environment=environment)
        shift_traffic = StationOperator(
            task_id="shift_traffic", arguments=arguments("shift", target), environment=environment
        )
        verify_release = StationOperator(
            task_id="verify_release", arguments=arguments("verify", target), environment=environment
        )
        promote_release = StationOperator(
            task_id="promote_release", arguments=arguments("promote", target), environment=environment
        )
        roll_back = StationOperator(
            task_id="roll_back",
            arguments=arguments("roll-back", target),
            environment=environment,
            trigger_rule=TriggerRule.ONE_FAILED,
        )
        canary >> shift_traffic >> verify_release >> promote_release
        [canary, shift_traffic, verify_release, promote_release] >> roll_back

    roll_out.expand_kwargs(choose_targets())
