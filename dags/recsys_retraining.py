"""Airflow DAG: training anew, by decision, all the way to canary.

Looks at a short interval whether the champion's answers are clicked less. A decision weighs that, drift, new data and
age against cool-down, budget and cost; a yes runs `recsys_pipeline` on everything until today, whose winner becomes a
candidate. From there `recsys_promotion` takes it on. One at a time.
"""

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import task
from station_operator import every, looking, runbook, station

from recsys import artifacts

with looking(artifacts.DAG_RETRAINING, __doc__, every("retraining_look_seconds", 900)):
    watch_quality = station("watch_quality", "monitoring", "watch")
    decide_retraining = station("decide_retraining", "training", "decide")

    @task.short_circuit(doc_md=runbook("is_due"))
    def is_due(decision: dict) -> dict:
        """The parameters of the pipeline's run after a yes, nothing after a no; nothing skips what follows."""
        return decision["conf"] if decision["retrain"] else {}

    parameters = is_due(decide_retraining.output)
    retrain = TriggerDagRunOperator(
        task_id="retrain",
        doc_md=runbook("retrain"),
        trigger_dag_id=artifacts.DAG_PIPELINE,
        conf=parameters,  # `output["conf"]` would be an XCom of that key, which nobody writes
        wait_for_completion=True,
        poke_interval=5,
        allowed_states=["success"],
        failed_states=["failed"],
        retries=0,
    )

    watch_quality >> decide_retraining
    parameters >> retrain
