"""Full ranking and all metrics, top-20 for every test user of KGAT's Amazon-book; writes docs/results/evaluation.md.

    python -m bench.evaluation FOLDER

FOLDER holds `kgat-amazon-book`. The model is a table of 64 factors drawn at random: what is measured is the judge.
"""

import sys
from pathlib import Path
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

from bench.results import publish
from training.benchmark.formats import read
from training.benchmark.protocol import judge
from training.cost import cpu_seconds, peak_rss_bytes

FACTORS = 64


class Factors:
    """Scores by the product of two random tables."""

    def __init__(self, n_users: int, n_items: int):
        rng = np.random.default_rng(1)
        self.users, self.items = (rng.normal(size=(n, FACTORS)).astype(np.float32) for n in (n_users, n_items))

    def score_users(self, users: np.ndarray) -> np.ndarray:
        return self.users[users] @ self.items.T  # (B, I)


def main() -> None:
    folder = Path(sys.argv[1]) / "kgat-amazon-book"
    with threadpool_limits(1):
        split = read(folder / "train.txt.gz", folder / "test.txt.gz", "lightgcn")
        model = Factors(len(split.user_ids), split.train.n_items)
        started, cpu = perf_counter(), cpu_seconds()
        judge(model, split.train, split.asked)
        wall, cpu = perf_counter() - started, cpu_seconds() - cpu
    gib = peak_rss_bytes() / 2**30
    asked = f"{len(split.asked.users)} users × {split.train.n_items} items"
    row = {
        "measure": f"top-20 and all metrics, {asked}",
        "target": "never users × items, ≤ 1 GiB; beyond: 10 s",
        "measured": f"{cpu:.1f} CPU s in one thread ({wall:.1f} s of wall time on a shared machine), {gib:.2f} GiB",
        "command": "python -m bench.evaluation FOLDER",
    }
    publish("evaluation", "Evaluation by full ranking", [row])
    print(row)


if __name__ == "__main__":
    main()
