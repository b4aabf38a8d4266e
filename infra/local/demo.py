"""`make demo`: the whole loop on this machine, watched, ending with what it made and with the loop closing."""

from argparse import Namespace
from collections.abc import Mapping
from datetime import date
from time import perf_counter
from typing import Any

import requests
import tenacity
from rich.console import Console
from rich.live import Live
from rich.table import Table

from infra.local.airflow_client import Airflow, TaskState
from recsys import artifacts
from recsys.errors import MissingArtifact, RecsysError
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.split import live_split
from recsys.warehouse import connect

COLOURS = {"success": "green", "running": "cyan", "failed": "red", "upstream_failed": "red", "up_for_retry": "yellow"}
TABLE_METRICS = {
    "recall_at_20": "recall@20", "ndcg_at_10": "ndcg@10", "map_at_10": "map@10", "coverage_at_20": "coverage@20",
    "training_seconds": "training s", "inference_p50_ms": "p50 ms", "inference_p99_ms": "p99 ms",
}  # fmt: skip
LOG_WIDTH = 120
"""Columns where no terminal tells its own, as in a log."""
LIST_LENGTH = 10


def run_demo(settings: Settings, interval: Interval, models: tuple[str, ...], today: date) -> Mapping[str, Any]:
    """Trigger `recsys_pipeline`, watch it, show what it made, click once and show the list change.

    Raises:
        RecsysError: a task was not green, or the click did not change the list within ten seconds.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=LOG_WIDTH)
    started = perf_counter()
    run_pipeline(console, settings, interval, models)
    pipeline_seconds = perf_counter() - started
    show_models(console, settings, interval)
    show_addresses(console, settings)
    click_seconds = close_the_loop(console, settings, today)
    console.print(f"Feel it yourself: [bold]{settings.serving_url}/demo[/]")
    return {
        "pipeline_seconds": round(pipeline_seconds, 1),
        "click_to_new_list_ms": round(click_seconds * 1000),
        "unchanged": False,
    }


def run_pipeline(console: Console, settings: Settings, interval: Interval, models: tuple[str, ...]) -> None:
    """Run the DAG through Airflow's REST API and show each task live."""
    airflow = Airflow(settings)
    airflow.wait_for_dag(artifacts.DAG_PIPELINE)
    conf = {"domains": list(interval.domains), "models": list(models), "as_of": interval.as_of.isoformat()}
    run_id = airflow.trigger(artifacts.DAG_PIPELINE, conf)
    console.print(f"\nTriggered [bold]{artifacts.DAG_PIPELINE}[/] as {run_id} with {conf}")

    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            state = airflow.watch(artifacts.DAG_PIPELINE, run_id, lambda tasks: live.update(task_table(tasks)))
    else:
        reported: dict[str, str | None] = {}
        state = airflow.watch(artifacts.DAG_PIPELINE, run_id, lambda tasks: report_changes(console, tasks, reported))
        console.print(task_table(airflow.tasks(artifacts.DAG_PIPELINE, run_id)))

    tasks = airflow.tasks(artifacts.DAG_PIPELINE, run_id)
    red = [task for task in tasks if task.state != "success"]
    for task in (task for task in red if task.state == "failed"):
        console.print(f"[red]{task.label}[/]: {airflow.sentence(artifacts.DAG_PIPELINE, run_id, task)}")
    if state != "success" or red or not tasks:
        raise RecsysError(
            f"run {run_id}", f"{state}, {len(red)} of {len(tasks)} tasks not green",
            f"Open {settings.airflow_url} or read docs/runbooks/, mend the cause and run `make demo` again",
        )  # fmt: skip


def task_table(tasks: list[TaskState]) -> Table:
    table = Table("task", "state", "seconds", title=f"{artifacts.DAG_PIPELINE}", title_justify="left")
    for task in tasks:
        state = task.state or "waiting"
        table.add_row(task.label, f"[{COLOURS.get(state, 'dim')}]{state}[/]", f"{task.seconds:.1f}")
    return table


def report_changes(console: Console, tasks: list[TaskState], reported: dict[str, str | None]) -> None:
    """Print a line for each task whose state is another than last time; for logs, where no table can be redrawn."""
    for task in tasks:
        is_of_interest = task.state in {"failed", "success", "up_for_retry"} or (
            task.state == "running" and "#" not in task.label  # a mapped task has its name a moment later
        )
        if is_of_interest and reported.get(task.label) != task.state:
            reported[task.label] = task.state
            console.print(f"  {task.label:<32} {task.state:<12} {task.seconds:6.1f} s")


def show_models(console: Console, settings: Settings, interval: Interval) -> None:
    """Print each model's figures beside the popularity baseline's, and why the champion is the champion."""
    with connect(settings) as connection:
        verdict = connection.execute(
            "select detail from monitoring.receipts where task = 'training.promote' and key = %s", (interval.key,)
        ).fetchone()
        rows = connection.execute(
            f"""
            select model, metric, value from {artifacts.MODEL_EVALUATIONS}
            where cut_id = (select detail ->> 'cut_id' from monitoring.receipts
                            where task = 'training.evaluate' and key = %s)
            """,
            (interval.key,),
        ).fetchall()
    if not rows or verdict is None:
        raise MissingArtifact("model evaluations", interval.key, "The tasks `evaluate` and `promote` should write them")
    values: dict[str, dict[str, float]] = {}
    for model, metric, value in rows:
        values.setdefault(model, {})[metric] = value

    table = Table("model", *TABLE_METRICS.values(), title="Models on the same users")
    for model, metrics in sorted(values.items(), key=lambda entry: -entry[1]["ndcg_at_10"]):
        style = "bold green" if model == verdict[0]["model"] else "dim" if model == artifacts.BASELINE_MODEL else ""
        table.add_row(model, *(f"{metrics[metric]:.4g}" for metric in TABLE_METRICS), style=style)
    console.print(table)
    console.print(f"Champion: [bold green]{verdict[0]['model']}[/] version {verdict[0]['version']}. "
                  f"{verdict[0]['reason']}")  # fmt: skip


def show_addresses(console: Console, settings: Settings) -> None:
    """Print where a person can look, with the local login."""
    table = Table("page", "address", "login", title="Pages")
    table.add_row("Airflow", settings.airflow_url, f"{settings.airflow_user} / {settings.airflow_password}")
    table.add_row("MLflow", settings.mlflow_url, "")
    table.add_row("Storefront", f"{settings.serving_url}/demo", "")
    table.add_row("Dashboard", settings.dashboard_url, "")
    table.add_row("API", f"{settings.serving_url}/docs", "")
    console.print(table)


def close_the_loop(console: Console, settings: Settings, today: date) -> float:
    """Show a real user's list, post one click, and show the list that it changed. Returns the seconds in between."""
    user_id, domain = a_real_user(settings, today)
    before = recommendations(settings, user_id, domain)
    clicked = before["items"][2]
    event = {
        "user_id": user_id, "item_id": clicked["item_id"], "domain": clicked["domain"], "event_type": "click",
        "request_id": before["request_id"],
    }  # fmt: skip
    started = perf_counter()
    answer = requests.post(f"{settings.serving_url}/v1/events", json=event, timeout=10)
    answer.raise_for_status()

    expected = [item["item_id"] for item in before["items"]]
    try:
        after = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda a: [item["item_id"] for item in a["items"]] == expected),
            stop=tenacity.stop_after_delay(10), wait=tenacity.wait_fixed(0.02),
        )(recommendations, settings, user_id, domain)  # fmt: skip
    except tenacity.RetryError as error:
        raise RecsysError(
            "the click", event["item_id"], "The list did not change within ten seconds; see docs/runbooks/streaming.md"
        ) from error
    seconds = perf_counter() - started
    show_lists(console, user_id, before, after, clicked["item_id"], seconds)
    return seconds


def a_real_user(settings: Settings, today: date) -> tuple[str, str]:
    """Return a user with a history of 20 to 200 interactions who gets the champion, and a domain of theirs."""
    with connect(settings) as connection:
        users = connection.execute(
            f"""
            select user_id, domains[1] from {artifacts.DIM_USERS}
            where interaction_count between 20 and 200 order by interaction_count, user_id limit 200
            """
        ).fetchall()
    split = live_split(settings)
    for user_id, domain in users:
        if split.of(user_id, today).policy == artifacts.ALIAS_CHAMPION:
            return user_id, domain
    raise MissingArtifact("users with 20 to 200 interactions", len(users), "Give the demo a larger data set")


def recommendations(settings: Settings, user_id: str, domain: str) -> dict[str, Any]:
    answer = requests.get(
        f"{settings.serving_url}/v1/users/{user_id}/recommendations",
        params={"k": LIST_LENGTH, "domain": domain}, timeout=10,
    )  # fmt: skip
    answer.raise_for_status()
    return answer.json()


def show_lists(
    console: Console, user_id: str, before: dict[str, Any], after: dict[str, Any], clicked: str, seconds: float
) -> None:
    """Print both lists side by side; new items are green, the clicked one is marked."""
    old = {item["item_id"]: item["rank"] for item in before["items"]}
    table = Table("rank", "before", "after", title=f"The list of {user_id}, before and after one click")
    for first, second in zip(before["items"], after["items"], strict=False):
        left = f"[bold yellow]{first['title']}  ← clicked[/]" if first["item_id"] == clicked else first["title"]
        was = old.get(second["item_id"])
        right = f"[green]{second['title']}  (new)[/]" if was is None else f"{second['title']}  (was {was})"
        table.add_row(str(first["rank"]), left, right)
    console.print(table)
    console.print(f"The click changed the list {seconds * 1000:.0f} ms after it was posted "
                  f"(rung {after['rung']}, model version {after['model_version']}).")  # fmt: skip


def interval_of(arguments: Namespace, today: date) -> Interval:
    """Return the data that the demo works on: all before today's midnight, unless the arguments say otherwise."""
    as_of = date.fromisoformat(arguments.as_of) if arguments.as_of else today
    return Interval(tuple(sorted(arguments.domains.split(","))), as_of)
