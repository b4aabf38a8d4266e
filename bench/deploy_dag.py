"""Runs the DAGs `recsys_deploy` and `recsys_rest` in a real Airflow over all targets, against emulated clouds.

python -m bench.deploy_dag [--only-rest]          (after make setup-cloud)

PostgreSQL, MLflow and Airflow run as in the platform, on free ports, in a folder that is removed after. Five runs
of the deploy DAG: a dry run, the first release, a second one beside it, the second once more, and one that fails on one
cloud; then a rest that finds everything in use, one two days later that takes all machines away, and a last deploy that
brings them back.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import requests

from bench.results import FOLDER, publish
from infra.local import environment
from infra.local.airflow import airflow
from infra.local.airflow_client import Airflow
from infra.local.applications import mlflow
from infra.local.platform import Start
from infra.local.stores import postgres
from infra.local.supervise import Supervisor
from recsys.artifacts import ALIAS_CHAMPION, DAG_DEPLOY, DAG_REST, REGISTERED_MODEL
from recsys.settings import HOME, Settings, load_settings
from tests.ports import free_port

COMMAND = "python -m bench.deploy_dag"
TARGETS = ["aci", "aws", "azure", "gcp", "k8s", "local"]
CLOUD = HOME / ".venv" / "cloud" / "bin" / "python"
LIMIT_S = 180
SICK = "azure"
"""Where the last release does not become healthy."""
SERVED = "2"
"""The version that this machine's own API answers with, to compare."""
TEARDOWN = "after teardown"
IDLE_HOURS = 48
"""By which the emulated clouds' counts grow older before the second rest; a day without a request is idle."""
DEAD = "127.0.0.1:1"
"""Where nobody listens: the releases' stores, which they can do without."""

NOTES = """A real Airflow (API server, scheduler with the LocalExecutor, DAG processor), PostgreSQL and MLflow; each
task is `python -m infra <step> --target <target>` in an environment of its own, with the cloud's own SDK against an
emulator of [the rehearsal](rehearsal.md) over the loopback device. Behind each endpoint answer real serving processes.
**No real account was used**: a cloud's own minutes (machines, images) come on top of these.

*Beside each other*: seconds of all tasks over seconds of the run. *Unchanged*: each step of each target says that it
found what it wanted; the emulators count what is paid for before and after. *Nobody asked*: no clock was
changed; in the emulated clouds' metrics what was asked grew older. `--only-rest` measures the rows of the rest and of
the deploy after it; those of the other deploys stay as the last whole run left them."""


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
def platform(var_dir: Path, with_airflow: bool = True) -> Iterator[Settings]:
    """Run PostgreSQL, MLflow and Airflow below this folder."""
    addresses = {f"RECSYS_{name}_URL": f"http://127.0.0.1:{free_port()}" for name in ("MLFLOW", "AIRFLOW")}
    os.environ.update(
        addresses, RECSYS_VAR_DIR=str(var_dir), RECSYS_REDIS_URL=f"redis://:none@{DEAD}/0", RECSYS_KAFKA_BOOTSTRAP=DEAD,
        RECSYS_POSTGRES_URL=f"postgresql://recsys:{secrets.token_hex(8)}@127.0.0.1:{free_port()}/recsys",
    )  # fmt: skip
    load_settings.cache_clear()
    settings = environment.ensure(load_settings(), datetime.now(UTC).date())
    services, supervisor = [postgres(settings), mlflow(settings)], Supervisor(var_dir)
    services += airflow(settings) if with_airflow else []
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


def rest(client: Airflow) -> Run:
    """Trigger the DAG that lets idle endpoints rest, and wait for its end."""
    name = client.trigger(DAG_REST, {})
    state = client.watch(DAG_REST, name, lambda tasks: None, every=1.0)
    (task,) = client.tasks(DAG_REST, name)
    said = client.result(DAG_REST, name, task) or {"rested": ()}
    if state == "failed":
        print(client.sentence(DAG_REST, name, task), file=sys.stderr)
    results = {(each["target"], "rest"): each for each in said["rested"]}
    print(f"{name}: {state} in {client.span(DAG_REST, name):.0f} s", file=sys.stderr)
    return Run(state, client.span(DAG_REST, name), task.seconds, results)


def row(measure: str, target: str, measured: str, met: bool) -> dict[str, Any]:
    return {"measure": measure, "target": target, "measured": f"{measured}: {'met' if met else 'missed'}",
            "command": COMMAND}  # fmt: skip


def timed(measure: str, done: Run) -> dict[str, Any]:
    beside = done.task_seconds / done.seconds
    return row(measure, f"at most {LIMIT_S} s, green",
               f"{done.state} in {done.seconds:.0f} s, {beside:.1f} tasks beside each other, {done.changes} changes",
               done.state == "success" and done.seconds <= LIMIT_S)  # fmt: skip


def rested(client: Airflow, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Let the DAG look at endpoints that were asked, then at idle ones; then deploy again. Return the rows."""
    client.wait_for_dag(DAG_REST)
    client.resume(DAG_REST)
    before = billed(process)
    busy = rest(client)
    kept = billed(process)
    for cloud in before:
        billed(process, f"{cloud} hours {IDLE_HOURS}")
    idle = rest(client)
    paid = billed(process)
    woken = run(client)
    after = billed(process)
    asked = {target: said["asked"] for (target, _), said in busy.results.items()}
    gone = sorted(target for (target, _), said in idle.results.items() if not said["unchanged"])
    compared = {said.get("compared") for (_, step), said in woken.results.items() if step == "verify_release"}
    machines = sorted(target for target, each in after.items() if each)
    return [
        row(f"{DAG_REST} while each cloud counts requests of this day", "green, changes nothing",
            f"{busy.state} in {busy.seconds:.0f} s; asked {json.dumps(asked)}; {busy.changes} changes",
            busy.state == "success" and not busy.changes and kept == before and any(before.values())),
        row(f"{DAG_REST} when nobody asked for {IDLE_HOURS} hours", "green, nothing is paid for",
            f"{idle.state} in {idle.seconds:.0f} s; gone from {', '.join(gone)}; paid for {json.dumps(paid)}",
            idle.state == "success" and gone == sorted(before) and not any(paid.values())),
        timed(f"{DAG_DEPLOY} over endpoints at rest", woken),
        row(f"{DAG_DEPLOY} over endpoints at rest: who serves again", f"all {len(before)} clouds, answers to the byte",
            f"{', '.join(machines)}; compared {sorted(map(str, compared))} a target",
            machines == sorted(before) and compared == {2}),
    ]  # fmt: skip


def deployed(client: Airflow, process: subprocess.Popen[str], mlflow_url: str) -> list[dict[str, Any]]:
    """Bring releases to all targets, one of which fails at last. Return the rows."""
    move_champion(mlflow_url, "1")
    dry = run(client, dry_run=True)
    nothing = billed(process)
    first = run(client)
    move_champion(mlflow_url, SERVED)
    second = run(client)
    before = billed(process)
    again = run(client)
    after = billed(process)
    billed(process, f"{SICK} unhealthy")
    move_champion(mlflow_url, "1")
    broken = run(client)
    held = billed(process, f"{SICK} ready")

    plans = {target: dry.results.get((target, "canary"), {}) for target in TARGETS}
    told = ", ".join(f"{name} {plan.get('changes')} for {plan.get('monthly_usd')} USD" for name, plan in plans.items())
    planned = all(plan.get("changes") and "monthly_usd" in plan for plan in plans.values())
    unchanged = [said.get("unchanged") for (_, step), said in again.results.items() if step != "verify_release"]
    compared = {target: second.results.get((target, "verify_release"), {}).get("compared") for target in TARGETS}
    promoted = {target for target, step in broken.results if step == "promote_release"}
    machines = sum(len(each) for each in before.values())
    return [
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
    ]  # fmt: skip


def torn_down(process: subprocess.Popen[str]) -> dict[str, dict[str, int]]:
    """Remove everything, all targets at once; return what is paid for then."""
    commands = {
        target: [HOME / ".venv" / ("platform" if target == "local" else "cloud") / "bin" / "python", "-m", "infra",
                 "teardown", "--target", target]
        for target in TARGETS
    }  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda command: subprocess.run(command, cwd=HOME, check=True), commands.values()))
    return billed(process)


def published() -> list[dict[str, Any]]:
    """Return the rows of the deploys that stand there."""
    rows = json.loads((FOLDER / "deploy_dag.json").read_bytes())["rows"]
    return [each for each in rows if not each["measure"].startswith((DAG_REST, DAG_DEPLOY, TEARDOWN))]


def main() -> int:
    parser = ArgumentParser(prog="python -m bench.deploy_dag", description=__doc__)
    parser.add_argument("--only-rest", action="store_true", help="leave out the deploys; their rows stay as they are")
    only_rest = parser.parse_args().only_rest
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recsys-deploy-")))
        scratch.chmod(0o711)  # passable: as root, PostgreSQL runs as an account of its own
        clouds, process = stack.enter_context(stand(scratch / "clouds"))
        file = scratch / "clouds.json"
        file.write_text(json.dumps(clouds["clouds"]))
        os.environ.update(clouds["environment"], RECSYS_CLOUDS=str(file), RECSYS_SERVING_URL=clouds["serving"][SERVED],
                          RECSYS_VARIANT_WEIGHTS='{"champion": 1.0}')  # fmt: skip
        settings = stack.enter_context(platform(scratch / "var"))
        register(settings.mlflow_url, 2)
        client = Airflow(settings)
        client.wait_for_dag(DAG_DEPLOY)
        rows = published() if only_rest else deployed(client, process, settings.mlflow_url)
        move_champion(settings.mlflow_url, SERVED)
        if only_rest:
            run(client)
        rows += rested(client, process)
        left = torn_down(process)
    rows.append(row(TEARDOWN, "nothing is paid for", json.dumps(left), not any(left.values())))
    publish("deploy_dag", f"The DAGs of deploying and resting in a real Airflow, {len(TARGETS)} targets, emulated",
            rows, NOTES)  # fmt: skip
    return int(any(each["measured"].endswith("missed") for each in rows))


if __name__ == "__main__":
    sys.exit(main())
