"""Serving under load: the process as it runs, real Valkey and Kafka, and `mlflow models serve` beside it.

    python -m bench.serving_load [seconds]

Writes docs/results/serving.md. The generator (`bench.load_generator`) is a process of its own on the same machine and
times from the instant at which a request was due. On a machine that others use, wall times are theirs too: the
processor time of the serving process for one answer stands beside them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import httpx
import psutil

from bench.load_generator import Plan
from bench.results import publish
from bench.serving_world import ML_1M_ITEMS, ML_25M_ITEMS, stores, write_model, write_ranker, write_users
from infra.local.applications import python_of
from recsys.settings import HOME, Settings
from tests.ports import free_port

K, RATE, CLOSED_CONNECTIONS, OPEN_CONNECTIONS = 10, 200, 16, 64
WARM_SECONDS, READY_SECONDS, CACHE_SECONDS = 5.0, 300.0, 3600
MIB = 2**20


@dataclass(frozen=True)
class Target:
    """A running server and how to ask it for a list."""

    port: int
    process: psutil.Process
    ready_seconds: float
    requests: list[tuple[str, str, str]]
    expected: str


def processor_seconds(process: psutil.Process) -> float:
    """Return what the process and its children have used."""
    used = 0.0
    for each in (process, *process.children(recursive=True)):
        times = each.cpu_times()
        used += times.user + times.system
    return used


def load(target: Target, seconds: float, connections: int, rate: float | None = None) -> dict[str, Any]:
    """Return the generator's report, and the processor milliseconds of an answer: of the process, and with children.

    Raises:
        SystemExit: an answer is missing or of another status; nothing is to be published then.
    """
    plan = Plan(
        host="127.0.0.1", port=target.port, requests=target.requests, expected=target.expected,
        connections=connections, seconds=seconds, rate=rate,
    )  # fmt: skip
    own, all_ = sum(target.process.cpu_times()[:2]), processor_seconds(target.process)
    done = subprocess.run(
        [sys.executable, "-m", "bench.load_generator"],
        input=plan.model_dump_json(), capture_output=True, text=True, check=True, cwd=HOME,
    )  # fmt: skip
    report = json.loads(done.stdout)
    if report["lost"] or set(report["statuses"]) != {"200"}:
        raise SystemExit(f"not what was to be measured: {report}")
    answers = report["answers"]
    report["own_cpu_ms"] = round(1000 * (sum(target.process.cpu_times()[:2]) - own) / answers, 3)
    report["cpu_ms"] = round(1000 * (processor_seconds(target.process) - all_) / answers, 3)
    return report


@contextmanager
def server(command: list[str], port: int, health: str, environment: dict[str, str], log: Path) -> Iterator[tuple]:
    """Start a server; yield its process and the seconds until its health route answered 200."""
    started = perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=HOME, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        while True:
            if process.poll() is not None or perf_counter() - started > READY_SECONDS:
                raise SystemExit(f"{command[:4]} did not become ready:\n{log.read_text()[-3000:]}")
            try:
                if httpx.get(f"http://127.0.0.1:{port}{health}", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            sleep(0.02)
        yield psutil.Process(process.pid), perf_counter() - started
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        process.wait(30)
        for child in children:
            if child.is_running():
                child.wait(30)


def environment(settings: Settings, model: Path, port: int, cached: bool = False) -> dict[str, str]:
    return {
        "RECSYS_VAR_DIR": str(settings.var_dir),
        "RECSYS_REDIS_URL": settings.redis_url,
        "RECSYS_RECORDS_URL": settings.records_url,
        "RECSYS_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "RECSYS_MODEL_DIR": str(model),
        "RECSYS_SERVING_URL": f"http://127.0.0.1:{port}",
        "RECSYS_VARIANT_WEIGHTS": '{"champion": 1}',
        "RECSYS_ANSWER_CACHE_SECONDS": str(CACHE_SECONDS if cached else 0),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(HOME),
    }


@contextmanager
def serving(settings: Settings, model: Path, users: list[str], cached: bool = False) -> Iterator[Target]:
    port = free_port()
    command = [python_of("serving"), "-m", "serving"]
    requests = [("GET", f"/v1/users/{user}/recommendations?k={K}", "") for user in users]
    with server(
        command, port, "/readyz", environment(settings, model, port, cached), settings.var_dir / "serving.log"
    ) as started:
        yield Target(port, *started, requests, '"rung":"personalised"')


@contextmanager
def mlflow_serving(settings: Settings, model: Path, users: list[str]) -> Iterator[Target]:
    import mlflow

    port, saved = free_port(), settings.var_dir / f"mlflow-model-{model.name}"
    os.environ.update(environment(settings, model, port))  # saving tries the model out
    if not saved.exists():
        mlflow.pyfunc.save_model(
            str(saved), python_model=str(HOME / "bench" / "mlflow_retrieval.py"), pip_requirements=[]
        )
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(saved), "--env-manager", "local",
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    requests = [("POST", "/invocations", json.dumps({"inputs": [{"user_id": user, "k": str(K)}]})) for user in users]
    # it starts uvicorn by its name
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    said, log = environment(settings, model, port) | path, settings.var_dir / "mlflow.log"
    with server(command, port, "/health", said, log) as started:
        yield Target(port, *started, requests, '"item_id"')


def measure(target: Target, seconds: float) -> dict[str, Any]:
    load(target, WARM_SECONDS, 4)
    memory = target.process.memory_info().rss / MIB
    children = sum(child.memory_info().rss for child in target.process.children(recursive=True)) / MIB
    return {
        "ready_seconds": round(target.ready_seconds, 2),
        "resident_mib": round(memory),
        "children_mib": round(children),
        "open": load(target, seconds, OPEN_CONNECTIONS, RATE),
        "closed": load(target, seconds, CLOSED_CONNECTIONS),
    }


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    measured: dict[tuple[str, int], dict[str, Any]] = {}
    before = psutil.cpu_times()
    with stores() as settings:
        for items in (ML_1M_ITEMS, ML_25M_ITEMS):
            model = write_model(settings.var_dir / f"model-{items}", items)
            write_ranker(model, items)
            users = write_users(settings, items)
            with serving(settings, model, users) as target:
                measured["serving", items] = measure(target, seconds)
            with serving(settings, model, users, cached=True) as target:
                load(target, WARM_SECONDS, 4, rate=len(users) / WARM_SECONDS)  # every user's list once
                measured["serving, cached", items] = measure(target, seconds)
            print(items, json.dumps(measured["serving", items], default=str)[:600], file=sys.stderr, flush=True)
        with mlflow_serving(settings, model, users) as target:
            measured["mlflow models serve", ML_25M_ITEMS] = measure(target, seconds)
    publish("serving", "Serving under load", rows(measured), notes(measured, stolen(before, psutil.cpu_times())))


def stolen(before: Any, after: Any) -> float:
    """Return the share of this machine's time that its host gave to others when it was wanted here."""
    spent = sum(after) - sum(before)
    return (getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)) / spent if spent else 0.0


def rows(measured: dict[tuple[str, int], dict[str, Any]]) -> list[dict[str, Any]]:
    command = "python -m bench.serving_load"
    table = []

    def row(measure: str, target: str, value: str) -> None:
        table.append({"measure": measure, "target": target, "measured": value, "command": command})

    for (name, items), found in measured.items():
        ours, at = name.startswith("serving"), f"{name}, {items} items"
        for mode, what in (
            ("open", f"{RATE} requests a second, open loop"),
            ("closed", f"{CLOSED_CONNECTIONS} connections"),
        ):
            report = found[mode]
            latencies = f"p50 {report['p50_ms']} ms, p95 {report['p95_ms']} ms, p99 {report['p99_ms']} ms"
            target = {
                "open": "p50 ≤ 3 ms, p99 ≤ 15 ms",
                "closed": "≥ 3000 a second" if "cached" in name else "≥ 600 a second",
            }[mode]
            target = target if ours else "none"
            row(
                f"{at}: {what}",
                target,
                latencies if mode == "open" else f"{report['per_second']} a second, {latencies}",
            )
            row(
                f"{at}: {what}, processor time of an answer", "none",
                f"{report['own_cpu_ms']} ms, with its children {report['cpu_ms']} ms",
            )  # fmt: skip
            row(f"{at}: {what}, answers that were not personalised", "0", str(report["wrong"]))
        row(f"{at}: ready", "≤ 5 s" if ours else "none", f"{found['ready_seconds']} s")
        row(
            f"{at}: resident memory", "≤ 700 MB" if ours else "none",
            f"{found['resident_mib']} MiB and {found['children_mib']} MiB of children",
        )  # fmt: skip
    ours, theirs = measured["serving", ML_25M_ITEMS], measured["mlflow models serve", ML_25M_ITEMS]
    ratio = ours["closed"]["per_second"] / theirs["closed"]["per_second"]
    row("throughput of serving beside `mlflow models serve`", "≥ 3 times", f"{ratio:.1f} times")
    return table


def notes(measured: dict[tuple[str, int], dict[str, Any]], stolen_share: float) -> str:
    load_average = os.getloadavg()[1]
    lines = [
        f"iALS with 64 factors, a history of 100 items a user, k = {K}; one process, one thread. Serving ranks 200",
        "candidates by a DCN-v2 on seven features and logs ten impressions and a record an answer; the model behind",
        "MLflow does neither. Generator, Valkey and Kafka run on the same machine. Load average at the end:",
        f"{load_average:.1f}, two of it ours;",
        "beyond that, others were using the machine and wall times are upper bounds. The machine is a virtual one: its",
        f"host took {stolen_share:.1%} of its processor time for others meanwhile.",
        "",
        "| server | items | upper bound in ms: answers, open loop |",
        "| --- | --- | --- |",
    ]
    for (name, items), found in measured.items():
        cells = ", ".join(f"{bound}: {count}" for bound, count in found["open"]["histogram_ms"].items())
        lines.append(f"| {name} | {items} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
