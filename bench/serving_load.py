"""Serving under load: the process as it runs, real Valkey and Kafka, and `mlflow models serve` beside it.

    python -m bench.serving_load [seconds]

Writes docs/results/serving.md: of `ROUNDS` rounds, in each of which all servers are measured in turn, the median and
the least and largest, since a machine that others use is faster in one minute than in the next. The generator
(`bench.load_generator`) is a process of its own on the same machine and times from the instant at which a request was
due. Wall times are those of the machine's other users too: the processor time of the serving process for one answer
stands beside them.
"""

import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
ROUNDS = 5
LITTLE_STOLEN, MOST_TRIES = 0.01, 3
"""Share of the processors that the host of a virtual machine may take while something is measured; else once more."""
RANKED, CACHED, PLAIN = "serving", "serving, cached", "serving, retrieval alone"
MLFLOW_RANKED, MLFLOW_PLAIN = "mlflow models serve, ranked", "mlflow models serve, retrieval alone"
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


def warmed(target: Target) -> dict[str, Any]:
    """Return what is measured of a server once, behind its first answers."""
    load(target, WARM_SECONDS, 4)
    children = sum(child.memory_info().rss for child in target.process.children(recursive=True)) / MIB
    return {
        "ready_seconds": round(target.ready_seconds, 2),
        "resident_mib": round(target.process.memory_info().rss / MIB),
        "children_mib": round(children),
        "open": [],
        "closed": [],
    }


def in_rounds(targets: dict[str, Target], seconds: float) -> dict[str, dict[str, Any]]:
    """Return what was measured of each server, with a report a round of the open and of the closed loop."""
    found = {name: warmed(target) for name, target in targets.items()}
    for number in range(ROUNDS):
        for name, target in targets.items():
            found[name]["open"].append(undisturbed(target, seconds, OPEN_CONNECTIONS, RATE))
            found[name]["closed"].append(undisturbed(target, seconds, CLOSED_CONNECTIONS))
            latest = found[name]["open"][-1]["p50_ms"], found[name]["closed"][-1]["per_second"]
            print(f"round {number + 1} of {ROUNDS}:", name, *latest, file=sys.stderr, flush=True)
    return found


def undisturbed(target: Target, seconds: float, connections: int, rate: float | None = None) -> dict[str, Any]:
    """Return a report of `load`, tried until the machine's host took little of it: the try of which it took least."""
    tries: list[dict[str, Any]] = []
    while len(tries) < MOST_TRIES and not (tries and tries[-1]["stolen"] <= LITTLE_STOLEN):
        before = psutil.cpu_times()
        report = load(target, seconds, connections, rate)
        tries.append(report | {"stolen": round(stolen(before, psutil.cpu_times()), 4)})
    return min(tries, key=lambda report: report["stolen"]) | {"tries": len(tries)}


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    measured: dict[tuple[str, int], dict[str, Any]] = {}
    before = psutil.cpu_times()
    with stores() as settings:
        for items in (ML_1M_ITEMS, ML_25M_ITEMS):
            plain, model = (write_model(settings.var_dir / f"{name}-{items}", items) for name in ("plain", "ranked"))
            write_ranker(model, items)
            apart = settings.model_copy(update={"redis_url": settings.redis_url.removesuffix("/0") + "/1"})
            users = write_users(settings, items)
            write_users(apart, items)  # or all servers would find the lists that the one with a cache has left behind
            with ExitStack() as stack:
                targets = {
                    RANKED: stack.enter_context(serving(settings, model, users)),
                    CACHED: stack.enter_context(serving(apart, model, users, cached=True)),
                }
                load(targets[CACHED], WARM_SECONDS, 4, rate=len(users) / WARM_SECONDS)  # every user's list once
                if items == ML_25M_ITEMS:
                    targets[PLAIN] = stack.enter_context(serving(settings, plain, users))
                    targets[MLFLOW_RANKED] = stack.enter_context(mlflow_serving(settings, model, users))
                    targets[MLFLOW_PLAIN] = stack.enter_context(mlflow_serving(settings, plain, users))
                measured |= {(name, items): found for name, found in in_rounds(targets, seconds).items()}
    publish(
        "serving", "Serving under load", rows(measured), notes(measured, stolen(before, psutil.cpu_times())),
        {f"{name}, {items} items": joined(found) for (name, items), found in measured.items()},
    )  # fmt: skip


def joined(found: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured of a server with one histogram of all rounds in place of one a round."""
    told = dict(found)
    for mode in ("open", "closed"):
        counted: Counter[str] = Counter()
        for report in found[mode]:
            counted.update(report["histogram_ms"])
        told[mode] = [{key: value for key, value in one.items() if key != "histogram_ms"} for one in found[mode]]
        told[f"{mode}_histogram_ms"] = dict(sorted(counted.items(), key=lambda bucket: float(bucket[0])))
    return told


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
        opened, closed = found["open"], found["closed"]
        many = "≥ 3000 a second, p99 ≤ 10 ms" if "cached" in name else "≥ 600 a second"
        row(f"{at}: {RATE} requests a second, open loop", "p50 ≤ 3 ms, p99 ≤ 15 ms" if ours else "none", _said(opened))
        row(
            f"{at}: {CLOSED_CONNECTIONS} connections", many if ours else "none",
            f"{_middle(closed, 'per_second', 'a second')}, {_said(closed)}",
        )  # fmt: skip
        for report, what in ((opened, f"{RATE} requests a second"), (closed, f"{CLOSED_CONNECTIONS} connections")):
            used = f"{_middle(report, 'own_cpu_ms', 'ms')}, with its children {_middle(report, 'cpu_ms', 'ms')}"
            row(f"{at}: {what}, processor time of an answer", "none", used)
        row(f"{at}: ready", "≤ 5 s" if ours else "none", f"{found['ready_seconds']} s")
        row(
            f"{at}: resident memory", "≤ 700 MB" if ours else "none",
            f"{found['resident_mib']} MiB and {found['children_mib']} MiB of children",
        )  # fmt: skip
    for what, ours, theirs, target in (
        ("ranked lists from both", RANKED, MLFLOW_RANKED, "≥ 3 times"),
        ("retrieval alone from both", PLAIN, MLFLOW_PLAIN, "≥ 3 times"),
        ("ours ranked, theirs not", RANKED, MLFLOW_PLAIN, "none"),
    ):
        rounds = zip(measured[ours, ML_25M_ITEMS]["closed"], measured[theirs, ML_25M_ITEMS]["closed"], strict=True)
        ratios = [{"times": round(mine["per_second"] / other["per_second"], 1)} for mine, other in rounds]
        row(f"throughput of serving beside `mlflow models serve`, {what}", target, _middle(ratios, "times", "times"))
    wrong = sum(one["wrong"] for found in measured.values() for mode in ("open", "closed") for one in found[mode])
    row("answers of all these that were not personalised", "0", str(wrong))
    return table


def _said(reports: list[dict[str, Any]]) -> str:
    return ", ".join(f"{name} {_middle(reports, f'{name}_ms', 'ms')}" for name in ("p50", "p95", "p99"))


def _middle(reports: list[dict[str, Any]], key: str, unit: str) -> str:
    """Return the median of the rounds, with the least and the largest."""
    values = [report[key] for report in reports]
    return f"{statistics.median(values):g} {unit} [{min(values):g}, {max(values):g}]"


def notes(measured: dict[tuple[str, int], dict[str, Any]], stolen_share: float) -> str:
    worst = max(one["stolen"] for found in measured.values() for mode in ("open", "closed") for one in found[mode])
    return (
        f"Medians of {ROUNDS} rounds [the least, the largest]; in a round all servers of a size are asked in turn.\n"
        f"iALS with 64 factors, a history of 100 items a user, k = {K}; one process, one thread. `serving` ranks 200\n"
        "candidates by a DCN-v2 on seven features, `serving, retrieval alone` has no ranker beside the model; both\n"
        "log ten impressions and a record an answer. Behind MLflow stand the same bundles, ranker and rules, with\n"
        "the product in floats as its users would write it (bench/mlflow_retrieval.py); it leaves nothing behind.\n"
        "Generator, two Valkeys and Kafka run on the same machine. The machine is a virtual one: its host took\n"
        f"{stolen_share:.1%} of its processor time for others meanwhile. Where it took more than {LITTLE_STOLEN:.0%}\n"
        f"during a measure, that was tried again, {MOST_TRIES} times at most; the try of which it took least\n"
        f"counts, {worst:.1%} of the worst of them. Histograms and what was taken of each: serving.json."
    )


if __name__ == "__main__":
    main()
