"""Runs the tests of the container's limits and publishes what they measured, each beside the cloud's limit.

python -m bench.container_limits
"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.results import publish
from recsys.settings import HOME

COMMAND = "python -m bench.container_limits"
TESTS = "tests/clouds/test_container_limits.py"
NOTES = """The serving process as SageMaker starts it (`serve`), with a Redis and a Kafka that take connections and
never answer: the worst case. The tests of `tests/clouds/test_container_limits.py` measure and judge; this page is their
report. The largest request: 100 users, 1 000 items each, in 1.5 MB. SageMaker gives an answer 60 s, Azure ML 5 s as
`infra/azure` sets it: the shorter one counts. How long a pulled image needs to be ready: [image](image.md)."""


def rows_of(report: Path) -> Iterator[dict[str, Any]]:
    """Yield a row a measure, then one of all tests by their outcome."""
    passed, others = 0, []
    for case in ElementTree.parse(report).iter("testcase"):
        bad = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), None)
        passed += bad is None
        others += [f"{case.attrib['name']}: {bad}"] if bad else []
        for each in case.iter("property"):
            seconds, limit = each.attrib["value"].split(" of ")
            verdict = "met" if float(seconds) < float(limit) else "missed"
            yield row(each.attrib["name"], f"less than {limit} s", f"{seconds} s: {verdict}")
    told = f"{passed} passed{''.join(f', {each}' for each in others)}: {'missed' if others else 'met'}"
    yield row(f"`{TESTS}`, one byte more than 1.5 MB refused in words among them", "all pass", told)


def row(measure: str, target: str, measured: str) -> dict[str, Any]:
    return {"measure": measure, "target": target, "measured": measured, "command": COMMAND}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", TESTS]
        code = subprocess.run([sys.executable, *tests], cwd=HOME, check=False).returncode
        rows = list(rows_of(report))
    publish("container_limits", "The serving container and the clouds' limits", rows, NOTES)
    return code


if __name__ == "__main__":
    sys.exit(main())
