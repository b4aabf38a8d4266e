"""Runs the DAG `recsys_deploy` in a real Airflow over all targets at once, against emulated clouds, and publishes it.

python -m bench.deploy_dag          (after make setup-cloud)

PostgreSQL, MLflow and Airflow run as in the platform, on free ports, in a folder that is removed after. Five runs:
a dry run, the first release, a second one beside it, the second once more, and one that fails on one cloud.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import requests

from bench.results import publish
from infra.local import environment
from infra.local.airflow import airflow
from infra.local.airflow_client import Airflow
from infra.local.applications import mlflow
from infra.local.platform import Start
from infra.local.stores import postgres
from infra.local.supervise import Supervisor
from recsys.artifacts import ALIAS_CHAMPION, DAG_DEPLOY, REGISTERED_MODEL
from recsys.settings import HOME, Settings, load_settings

COMMAND = "python -m bench.deploy_dag"
TARGETS = ["aci", "aws", "azure", "gcp", "k8s", "local"]
CLOUD = HOME / ".venv" / "cloud" / "bin" / "python"
LIMIT_S = 180
SICK = "azure"
"""Where the last release does not become healthy."""
DEAD = "127.0.0.1:1"
"""Where nobody listens: the releases' stores, which they can do without."""

NOTES = """A real Airflow (API server, scheduler with the LocalExecutor, DAG processor), PostgreSQL and MLflow; each
task is `python -m infra <step> --target <target>` in an environment of its own, with the cloud's own SDK against an
emulator of [the rehearsal](rehearsal.md) over the loopback device. Behind each endpoint answer real serving processes.
**No real account was used**: a cloud's own minutes (machines, images) come on top of these.

*Beside each other*: seconds of all tasks over seconds of the run. *Unchanged*: each step of each target says that it
found what it wanted; the emulators count what is paid for before and after."""


class Run(NamedTuple):
    """One run of the DAG."""

    state: str
    seconds: float
    task_seconds: float
    results: dict[tuple[str, str], dict[str, Any]]
    """(target, step) → what the step returned."""

    @property
    def changes(self) -> int:
        """Of all steps; a dry run's are planned ones."""
        told = [said.get("changes", ()) for said in self.results.values()]
        return sum(each if isinstance(each, int) else len(each) for each in told)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def stand(folder: Path) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    """Run the emulated clouds; yield what they say of themselves, and the process."""
    folder.mkdir()
    process = subprocess.Popen(
        [CLOUD, "-m", "tests.clouds.stand", str(folder)], cwd=HOME, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield json.loads(process.stdout.readline()), process
    finally:
        process.stdin.close()
        process.wait(60)


def billed(process: subprocess.Popen[str], told: str = "") -> dict[str, dict[str, int]]:
    """Return what each emulated account pays for now; before that, tell it what becomes of deployments."""
    process.stdin.write(f"{told}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


@contextmanager
def platform(var_dir: Path) -> Iterator[Settings]:
    """Run PostgreSQL, MLflow and Airflow below this folder."""
    addresses = {f"RECSYS_{name}_URL": f"http://127.0.0.1:{free_port()}" for name in ("MLFLOW", "AIRFLOW")}
    os.environ.update(
        addresses, RECSYS_VAR_DIR=str(var_dir), RECSYS_REDIS_URL=f"redis://:none@{DEAD}/0", RECSYS_KAFKA_BOOTSTRAP=DEAD,
        RECSYS_POSTGRES_URL=f"postgresql://recsys:{secrets.token_hex(8)}@127.0.0.1:{free_port()}/recsys",
    )  # fmt: skip
    load_settings.cache_clear()
    settings = environment.ensure(load_settings(), datetime.now(UTC).date())
    services, supervisor = [postgres(settings), mlflow(settings), *airflow(settings)], Supervisor(var_dir)
    try:
        supervisor.start(services)
        Start(supervisor, services).run()
        yield settings
    finally:
        supervisor.stop()


def register(mlflow_url: str, versions: int) -> None:
    """Register so many versions of the recommender, each from a run of its own, as the registry demands."""
    api, name = f"{mlflow_url}/api/2.0/mlflow", {"name": REGISTERED_MODEL}

    def said(path: str, document: dict[str, Any]) -> dict[str, Any]:
        answer = requests.post(f"{api}/{path}", json=document, timeout=30)
        answer.raise_for_status()
        return answer.json()

    said("registered-models/create", name)
    for _ in range(versions):
        run_of = said("runs/create", {"experiment_id": "0"})["run"]["info"]
        source = {"source": f"{run_of['artifact_uri']}/model", "run_id": run_of["run_id"]}
        said("model-versions/create", {**name, **source})


def move_champion(mlflow_url: str, version: str) -> None:
    """Let the registry's alias name this version."""
    document = {"name": REGISTERED_MODEL, "alias": ALIAS_CHAMPION, "version": version}
    url = f"{mlflow_url}/api/2.0/mlflow/registered-models/alias"
    requests.post(url, json=document, timeout=30).raise_for_status()


def run(client: Airflow, dry_run: bool = False) -> Run:
    """Trigger the DAG over all targets and wait for its end."""
    name = client.trigger(DAG_DEPLOY, {"targets": TARGETS, "dry_run": dry_run})
    state = client.watch(DAG_DEPLOY, name, lambda tasks: None, every=1.0)
    tasks = client.tasks(DAG_DEPLOY, name)
    seconds = client.span(DAG_DEPLOY, name)
    results = {
        (TARGETS[task.map_index], task.task_id.removeprefix("roll_out.")): client.result(DAG_DEPLOY, name, task) or {}
        for task in tasks if task.map_index >= 0 and task.state == "success"
    }  # fmt: skip
    for task in tasks:
        if task.state == "failed":
            print(f"{task.label}: {client.sentence(DAG_DEPLOY, name, task)}", file=sys.stderr)
    done = Run(state, seconds, sum(task.seconds for task in tasks), results)
    print(f"{name}: {state} in {done.seconds:.0f} s", file=sys.stderr)
    return done


def row(measure: str, target: str, measured: str, met: bool) -> dict[str, Any]:
    return {"measure": measure, "target": target, "measured": f"{measured}: {'met' if met else 'missed'}",
            "command": COMMAND}  # fmt: skip


def timed(measure: str, done: Run) -> dict[str, Any]:
    beside = done.task_seconds / done.seconds
    return row(measure, f"at most {LIMIT_S} s, green",
               f"{done.state} in {done.seconds:.0f} s, {beside:.1f} tasks beside each other, {done.changes} changes",
               done.state == "success" and done.seconds <= LIMIT_S)  # fmt: skip


def main() -> int:
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recsys-deploy-")))
        scratch.chmod(0o711)  # passable: as root, PostgreSQL runs as an account of its own
        clouds, process = stack.enter_context(stand(scratch / "clouds"))
        file = scratch / "clouds.json"
        file.write_text(json.dumps(clouds["clouds"]))
        os.environ.update(clouds["environment"], RECSYS_CLOUDS=str(file), RECSYS_SERVING_URL=clouds["serving"]["2"],
                          RECSYS_VARIANT_WEIGHTS='{"champion": 1.0}')  # fmt: skip
        settings = stack.enter_context(platform(scratch / "var"))
        register(settings.mlflow_url, 2)
        client = Airflow(settings)
        client.wait_for_dag(DAG_DEPLOY)

        move_champion(settings.mlflow_url, "1")
        dry = run(client, dry_run=True)
        nothing = billed(process)
        first = run(client)
        move_champion(settings.mlflow_url, "2")
        second = run(client)
        before = billed(process)
        again = run(client)
        after = billed(process)
        billed(process, f"{SICK} unhealthy")
        move_champion(settings.mlflow_url, "1")
        broken = run(client)
        held = billed(process, f"{SICK} ready")
        for target in TARGETS:
            python = HOME / ".venv" / ("platform" if target == "local" else "cloud") / "bin" / "python"
            subprocess.run([python, "-m", "infra", "teardown", "--target", target], cwd=HOME, check=True)
        left = billed(process)

    plans = {target: dry.results.get((target, "canary"), {}) for target in TARGETS}
    told = ", ".join(f"{name} {plan.get('changes')} for {plan.get('monthly_usd')} USD" for name, plan in plans.items())
    planned = all(plan.get("changes") and "monthly_usd" in plan for plan in plans.values())
    unchanged = [said.get("unchanged") for (_, step), said in again.results.items() if step != "verify_release"]
    compared = {target: second.results.get((target, "verify_release"), {}).get("compared") for target in TARGETS}
    promoted = {target for target, step in broken.results if step == "promote_release"}
    machines = sum(len(each) for each in before.values())
    rows = [
        timed(f"dry run over {len(TARGETS)} targets", dry),
        row("dry run: changes and their monthly cost", "told for each, nothing created", told,
            planned and not any(nothing.values())),
        timed(f"first release, {len(TARGETS)} targets", first),
        timed("second release beside the first, then alone", second),
        row("answers compared with this machine's, to the byte", "2 a target", json.dumps(compared),
            set(compared.values()) == {2}),
        timed("the same once more", again),
        row("the same once more: steps that found all done", f"all {3 * len(TARGETS)}",
            f"{sum(map(bool, unchanged))} of {len(unchanged)}", len(unchanged) == 3 * len(TARGETS) and all(unchanged)),
        row("the same once more: deployments paid for", "as before", f"{machines} before, {before == after} after",
            before == after and machines > 0),
        row(f"another release, whose container is not healthy on {SICK}", "it goes back alone, the others go on",
            f"{broken.state} in {broken.seconds:.0f} s; promoted on {', '.join(sorted(promoted))}; {SICK} pays for "
            f"{'what it had' if held[SICK] == after[SICK] else held[SICK]}",
            broken.state == "failed" and promoted == set(TARGETS) - {SICK} and held[SICK] == after[SICK]),
        row("after teardown", "nothing is paid for", json.dumps(left), not any(left.values())),
    ]  # fmt: skip
    publish("deploy_dag", f"The deploy DAG in a real Airflow, {len(TARGETS)} targets, emulated", rows, NOTES)
    return int(any(each["measured"].endswith("missed") for each in rows))


if __name__ == "__main__":
    sys.exit(main())
