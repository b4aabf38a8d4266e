"""The collaborative filters in PyTorch on the splits that their papers' tables were made with, by training.benchmark.

    python -m bench.collaborative FIGURE DATA_DIR [--seed 1] [--result FILE]

DATA_DIR holds the folders ncf-ml-1m and ultragcn-ml-1m with the files as published, packed. Each figure is one fit
with settings that were chosen on validation parts of the training file
(docs/decisions/0014-collaborative-filters.md), so that the benchmark has nothing to tune and reads the test once.
`--result` publishes what such a run has written before.

A row of docs/results/collaborative.md is replaced when it is measured anew; the others stay.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import results

NAME, TITLE = "collaborative", "Collaborative filters in PyTorch on published splits"
FULL = ("recall@20", "ndcg@20")
SAMPLED = ("hit_rate@10", "ndcg@10")
SPLITS = {
    "ultragcn-ml-1m": ("lightgcn", "train.txt.gz", "test.txt.gz", FULL),
    "ncf-ml-1m": ("ncf", "ml-1m.train.rating.gz", "ml-1m.test.rating.gz", SAMPLED),
}
"""Format, training file, test file, metrics."""


@dataclass(frozen=True)
class Figure:
    model: str
    split: str
    target: str
    config: dict[str, Any] = field(default_factory=dict)
    note: str = ""


MF_TARGET, NEUMF_TARGET = ".7294 / .4523, beyond .735 / .457", ".7093 / .4349"
FIGURES = {
    "lightgcn": Figure("lightgcn", "ultragcn-ml-1m", ".2787 / .2642, and above EASE's .2753 / .2647"),
    "mf": Figure("mf", "ncf-ml-1m", MF_TARGET, note="order of events used"),
    "mf_unordered": Figure(
        "mf",
        "ncf-ml-1m",
        MF_TARGET,
        {"recency_exponent": 0.0, "embedding_size": 128, "reg": 0.03},
        "order of events not used, as in Rendle et al.",
    ),
    "neumf": Figure("neumf", "ncf-ml-1m", NEUMF_TARGET, note="order of events used"),
    "neumf_unordered": Figure(
        "neumf", "ncf-ml-1m", NEUMF_TARGET, {"recency_exponent": 0.0}, "order of events not used, as in He et al."
    ),
}


def measure(figure: Figure, data: Path, seed: int, out: Path) -> dict[str, Any]:
    """Run the benchmark's command and return what it wrote."""
    form, train, test, _ = SPLITS[figure.split]
    files = [f"--train={data / figure.split / train}", f"--test={data / figure.split / test}", f"--format={form}"]
    rest = [f"--model={figure.model}", f"--config={json.dumps(figure.config)}", f"--seed={seed}", f"--out={out}"]
    subprocess.run([sys.executable, "-m", "training.benchmark", *files, *rest], check=True)
    return json.loads(out.read_text())


def row_of(name: str, measured: dict[str, Any]) -> dict[str, Any]:
    figure = FIGURES[name]
    metrics = SPLITS[figure.split][3]
    values = " / ".join(f"{measured['metrics'][metric]:.4f}" for metric in metrics)
    kept = ("metrics", "hyper_parameters", "seed", "threads", "cpu_seconds", "fit_cpu_seconds", "peak_rss_bytes")
    return {
        "measure": f"{figure.model}, {figure.split}, {' / '.join(metrics)}{', ' if figure.note else ''}{figure.note}",
        "target": figure.target,
        "measured": f"{values}; {measured['cpu_seconds']:.0f} CPU-s, the fit {measured['fit_cpu_seconds']:.0f}; "
        f"{measured['peak_rss_bytes'] / 2**20:.0f} MiB; seed {measured['seed']}",
        "command": f"python -m bench.collaborative {name} DATA_DIR",
        **{key: measured[key] for key in kept},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.collaborative", description=__doc__.splitlines()[0])
    parser.add_argument("figure", choices=sorted(FIGURES))
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--result", type=Path, help="what an earlier run of the same settings has written")
    arguments = parser.parse_args()
    if arguments.result:
        measured = json.loads(arguments.result.read_text())
        for key, value in FIGURES[arguments.figure].config.items():
            if measured["hyper_parameters"][key] != value:
                raise ValueError(f"{key} is {measured['hyper_parameters'][key]} in {arguments.result}, not {value}")
    else:
        with TemporaryDirectory() as scratch:
            out = Path(scratch) / "result.json"
            measured = measure(FIGURES[arguments.figure], arguments.data_dir, arguments.seed, out)
    row = row_of(arguments.figure, measured)
    written = results.FOLDER / f"{NAME}.json"
    others = json.loads(written.read_text())["rows"] if written.exists() else []
    rows = [*(old for old in others if old["measure"] != row["measure"]), row]
    results.publish(NAME, TITLE, sorted(rows, key=lambda one: one["measure"]))
    print(json.dumps(row))


if __name__ == "__main__":
    main()
