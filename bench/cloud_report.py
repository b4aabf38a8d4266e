"""The clouds beside each other: `make cloud-report` measures the serving process at each shape's cores and memory.

    python -m bench.cloud_report [--seconds 8] [--limits 2x4 2x8 …]

Writes docs/results/clouds.md, .html and .json; `python -m infra.shapes` brings the last one into its table. With
`--limits` only these are measured, and what was published of the others stays, each with its day and load: so that a
quiet machine is needed for a minute at a time. `--limits` without any only writes the pages anew.

How a shape's limits are set, without root and without a container engine: its cores by `taskset` (processor affinity),
its memory by `prlimit --data` (what the process may take for data). A shape of more cores than this machine has cannot
be measured: its row is an estimate. The load generator, Valkey and Kafka run on the same machine.
"""

import json
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from html import escape
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil

from bench.results import FOLDER, machine
from bench.serving_load import CLOSED_CONNECTIONS, OPEN_CONNECTIONS, Target, environment, load, server
from bench.serving_world import ML_25M_ITEMS, stores, write_model, write_users
from infra.local.applications import python_of
from infra.prices import PRICES, READ
from infra.shapes import COLUMNS, KINDS, LIMITS, Measured, Shape, limits, shapes, told
from recsys.settings import HOME, Settings
from tests.ports import free_port

K, WARM_SECONDS, BATCH_LINES = 10, 3.0, 1500
RATE = 100
"""Requests a second of the open loop, from which the latencies come: about a third of what a core carries."""


def limited(cores: int, memory_gib: float) -> list[str]:
    """Return the words before a command that give it a shape's limits."""
    listed = ",".join(str(number) for number in range(cores))
    return ["taskset", "-c", listed, "prlimit", f"--data={int(memory_gib * 2**30)}"]


@contextmanager
def serving(settings: Settings, model: Path, users: list[str], words: list[str]) -> Iterator[Target]:
    """Run a serving process at these limits."""
    port = free_port()
    requests = [("GET", f"/v1/users/{user}/recommendations?k={K}", "") for user in users]
    command = [*words, python_of("serving"), "-m", "serving"]
    given = environment(settings, model, port)
    with server(command, port, "/readyz", given, settings.var_dir / "serving.log") as (process, ready):
        yield Target(port, process, ready, requests, '"rung":"personalised"')


def batch_rate(settings: Settings, model: Path, users: list[str], words: list[str], folder: Path) -> float:
    """Return the users a second of `python -m serving lines`, its start taken off."""
    taken = []
    for count in (1, BATCH_LINES):
        source = folder / f"{count}.jsonl"
        chosen = [users[number % len(users)] for number in range(count)]
        source.write_text("".join(json.dumps({"user_id": user, "k": K}) + "\n" for user in chosen))
        command = [*words, python_of("serving"), "-m", "serving", "lines", str(source), str(folder / "answers.jsonl")]
        given = os.environ | environment(settings, model, free_port())
        started = perf_counter()
        subprocess.run(command, cwd=HOME, env=given, check=True, capture_output=True)
        taken.append(perf_counter() - started)
        assert len((folder / "answers.jsonl").read_text().splitlines()) == count
    return (BATCH_LINES - 1) / (taken[1] - taken[0])


Limits = tuple[int, float]
"""Cores and GiB of memory."""


def given_here() -> list[Limits]:
    """Return the shapes' limits that this machine can give a process."""
    return limits(psutil.cpu_count(), psutil.virtual_memory().total / 2**30)


def measured(
    settings: Settings, model: Path, users: list[str], seconds: float, wanted: list[Limits]
) -> dict[Limits, Measured]:
    """Return what the process did at each of these limits."""
    found = {}
    for cores, memory_gib in wanted:
        load_before, words = round(os.getloadavg()[0], 1), limited(cores, memory_gib)
        with serving(settings, model, users, words) as target:
            load(target, WARM_SECONDS, 4)
            open_, closed = load(target, seconds, OPEN_CONNECTIONS, RATE), load(target, seconds, CLOSED_CONNECTIONS)
            resident = sum(
                each.memory_info().rss for each in (target.process, *target.process.children(recursive=True))
            )
            ready = target.ready_seconds
        with tempfile.TemporaryDirectory() as folder:
            users_per_s = batch_rate(settings, model, users, words, Path(folder))
        found[cores, memory_gib] = Measured(
            p50_ms=open_["p50_ms"], p99_ms=open_["p99_ms"], requests_per_s=closed["per_second"],
            batch_users_per_s=round(users_per_s, 1), startup_s=round(ready, 2), resident_mib=round(resident / 2**20),
            measured_on=datetime.now(UTC).date().isoformat(), load_before=load_before,
        )  # fmt: skip
        print(cores, memory_gib, found[cores, memory_gib], file=sys.stderr, flush=True)
    return found


def heads() -> list[str]:
    return [name.replace("_", " ") for name in COLUMNS]


def noise(found: dict[tuple[int, float], Measured]) -> float:
    """Return how many times throughput differs between limits that differ in memory alone, which none fills."""
    ratios = [1.0]
    for cores in {cores for cores, _ in found}:
        rates = [each.requests_per_s for (count, _), each in found.items() if count == cores]
        ratios.append(max(rates) / min(rates))
    return max(ratios)


def notes(found: dict[tuple[int, float], Measured]) -> list[str]:
    """Return what a reader has to know, a paragraph an entry."""
    limits_told = "; ".join(
        f"{cores} cores and {memory:g} GiB: {each.resident_mib} MiB resident, "
        f"{each.batch_users_per_s:.0f} batch users/s, on {each.measured_on}, load average before {each.load_before:.1f}"
        for (cores, memory), each in found.items()
    )
    return [
        f"The same serving process (iALS, 64 factors, {ML_25M_ITEMS} items, k = {K}), held to each shape's cores by "
        f"`taskset` and to its memory by `prlimit --data`; no cloud's machine was used. Latency at {RATE} requests a "
        f"second (open loop), throughput with {CLOSED_CONNECTIONS} connections. Measured: {limits_told}.",
        "A load average before a measurement says who else used the machine (one busy process is 1.0); "
        "beside it latency and cost are upper bounds, throughput is a lower one. Shapes of as many cores differ by up "
        f"to {noise(found):.2f} times in throughput here, though none fills its memory: noise, and no reason to "
        "choose one.",
        "A shape of all of this machine's cores shares them with the load generator, Valkey and Kafka: lower bounds. A "
        "shape of more cores than the machine has is an estimate: a serving process a two cores, as many times the "
        "throughput, the same latency.",
        f"Prices: list prices of {READ.isoformat()} and estimates from them, with their sources in `infra/prices.py`. "
        "Cost of 1 000 requests at the scaling policy's use of what was measured; of a million batch users at the "
        "measured rate of `python -m serving lines`, one request at a time, on one machine of the shape.",
        f"Limits: {'; '.join(f'{target}: {limit}' for target, limit in LIMITS.items())}. By the vendors' documents, "
        "not measured; that the container keeps the strictest of them is (`tests/clouds/test_container_limits.py`).",
        "Start-up is the process's own, from its start to 200 at its health route. Scale-out is from asking to the "
        "first answer of one more replica, with machine and image pull: an estimate of the maintainers, see "
        "`infra/shapes.py`. Lines of configuration: what a user has to write in the file of RECSYS_CLOUDS, a field a "
        "line.",
    ]  # fmt: skip


def markdown(rows: list[Shape], paragraphs: list[str], day: date, on: dict[str, Any]) -> str:
    table = [f"| {' | '.join(heads())} |", f"|{' --- |' * len(COLUMNS)}"]
    table += [f"| {' | '.join(told(row, name) for name in COLUMNS)} |" for row in rows]
    legend = f"Each cell: {', '.join(f'{mark} {kind}' for kind, mark in KINDS.items())}."
    said = ", ".join(f"{key} {value}" for key, value in on.items())
    parts = ["# The clouds beside each other", f"Measured on {day}: {said}. Command: `make cloud-report`.", legend]
    return "\n\n".join([*parts, "\n".join(table), *paragraphs]) + "\n"


STYLE = """body{font:16px/1.5 system-ui;max-width:78rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;border-bottom:1px solid #8886}
th{text-align:left;vertical-align:bottom}td.n{text-align:right}small{opacity:.7;display:block}
.wide{overflow-x:auto}"""


def page(rows: list[Shape], paragraphs: list[str], day: date, on: dict[str, Any]) -> str:
    """Return the report as one HTML page that needs nothing else."""

    def cell(row: Shape, name: str) -> str:
        text = told(row, name, marked=False)
        kind = row.kinds.get(name, "")
        number = "" if name in ("target", "shape") else ' class="n"'
        return f"<td{number}>{escape(text)}{f'<small>{kind}</small>' if kind else ''}</td>"

    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads())
    body = "".join(f"<tr>{''.join(cell(row, name) for name in COLUMNS)}</tr>" for row in rows)
    said = escape(", ".join(f"{key} {value}" for key, value in on.items()))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>The clouds beside each other</title><style>{STYLE}</style><h1>The clouds beside each other</h1>"
        f"<p>Measured on {day}: {said}.</p>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        + "".join(f"<p>{escape(text)}</p>" for text in paragraphs) + "</html>\n"
    )  # fmt: skip


def published() -> dict[Limits, Measured]:
    """Return what the last report measured."""
    file = FOLDER / "clouds.json"
    rows = json.loads(file.read_bytes()).get("limits", []) if file.exists() else []
    return {(row.pop("cores"), row.pop("memory_gib")): Measured(**row) for row in rows}


def main() -> None:
    parser = ArgumentParser(prog="python -m bench.cloud_report", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--limits", nargs="*", choices=[f"{c}x{m:g}" for c, m in given_here()], help="only these")
    given = parser.parse_args()
    wanted = [each for each in given_here() if given.limits is None or f"{each[0]}x{each[1]:g}" in given.limits]
    found = {}
    if wanted:
        with stores() as settings:
            model = write_model(settings.var_dir / "model", ML_25M_ITEMS)
            found = measured(settings, model, write_users(settings, ML_25M_ITEMS), given.seconds, wanted)
    found = dict(sorted({**published(), **found}.items()))
    day, on = datetime.now(UTC).date(), machine()
    rows = shapes(PRICES, found)
    paragraphs = notes(found)
    document = {
        "date": day.isoformat(), "prices_of": READ.isoformat(), "machine": on,
        "limits": [{"cores": c, "memory_gib": m, **each._asdict()} for (c, m), each in found.items()],
        "shapes": [row.model_dump(mode="json") for row in rows],
    }  # fmt: skip
    (FOLDER / "clouds.json").write_text(json.dumps(document, indent=2) + "\n")
    (FOLDER / "clouds.md").write_text(markdown(rows, paragraphs, day, on))
    (FOLDER / "clouds.html").write_text(page(rows, paragraphs, day, on))


if __name__ == "__main__":
    main()
