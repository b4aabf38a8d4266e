"""Health of the DAGs: what the runs say, the three judgements, and the gauges that Prometheus reads."""

import urllib.request
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest

from monitoring.airflow_runs import read_dags, run
from monitoring.check_pipelines import keep_runs
from monitoring.exporter import Pipelines, serve
from monitoring.pipelines import Dag, Run, health, judge, summary
from recsys.artifacts import DAG_PIPELINE, DAG_PROMOTION, PIPELINE_RUNS
from recsys.errors import RecsysError, ServiceUnavailable
from recsys.settings import Settings
from recsys.warehouse import connect
from tests.ports import free_port

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def made(*states: str, seconds: float = 60, first: datetime = NOW - 6 * DAY, dag_id: str = "d") -> list[Run]:
    """One run a day, each of the day before."""
    return [
        Run(
            dag_id, f"r{n}", state, first + n * DAY, first + n * DAY + timedelta(seconds=seconds), first + (n - 1) * DAY
        )
        for n, state in enumerate(states)
    ]


def verdicts(dag: Dag) -> dict[str, str]:
    return {row.check_name.removeprefix("pipeline_"): row.verdict for row in judge(health(dag, NOW), NOW.date(), NOW)}


def test_six_green_runs_of_a_daily_dag_pass():
    dag = Dag("d", False, DAY, made(*["success"] * 6))
    assert verdicts(dag) == {"success": "pass", "duration": "pass", "freshness": "pass"}
    assert health(dag, NOW).success == 1.0


def test_one_red_run_of_six_is_told_with_its_name():
    found = health(Dag("d", False, DAY, made("success", "failed", *["success"] * 4)), NOW)
    rows = judge(found, NOW.date(), NOW)
    assert (rows[0].observed, rows[0].verdict, rows[0].detail["last_red"]) == ("5 of 6 runs green", "warn", "r1")
    assert summary(rows)["warnings"] == ["pipeline_success of d: 5 of 6 runs green, at least 95% in 7 days"]


@pytest.mark.services
def test_the_runs_that_people_count_are_kept_once_and_follow_a_clearing(world):
    settings = world("postgres")
    first = Dag(DAG_PIPELINE, False, DAY, made("success", "failed", dag_id=DAG_PIPELINE))
    looking = Dag(DAG_PROMOTION, False, DAY, made("success", dag_id=DAG_PROMOTION))
    cleared = Dag(DAG_PIPELINE, False, DAY, made("success", "success", seconds=90, dag_id=DAG_PIPELINE))
    with connect(settings) as connection:
        for dags in ([first, looking], [first, looking], [cleared, looking]):
            keep_runs(connection, dags)
        kept = connection.execute(f"select dag_id, run_id, state, seconds from {PIPELINE_RUNS} order by 2").fetchall()
        connection.rollback()
    assert kept == [(DAG_PIPELINE, "r0", "success", 90.0), (DAG_PIPELINE, "r1", "success", 90.0)]


def test_a_red_run_that_is_older_than_the_window_is_forgotten():
    runs = made("failed", first=NOW - 8 * DAY) + made("success")
    assert health(Dag("d", False, DAY, runs), NOW).success == 1.0


def test_a_run_of_twice_the_median_is_slow_once_five_can_be_compared():
    slow = Run("d", "slow", "success", NOW - timedelta(seconds=121), NOW, NOW)
    assert verdicts(Dag("d", False, DAY, [*made(*["success"] * 5), slow]))["duration"] == "warn"
    assert verdicts(Dag("d", False, DAY, [*made(*["success"] * 4), slow]))["duration"] == "pass"


def test_a_daily_dag_whose_data_end_two_days_ago_is_late_but_not_when_it_is_paused_or_has_no_schedule():
    runs = made("success", first=NOW - 1.5 * DAY)  # the data end 2.5 days ago
    assert verdicts(Dag("d", False, DAY, runs))["freshness"] == "warn"
    assert verdicts(Dag("d", True, DAY, runs))["freshness"] == "pass"
    assert verdicts(Dag("d", False, None, runs))["freshness"] == "pass"
    assert verdicts(Dag("d", False, DAY, made("success", first=NOW - 0.5 * DAY)))["freshness"] == "pass"


def test_a_dag_that_runs_every_minute_is_not_late_within_the_hour():
    minute = timedelta(minutes=1)
    stale = made("success", first=NOW - 30 * minute)  # of the day before
    fresh = [Run("d", "r", "success", NOW - 31 * minute, NOW - 30 * minute, NOW - 30 * minute)]
    assert verdicts(Dag("d", False, minute, fresh))["freshness"] == "pass"
    assert verdicts(Dag("d", False, minute, stale))["freshness"] == "warn"


def test_red_runs_make_no_data_fresh_and_a_dag_that_never_ran_is_not_judged():
    runs = made("success", first=NOW - 4 * DAY) + made("failed", first=NOW - 0.2 * DAY)
    assert verdicts(Dag("d", False, DAY, runs)) == {"success": "warn", "duration": "pass", "freshness": "warn"}
    never = judge(health(Dag("d", False, DAY), NOW), NOW.date(), NOW)
    assert {row.verdict for row in never} == {"pass"}
    assert [row.observed for row in never] == ["no finished run", "no green run", "no green run"]


@pytest.mark.parametrize(
    ("said", "until"),
    [
        ({"conf": {"as_of": "2026-11-01"}, "data_interval_end": "2026-11-29T00:00:00Z"}, datetime(2026, 11, 1)),
        ({"conf": {}, "data_interval_end": "2026-11-29T00:00:00Z"}, datetime(2026, 11, 29)),
        ({"conf": None, "data_interval_end": None}, datetime(2026, 11, 29, 10)),
    ],
)
def test_a_runs_data_end_where_its_parameters_or_its_interval_say(said, until):
    common = {
        "dag_id": "d", "dag_run_id": "r", "state": "success", "run_after": "2026-11-29T10:00:00Z",
        "start_date": "2026-11-29T10:00:01Z", "end_date": "2026-11-29T10:00:31Z",
    }  # fmt: skip
    found = run(common | said)
    assert (found.data_until, found.seconds) == (until.replace(tzinfo=UTC), 30)


def test_an_airflow_that_does_not_answer_is_named(tmp_path):
    settings = Settings(_env_file=None, var_dir=tmp_path, airflow_url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ServiceUnavailable, match=r"Airflow.*make up"):
        read_dags(settings)


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def scraped():
    """Return a function (pipelines) → what a scrape says, as name and labels → value."""
    servers = []

    def scrape(pipelines: Pipelines) -> dict[str, float]:
        url = f"http://127.0.0.1:{free_port()}"
        servers.append(serve(pipelines, url))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    yield scrape
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_scrape_tells_every_dag(scraped):
    dag = Dag("d", False, DAY, made("failed", "success", "success"))
    found = scraped(Pipelines(lambda: [dag], Clock()))
    assert found["recsys_pipeline_airflow_up"] == 1
    assert found['recsys_pipeline_runs{dag_id="d",state="failed"}'] == 1
    assert found['recsys_pipeline_success_ratio{dag_id="d"}'] == pytest.approx(2 / 3)
    assert found['recsys_pipeline_last_duration_seconds{dag_id="d"}'] == 60
    assert found['recsys_pipeline_data_until_timestamp_seconds{dag_id="d"}'] == (NOW - 5 * DAY).timestamp()
    assert found['recsys_pipeline_period_seconds{dag_id="d"}'] == 86400


def test_scrapes_close_together_ask_airflow_once_and_its_silence_is_told(scraped):
    asked, clock = [], Clock()

    def read() -> list[Dag]:
        asked.append(clock.now)
        if len(asked) > 1:
            raise ServiceUnavailable("Airflow", "gone", "See it")
        return [Dag("d", False, None, made("success"))]

    pipelines = Pipelines(read, clock)
    assert scraped(pipelines) == scraped(pipelines)
    assert len(asked) == 1
    clock.now += timedelta(seconds=16)
    assert scraped(pipelines) == {"recsys_pipeline_airflow_up": 0}


def test_a_taken_port_is_named(scraped):
    url = f"http://127.0.0.1:{free_port()}"
    with serve(Pipelines(list, Clock()), url), pytest.raises(RecsysError, match="RECSYS_MONITORING_URL"):
        serve(Pipelines(list, Clock()), url)
