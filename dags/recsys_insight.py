"""Airflow DAG: what people look at, refreshed when what it shows has changed.

Woken by assets, not by a clock: new marts or new evaluations rebuild the analytics and the experiments' readings.
"""

import alerts
from airflow.sdk import DAG
from station_operator import DBT_BUILD, EVALUATIONS, INSIGHT, MARTS, default_args, foreign, station

from recsys import artifacts

EVENT = "(triggering_asset_events.values() | first | last).extra"
AS_OF, DOMAINS = "{{ " + EVENT + "['as-of'] }}", "{{ " + EVENT + "['domains'] }}"
INTERVAL = [f"--as-of={AS_OF}", f"--domains={DOMAINS}"]


def analysis(job: str, *after: str) -> tuple[list[str], list[str]]:
    """The receipt's options and the command of a job that fits what people look at."""
    options = ["--code=training/analytics", f"--after={','.join(['dbt.analytics', *after])}"]
    return options, ["python", "-m", "training.analytics", job, *INTERVAL]


with DAG(
    dag_id=artifacts.DAG_INSIGHT,
    doc_md=__doc__,
    schedule=[MARTS, EVALUATIONS],
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=default_args(),
    tags=["recsys"],
):
    refresh_analytics = foreign(
        "refresh_analytics", "dbt.analytics", INTERVAL, ["--code=dbt", "--after=dbt.build,training.evaluate"],
        [*DBT_BUILD, "--select", "marts.analytics", INSIGHT, "--exclude-resource-type", "unit_test"],
    )  # fmt: skip
    analyse_experiments = station("analyse_experiments", "experiments", "analyse", *INTERVAL)
    check_freshness = station("check_freshness", "monitoring", "freshness", *INTERVAL)
    check_skew = station("check_skew", "monitoring", "skew", *INTERVAL, on_success_callback=alerts.on_warnings())

    segments = foreign("analyse_segments", "analytics.segments", INTERVAL, *analysis("segments"))
    value = foreign("analyse_value", "analytics.value", INTERVAL, *analysis("value", "analytics.segments"))
    network = foreign("analyse_network", "analytics.network", INTERVAL, *analysis("network"))
    overlap = foreign("analyse_overlap", "analytics.overlap", INTERVAL, *analysis("overlap"))
    texts = foreign("analyse_texts", "analytics.texts", INTERVAL, *analysis("texts"))
    effectiveness = foreign(
        "analyse_effectiveness", "analytics.effectiveness", INTERVAL, *analysis("effectiveness", "analytics.segments")
    )

    check_analysis = station(
        "check_analysis", "expectations", "analysis", *INTERVAL, on_success_callback=alerts.on_warnings()
    )

    refresh_analytics >> [analyse_experiments, check_freshness, check_skew, segments, network, overlap, texts]
    segments >> [value, effectiveness]
    texts >> check_analysis
