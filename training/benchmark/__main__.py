"""Train on a public split, tune on a part of its training file alone, judge once on its test file (docs/benchmark.md).

python -m training.benchmark --train FILE [--test FILE] --format lightgcn|ncf|sequence --model NAME|best
    [--budget-s 600] [--seed 1] [--threads 1] [--per-user FILE.parquet] --out result.json
"""

import argparse
import json
import math
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from recsys import station
from recsys.artifacts import MODEL_ZOO
from recsys.errors import RecsysError, UnusableInput

STARTED = perf_counter()
BEST = "best"
MEMORY_GIB = 7.5
"""A process that takes more is ended: the promise is 8 GiB."""


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m training.benchmark", description=__doc__.splitlines()[0])
    root.add_argument("--train", type=Path, required=True)
    root.add_argument("--test", type=Path, help="not with --format sequence: the last item of each line is the test")
    root.add_argument("--format", required=True, help="lightgcn, ncf or sequence")
    root.add_argument("--model", required=True, help=f"{BEST} (validation chooses), or one of {', '.join(MODEL_ZOO)}")
    root.add_argument("--config", default="", help="JSON: settings of the model that are given, not tuned")
    root.add_argument("--budget-s", type=float, default=600.0, help="wall seconds of the whole command, a hard promise")
    root.add_argument("--seed", type=int, default=1)
    root.add_argument("--threads", type=int, default=1)
    root.add_argument("--out", type=Path, required=True)
    root.add_argument("--per-user", type=Path, help="Parquet file for the value of each test user and metric")
    return root


def main() -> dict:
    arguments = parser().parse_args()
    _check(arguments)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # read at the import of NumPy, torch
        os.environ[name] = str(arguments.threads)

    from training.benchmark.report import benchmark

    with TemporaryDirectory() as cache:
        result = benchmark(arguments, STARTED, Path(cache), MEMORY_GIB * 2**30)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    return {"model": result["model"], "out": str(arguments.out), **result["metrics"]}


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be meant, before anything is read.

    Raises:
        RecsysError: an argument is no use.
    """
    if arguments.model not in (BEST, *MODEL_ZOO):
        raise RecsysError("MODEL", arguments.model, f"Choose {BEST} or one of {', '.join(MODEL_ZOO)}")
    if arguments.config and arguments.model == BEST:
        raise RecsysError("CONFIG", arguments.config, "Name one model: the settings are of one")
    if not (math.isfinite(arguments.budget_s) and arguments.budget_s > 0):
        raise RecsysError("BUDGET_S", arguments.budget_s, "It must be a number of seconds above zero")
    if arguments.threads < 1 or arguments.seed < 0:
        raise RecsysError("threads and seed", f"{arguments.threads}, {arguments.seed}", "At least 1, and at least 0")
    for path in filter(None, (arguments.out, arguments.per_user)):
        if not path.parent.is_dir() or path.is_dir():
            raise UnusableInput("result file", path, "Its folder must be there, and it must not be a folder itself")


if __name__ == "__main__":
    station.run(main)
