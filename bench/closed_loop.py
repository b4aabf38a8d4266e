"""The loop closes by itself: people change, an alarm, a training, a canary, a champion; and a worse one goes back.

    python -m bench.prepare_ml1m REBUILT_DIR DATA_DIR
    python -m bench.closed_loop DATA_DIR

A whole platform of its own on free ports, in a folder that is removed after. Only the people are made up: they ask the
real API for lists, click what they want, and send what they do elsewhere to the log. At first each wants the films of
his favourite genre. Then every other one changes: those of a cohort want films that had nothing in common before, and
within a minute do eighteen things elsewhere. From there on nobody touches anything: the DAGs `recsys_retraining`,
`recsys_pipeline` and `recsys_promotion` do the rest. Last, the popularity baseline is sent on the same way.

What did not come in time is told as what it is: the page says how far the loop went.
"""

import argparse
import json
import sys
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import httpx
import numpy as np
from kafka import KafkaProducer

from bench.own_platform import platform
from bench.results import publish
from infra.local.airflow_client import Airflow
from recsys.artifacts import (
    BASELINE_MODEL,
    DAG_INSIGHT,
    DAG_PIPELINE,
    DAG_PROMOTION,
    DAG_RETRAINING,
    TOPIC_INTERACTIONS,
)
from recsys.errors import RecsysError
from recsys.promotion import WAY, Stage
from recsys.receipts import latest
from recsys.registry import candidacies, champion_of
from recsys.schemas import Interaction, event_id
from recsys.settings import Settings
from recsys.warehouse import connect
from training.move import enter

MODELS = ("slist", BASELINE_MODEL)
"""The champion on MovieLens 1M among all (docs/results/pipeline.md), and popularity."""
COHORTS, WANTED = 8, 250
CLICKS_WANTED, CLICKS_OTHER = 0.5, 0.02
CHANGED_SHARE, ELSEWHERE, CHANGE_SECONDS = 0.5, 18, 60.0
"""Who changes, what each of them does elsewhere then, and within how long: 54 000 events on MovieLens 1M."""
SHOWN, TOGETHER, EVERY_SECONDS = 5, 40, 0.4
QUIET_REQUESTS = 4_000
ALARM = """
    select detail ->> 'at' from monitoring.outcomes where check_name = 'live_quality' and verdict = 'warn'
    order by 1
"""
DECISION = """
    select detail ->> 'at', observed from monitoring.outcomes where check_name = 'retraining' and subject != 'no'
    order by 1
"""
SEEN = """
    select check_name, subject, observed from monitoring.outcomes
    where check_name in ('live_quality', 'retraining', 'promotion_gate', 'promotion')
        or check_name like 'candidate_%%'
    order by 1, 2
"""
"""What is printed at the end, however it ended."""
LIMIT_SECONDS = 480
PATIENCE_SECONDS = 600
SETTINGS = {
    "RECSYS_PROMOTION_LOOK_SECONDS": "8", "RECSYS_PROMOTION_MIN_USERS": "30", "RECSYS_PROMOTION_PLANNED_USERS": "12000",
    "RECSYS_RETRAINING_LOOK_SECONDS": "10", "RECSYS_RETRAINING_COOLDOWN_HOURS": "24", "RECSYS_LABEL_DELAY_SECONDS": "5",
    "RECSYS_RETRAINING_NEW_SHARE": "10", "RECSYS_RETRAINING_RETRY_HOURS": "0.02",
}  # fmt: skip


class People:
    """All users of the data: what they want, what they ask, what they do."""

    def __init__(self, settings: Settings, seed: int = 1):
        self._settings, self._rng = settings, np.random.default_rng(seed)
        with connect(settings) as connection:
            self.users = [row[0] for row in connection.execute("select user_id from marts.dim_users order by 1")]
            items = connection.execute("select item_id, categories from marts.dim_items order by 1").fetchall()
            favourite = connection.execute(
                """
                select distinct on (user_id) user_id, category from (
                    select user_id, unnest(categories) as category, count(*) as events
                    from marts.fct_interactions inner join marts.dim_items using (item_id)
                    where rating >= 4 group by 1, 2
                ) as counted order by user_id, events desc, category
                """
            ).fetchall()
        by_genre: dict[str, set[str]] = {}
        for item, categories in items:
            for category in categories:
                by_genre.setdefault(category, set()).add(item)
        self._wanted = {user: by_genre[category] for user, category in favourite}
        dealt = self._rng.permutation([item for item, _ in items])[: COHORTS * WANTED].reshape(COHORTS, WANTED)
        changing = [user for number, user in enumerate(self.users) if number % 100 < 100 * CHANGED_SHARE]
        self._later = {user: dealt[number % COHORTS] for number, user in enumerate(changing)}
        self._ended = threading.Event()
        self.failed, self.asked = 0, 0
        self._producer = KafkaProducer(
            bootstrap_servers=settings.kafka_bootstrap.split(","), acks="all", linger_ms=50, batch_size=200_000
        )
        self._thread = threading.Thread(target=self._ask_for_ever, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._producer.close()

    def change(self) -> int:
        """Let those who change do something else elsewhere, in turns, and want it from their first turn on; return how
        many events that was."""
        began = perf_counter()
        for turn in range(ELSEWHERE):
            for number, (user, cohort) in enumerate(self._later.items()):
                self._do(user, str(cohort[(turn * 37 + number * 11) % WANTED]), "view", {})
                if number % 100 == 99:
                    due = (turn + number / len(self._later)) * CHANGE_SECONDS / ELSEWHERE
                    self._ended.wait(max(0.0, due - (perf_counter() - began)))
            self._wanted |= {user: set(cohort.tolist()) for user, cohort in self._later.items()}
        self._producer.flush()
        return ELSEWHERE * len(self._later)

    def _do(self, user: str, item: str, event_type: str, context: dict[str, str]) -> None:
        at = datetime.now(UTC)
        event = Interaction(
            event_id=event_id("bench", event_type, user, item, at.isoformat()),
            user_id=user, item_id=item, occurred_at=at, domain="movies",
            event_type=event_type, context=context,
        )  # fmt: skip
        self._producer.send(TOPIC_INTERACTIONS, event.model_dump_json().encode(), user.encode())

    def _ask_for_ever(self) -> None:
        with httpx.Client(base_url=self._settings.serving_url, timeout=60) as client:
            while not self._ended.is_set():
                order = self._rng.permutation(len(self.users))
                for start in range(0, len(order), TOGETHER):
                    if self._ended.is_set():
                        return
                    self._ask(client, [self.users[number] for number in order[start : start + TOGETHER]])

    def _ask(self, client: httpx.Client, users: list[str]) -> None:
        began = perf_counter()
        body = {"requests": [{"user_id": user, "k": SHOWN} for user in users]}
        answer = client.post("/v1/recommendations:batch", json=body)
        self.asked += len(users)
        if answer.status_code != 200:
            self.failed += len(users)
            return
        for one in answer.json()["answers"]:
            wanted = self._wanted.get(one["user_id"], ())
            for item in one["items"]:
                chance = CLICKS_WANTED if item["item_id"] in wanted else CLICKS_OTHER
                if self._rng.random() < chance:
                    self._do(one["user_id"], item["item_id"], "click", {"request_id": one["request_id"]})
        self._ended.wait(max(0.0, EVERY_SECONDS - (perf_counter() - began)))


def rows(settings: Settings, query: str, *values: Any) -> list[tuple]:
    with connect(settings) as connection:
        return connection.execute(query, values).fetchall()


def until(found: Any, what: str) -> Any:
    """Ask until something is found, and return it; looking on is all that this does.

    Raises:
        TimeoutError: it was not found in `PATIENCE_SECONDS`.
    """
    began = perf_counter()
    while not (seen := found()):
        if perf_counter() - began > PATIENCE_SECONDS:
            raise TimeoutError(f"{what} did not come in {PATIENCE_SECONDS} s")
        sleep(1)
    print(f"{datetime.now(UTC):%H:%M:%S} {what}: {seen}", file=sys.stderr, flush=True)
    return seen


def ended(settings: Settings, version: str) -> Stage | None:
    stage = next(one.stage for one in candidacies(settings.mlflow_url) if one.version == version)
    return None if stage.is_under_way else stage


def moves(settings: Settings, version: str) -> dict[Stage, tuple[datetime, str]]:
    """Return when the version came to each stage, and why."""
    found = rows(
        settings,
        "select detail -> 'candidacy' from monitoring.outcomes where check_name = 'promotion' and subject like %s",
        f"{version}/%",
    )
    return {Stage(row["stage"]): (datetime.fromisoformat(row["entered_at"]), row["why"]) for (row,) in found}


def clicked(settings: Settings, version: str) -> str:
    ((shown, clicks),) = rows(
        settings,
        """
        with shown as (select request_id, item_id from raw.impressions where model_version = %s),
        clicks as (
            select distinct context::jsonb ->> 'request_id' as request_id, item_id from raw.interactions
            where source = 'stream' and event_type = 'click'
        )
        select count(*), count(clicks.item_id) from shown left join clicks using (request_id, item_id)
        """,
        version,
    )
    return f"{clicks / max(shown, 1):.3f} of {shown:,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    data_dir = parser.parse_args().data_dir
    with tempfile.TemporaryDirectory(prefix="rs-loop-", dir="/tmp") as scratch:
        Path(scratch).chmod(0o711)
        with platform(Path(scratch, "var"), data_dir, SETTINGS) as settings:
            measure(settings)


class Story:
    """What was seen so far, for the page: the instants after the first changed event, and everything else."""

    def __init__(self) -> None:
        self.instants: dict[str, float] = {}
        self.told: dict[str, str] = {}
        self.missing: str | None = None
        self._began: datetime | None = None

    def begin(self) -> None:
        self._began = datetime.now(UTC)

    def came(self, what: str, at: datetime | None = None) -> None:
        self.instants[what] = ((at or datetime.now(UTC)) - self._began).total_seconds()


def measure(settings: Settings) -> None:
    airflow, story = Airflow(settings), Story()
    for dag in (DAG_PIPELINE, DAG_PROMOTION, DAG_RETRAINING):
        airflow.wait_for_dag(dag)
    airflow._call(
        "PATCH", f"dags/{DAG_INSIGHT}", json={"is_paused": True}
    )  # what people look at is no part of the loop
    today = datetime.now(UTC).date().isoformat()
    run = airflow.trigger(DAG_PIPELINE, {"as_of": today, "models": list(MODELS)})
    until(lambda: serves_first(airflow, run), "the first champion serves")
    first = champion_of(settings.mlflow_url)
    people = People(settings)
    people.start()
    try:
        version = close(settings, people, first, story)
        send_worse(settings, today, version or first, story)
    except (TimeoutError, KeyboardInterrupt) as error:
        story.missing = str(error) or "it was stopped before"
    finally:
        people.stop()
        for row in rows(settings, SEEN):
            print(*row, file=sys.stderr, sep=" | ", flush=True)
        story.told["tasks of the retraining, seconds"] = durations(airflow)
        report(people, story)


def serves_first(airflow: Airflow, run: str) -> bool:
    """Whether the first run of the pipeline has come to a served model.

    Raises:
        RecsysError: it ended without one.
    """
    tasks = {task.label: task.state for task in airflow.tasks(DAG_PIPELINE, run)}
    if airflow.run_state(DAG_PIPELINE, run) == "failed":
        raise RecsysError(DAG_PIPELINE, run, f"The bench needs a first champion: {tasks}")
    return tasks.get("smoke_test") == "success"


def close(settings: Settings, people: People, first: str, story: Story) -> str | None:
    """Change the people and watch until a new version serves; return it, None if none came to serve."""
    judged = "select observed from monitoring.outcomes where check_name = 'live_quality' and observed not like 'not %%'"
    until(lambda: people.asked >= QUIET_REQUESTS and rows(settings, judged), "the quality of before is known")
    story.told["clicks by impressions before the change"] = clicked(settings, first)
    false_alarms = len(rows(settings, ALARM))
    story.told["false alarms before the change"] = str(false_alarms)
    story.begin()
    events = people.change()
    story.came(f"{events:,} events of a change told")
    alarmed = until(lambda: len(found := rows(settings, ALARM)) > false_alarms and found, "alarm")[false_alarms][0]
    story.came("alarm", datetime.fromisoformat(alarmed))
    decided, story.told["the decision"] = until(lambda: rows(settings, DECISION), "decision")[0]
    story.came("decision", datetime.fromisoformat(decided))
    version = until(lambda: next((one.version for one in candidacies(settings.mlflow_url)), None), "candidate")
    story.came("candidate")
    story.told["retrainings until a candidate came"] = str(len(rows(settings, DECISION)))
    stage = until(lambda: ended(settings, version), "end of the way")
    story.came(f"end of the way: {stage}")
    way = moves(settings, version)
    story.told["stages of the retrained version"] = told_moves(way, story)
    if stage is Stage.CHAMPION:
        until(lambda: httpx.get(f"{settings.serving_url}/readyz").json()["model_version"] == version, "it serves")
        story.came("champion serves")
    story.told["clicks by impressions: the first champion, in all; the retrained one"] = (
        f"{clicked(settings, first)}; {clicked(settings, version)}"
    )
    return version if stage is Stage.CHAMPION else None


def send_worse(settings: Settings, today: str, champion: str, story: Story) -> None:
    """Send the popularity baseline on its way, and watch until it is taken back."""
    with connect(settings) as connection:
        _, registered = latest(connection, "training.register", f"movies@{today}")
    worse = registered["versions"][BASELINE_MODEL]
    enter(settings, worse, "", f"planted by the bench beside version {champion}", datetime.now(UTC))
    stage = until(lambda: ended(settings, worse), "end of the worse one")
    way = moves(settings, worse)
    largest = max(one.share for one in way)
    story.told[WORSE] = f"{stage}; largest stage {largest:.0%}; clicked {clicked(settings, worse)}; {way[stage][1]}"


def told_moves(way: dict[Stage, tuple[datetime, str]], story: Story) -> str:
    came = sorted((at, stage) for stage, (at, _) in way.items())
    return " → ".join(f"{stage} {(at - story._began).total_seconds():.0f} s" for at, stage in came)


def durations(airflow: Airflow) -> str:
    """Return what each task of the last run of the pipeline took, in seconds, in the order of their begins."""
    tasks = airflow.tasks(DAG_PIPELINE, airflow.latest_run(DAG_PIPELINE))
    return ", ".join(f"{task.label} {task.seconds:.0f}" for task in tasks if task.seconds >= 1)


WORSE = "a worse challenger (popularity)"


def report(people: People, story: Story) -> None:
    command = "python -m bench.closed_loop DATA_DIR"
    served = story.instants.get("champion serves")
    verdict = "MISSED: it did not come to it" if served is None else "met" if served <= LIMIT_SECONDS else "MISSED"
    reached = f"{served:.0f} s" if served is not None else f"{story.missing or 'it was taken back'}"
    told = [
        ("from the first changed event to the new champion's first answer",
         f"≤ {LIMIT_SECONDS} s: {verdict}", reached),
        ("… of it", "reported", ", ".join(f"{name} after {seconds:.0f} s" for name, seconds in story.instants.items())),
        *((name, TARGETS.get(name, "reported"), value) for name, value in story.told.items()),
        *([] if WORSE in story.told else [(WORSE, TARGETS[WORSE], "not measured: the bench ended before")]),
        ("requests that failed meanwhile", "0", f"{people.failed} of {people.asked:,}"),
    ]  # fmt: skip
    publish(
        "closed_loop",
        "The loop closes by itself",
        [dict(zip(("measure", "target", "measured"), one, strict=True), command=command) for one in told],
        __doc__.split("\n\n")[2].replace("\n", " ") + f" Settings: {json.dumps(SETTINGS)}.\n\n{TRIED}",
    )


TRIED = """With iALS in place of SLIST (2026-11-29, the same change) the loop ran to its end too, and refused:
alarm after 19 s, candidate after 224 s, 1 % after 259 s, 10 % after 292 s. There the retrained version, +.0189 on
past data, was not clicked more, and was taken back after 627 s (575 and 5 297 users, difference below -.0004).
iALS does not learn a taste of 14 events beside a history of 170; SLIST does (ndcg@10 .92 for those who changed,
iALS .08, on the same cut). The worse challenger of that run was taken back from 10 %, too: clicks by impressions
below -.0187 after 1 758 users."""
TARGETS = {
    "stages of the retrained version": " → ".join(WAY[1:]),
    "the decision": "by itself",
    "false alarms before the change": "0",
    WORSE: "rolled back, nobody beyond 10 %",
}


if __name__ == "__main__":
    main()
