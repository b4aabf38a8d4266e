"""Runs the rehearsal of the clouds and publishes what passed.

make rehearse && python -m bench.rehearsal
"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from bench.results import publish
from recsys.settings import HOME

FILES = sorted(str(path.relative_to(HOME)) for path in (HOME / "tests" / "clouds").glob("rehearse_*.py"))
COMMAND = "python -m bench.rehearsal"

NOTES = """AWS: SageMaker's SDK 3.27.0 over HTTP against moto 5.2.5 with the additions of
`tests/clouds/aws_emulator.py`; two real serving processes answer behind the endpoint. No real account was used.
Kubernetes: the rendered overlays against the JSON schemas of Kubernetes 1.37, strictly; no cluster was used.
Vertex AI and Azure ML are not there yet."""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        python = HOME / ".venv" / "cloud" / "bin" / "python"
        done = subprocess.run(
            [python, "-m", "pytest", "--confcutdir=tests/clouds", "-p", "no:cacheprovider", "-q",
             f"--junitxml={report}", *FILES],
            cwd=HOME,
            check=False,
        )  # fmt: skip
        cases = list(ElementTree.parse(report).iter("testcase"))
    outcomes: dict[str, Counter[str]] = {}
    for case in cases:
        name = case.attrib["name"].split("[")[0].removeprefix("test_").replace("_", " ")
        bad = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        outcomes.setdefault(name, Counter())[bad] += 1
    rows = [
        {
            "measure": name,
            "target": "all pass",
            "measured": ", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items())),
            "command": COMMAND,
        }
        for name, counted in outcomes.items()
    ]
    publish(
        "rehearsal",
        "Rehearsal of the clouds",
        rows,
        NOTES,
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
