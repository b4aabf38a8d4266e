"""How the pipelines themselves are: of each DAG the share of green runs, their duration and the age of their data.

The figures come from Airflow's own metadata (airflow_runs.py). A run that a person has cleared counts as it is now.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from statistics import median
from typing import Any

from recsys.warehouse import Outcome

STATION = "monitoring"
WINDOW = timedelta(days=7)
SUCCESS_GOAL = 0.95
SLOWER = 2.0
"""A run that takes so many times the median of the earlier green ones is news."""
SHORTEST_LIMIT = timedelta(hours=1)
"""A DAG that looks every minute may wait for a place."""
RUNS_TO_COMPARE = 5
"""With fewer earlier green runs a duration is told, not judged: the first run trains what later ones find unchanged."""
GREEN, RED = "success", "failed"


@dataclass(frozen=True)
class Run:
    """One run of a DAG. `data_until` is the instant that ends the data it worked on."""

    dag_id: str
    run_id: str
    state: str
    started: datetime | None
    ended: datetime | None
    data_until: datetime

    @property
    def seconds(self) -> float:
        """From the first task's start to the last one's end; 0 for a run without both instants."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else 0.0


@dataclass(frozen=True)
class Health:
    """What the runs of one DAG say.

    `period` is the time between two runs of its schedule, None for one that waits for a person or an asset.
    `data_until` is None without a green run, `success` without a finished one in the window.
    """

    dag_id: str
    is_paused: bool
    period: timedelta | None
    green: int
    red: int
    durations: tuple[float, ...]
    data_until: datetime | None
    last_red: str | None = None

    @property
    def success(self) -> float | None:
        finished = self.green + self.red
        return self.green / finished if finished else None


@dataclass(frozen=True)
class Dag:
    """A DAG as Airflow knows it, with its finished runs."""

    dag_id: str
    is_paused: bool
    period: timedelta | None
    runs: Sequence[Run] = field(default_factory=tuple)


def health(dag: Dag, now: datetime) -> Health:
    """Return the health of one DAG.

    Success and durations look at the runs that ended within `WINDOW`; the data's end at all that are known, so that a
    DAG that stands still does not look fresh.

    Args:
        dag: with its finished runs, in any order.
        now: the instant of the judgement.
    """
    finished = sorted((run for run in dag.runs if run.ended and run.state in (GREEN, RED)), key=lambda run: run.ended)
    recent = [run for run in finished if now - run.ended <= WINDOW]
    green = [run for run in recent if run.state == GREEN]
    red = [run for run in recent if run.state == RED]
    return Health(
        dag.dag_id,
        dag.is_paused,
        dag.period,
        len(green),
        len(red),
        tuple(run.seconds for run in green),
        max((run.data_until for run in finished if run.state == GREEN), default=None),
        red[-1].run_id if red else None,
    )


def judge(found: Health, day: date, now: datetime) -> list[Outcome]:
    """Return the three judgements on one DAG: `pipeline_success`, `pipeline_duration`, `pipeline_freshness`.

    What cannot be judged yet passes and says so: no run, too few to compare, no schedule to be late for.
    """
    return [_success(found, day), _duration(found, day), _freshness(found, day, now)]


def _success(found: Health, day: date) -> Outcome:
    finished = found.green + found.red
    is_low = found.success is not None and found.success < SUCCESS_GOAL
    return Outcome(
        STATION,
        day,
        "pipeline_success",
        f"{found.green} of {finished} runs green" if finished else "no finished run",
        f"at least {SUCCESS_GOAL:.0%} in {WINDOW.days} days",
        "warn" if is_low else "pass",
        subject=found.dag_id,
        detail={"green": found.green, "red": found.red, "last_red": found.last_red},
    )


def _duration(found: Health, day: date) -> Outcome:
    *earlier, last = found.durations or (0.0,)
    limit = SLOWER * median(earlier) if len(earlier) >= RUNS_TO_COMPARE else None
    return Outcome(
        STATION,
        day,
        "pipeline_duration",
        f"{last:.0f} s" if found.durations else "no green run",
        "told, not judged" if limit is None else f"at most {limit:.0f} s, {SLOWER:.0f} x the median",
        "warn" if limit is not None and last > limit else "pass",
        subject=found.dag_id,
        detail={"seconds": list(found.durations)},
    )


def _freshness(found: Health, day: date, now: datetime) -> Outcome:
    age = now - found.data_until if found.data_until else None
    # A period's data is complete when the period ends, and the next one's run may take until the one after that.
    limit = max(2 * found.period, SHORTEST_LIMIT) if found.period and not found.is_paused else None
    is_late = limit is not None and age is not None and age > limit
    return Outcome(
        STATION,
        day,
        "pipeline_freshness",
        f"{age.total_seconds() / 3600:.1f} h old" if age is not None else "no green run",
        "told, not judged" if limit is None else f"at most {limit.total_seconds() / 3600:.0f} h",
        "warn" if is_late else "pass",
        subject=found.dag_id,
        detail={"data_until": found.data_until, "is_paused": found.is_paused},
    )


def summary(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Return what the task's one line of JSON says: the DAGs, and a sentence for each warning."""
    rows = list(outcomes)
    warnings = [f"{o.check_name} of {o.subject}: {o.observed}, {o.expected}" for o in rows if o.verdict == "warn"]
    return {"dags": sorted({o.subject for o in rows}), "warnings": warnings, "unchanged": False}
