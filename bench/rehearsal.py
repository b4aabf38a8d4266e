"""Runs the rehearsal of the clouds, one process a cloud and two at a time, and publishes what passed.

    make setup-cloud && python -m bench.rehearsal [gcp azure …]

With names only these run, and what was published of the others stays, with its day.
"""

import json
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from bench.results import FOLDER, publish
from recsys.settings import HOME

COMMAND = "python -m bench.rehearsal"
FILES = {path.stem.removeprefix("rehearse_"): path for path in (HOME / "tests" / "clouds").glob("rehearse_*.py")}
ORDER = ("aws", "gcp", "azure", "aci", "k8s", "local", "manifests")
LONGEST = ("azure", "aws", "local", "gcp", "aci", "k8s", "manifests")
BEHIND = {
    "aws": ("SageMaker's SDK {sagemaker} over HTTP against moto {moto} with the additions of "
            "`tests/clouds/aws_emulator.py`"),
    "gcp": ("Vertex AI's SDK {google-cloud-aiplatform} over HTTP (REST) against `tests/clouds/gcp_emulator.py`, built "
            "on the SDK's message types"),
    "azure": ("Azure ML's SDK {azure-ai-ml} over HTTPS against `tests/clouds/azure_emulator.py`, which checks each "
              "document against the SDK's message types"),
    "aci": "Azure's core SDK over HTTPS against `tests/clouds/aci_emulator.py`, strict by Azure's REST reference",
    "k8s": ("The Kubernetes client {kubernetes} over HTTP against `tests/clouds/k8s_emulator.py`, which checks each "
            "object against Kubernetes' JSON schemas"),
    "local": "No emulator: real processes on this machine",
    "manifests": "The rendered overlays against Kubernetes' JSON schemas, strictly; no cluster",
}  # fmt: skip
FAULTS = ("killed process", "what passes", "what lasts", "deployment that fails")
"""In the names of the tests that break something at a step."""

BESIDE = 2
"""Clouds at a time: as many as the machine that this is meant for has cores. The longest begin."""
LIMIT_S = 720

NOTES = """One process a cloud, two at a time; each says its day. Behind each endpoint answer two real serving
processes, whose list is compared with this machine's own API byte for byte. **No real account and no cluster was
used.**

{behind}

Not seen by any of them: how long a cloud really takes, its regional capacity, its identity service, image pulls."""


class Rehearsed(NamedTuple):
    """What one cloud's rehearsal said."""

    code: int
    seconds: float
    outcomes: dict[str, Counter[str]]
    """Test, in words → outcome → number of cases."""


def rehearse(file: Path) -> Rehearsed:
    """Run one cloud's rehearsal."""
    with tempfile.TemporaryDirectory() as folder:
        report, started = Path(folder) / "report.xml", perf_counter()
        command = [HOME / ".venv" / "cloud" / "bin" / "python", "-m", "pytest", "--confcutdir=tests/clouds", "-q",
                   "-p", "no:cacheprovider", f"--junitxml={report}", str(file.relative_to(HOME))]  # fmt: skip
        done = subprocess.run(command, cwd=HOME, check=False)
        seconds = perf_counter() - started
        cases = list(ElementTree.parse(report).iter("testcase"))
    outcomes: dict[str, Counter[str]] = {}
    for case in cases:
        name = case.attrib["name"].split("[")[0].removeprefix("test_").replace("_", " ")
        bad = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        outcomes.setdefault(name, Counter())[bad] += 1
    return Rehearsed(done.returncode, seconds, outcomes)


def rows_of(cloud: str, said: Rehearsed, day: str) -> list[dict[str, Any]]:
    """Return the sum of a cloud's rehearsal, then each test."""
    every, broken = Counter[str](), Counter[str]()
    for name, counted in said.outcomes.items():
        every += counted
        if any(word in name for word in FAULTS):
            broken += counted
    sums = [(f"**{cloud}**", "all pass", f"{told(every)} in {said.seconds:.0f} s on {day}")]
    if broken:
        sums.append((f"{cloud}: faults at a step", "at least 60 cases, all pass", told(broken)))
    each = [(f"{cloud}: {name}", "all pass", told(counted)) for name, counted in said.outcomes.items()]
    return [
        {"measure": measure, "target": target, "measured": measured, "command": f"{COMMAND} {cloud}"}
        for measure, target, measured in sums + each
    ]


def told(counted: Counter[str]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items()))


def pins() -> dict[str, str]:
    """Return the versions in the clouds' environment."""
    locks = (HOME / "requirements" / "cloud-test.txt", HOME / "requirements" / "cloud.txt")
    return {
        name: version
        for lock in locks if lock.exists()
        for name, version in re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==(\S+)", lock.read_text(), re.MULTILINE)
    }  # fmt: skip


def published(clouds: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows that stand there of these clouds; of no cloud ("") that of the last run of all."""
    file = FOLDER / "rehearsal.json"
    rows = json.loads(file.read_bytes())["rows"] if file.exists() else []
    return {cloud: [row for row in rows if row["command"] == f"{COMMAND} {cloud}".rstrip()] for cloud in clouds}


def main() -> int:
    parser = ArgumentParser(prog="python -m bench.rehearsal", description=__doc__)
    parser.add_argument("clouds", nargs="*", help="only these; default all")
    wanted = parser.parse_args().clouds or list(FILES)
    day, began = datetime.now(UTC).date().isoformat(), perf_counter()
    running = sorted(wanted, key=LONGEST.index)
    with ThreadPoolExecutor(BESIDE) as pool:
        said = dict(zip(running, pool.map(lambda cloud: rehearse(FILES[cloud]), running), strict=True))
    seconds = perf_counter() - began
    found = published(set(FILES) - set(said)) | {cloud: rows_of(cloud, each, day) for cloud, each in said.items()}
    rows = [row for cloud in ORDER for row in found[cloud]]
    if set(said) == set(FILES):
        verdict = "met" if seconds <= LIMIT_S else "missed"
        whole = {"measure": f"all {len(said)} of them, {BESIDE} at a time", "target": f"at most {LIMIT_S} s on 2 cores",
                 "measured": f"{seconds:.0f} s on {day}: {verdict}", "command": COMMAND}  # fmt: skip
        rows.insert(0, whole)
    else:
        rows = published([""])[""] + rows
    behind = "\n".join(f"- **{cloud}**: {BEHIND[cloud].format(**pins())}." for cloud in ORDER if found[cloud])
    publish("rehearsal", "Rehearsal of the clouds", rows, NOTES.format(behind=behind))
    return max(each.code for each in said.values())


if __name__ == "__main__":
    sys.exit(main())
