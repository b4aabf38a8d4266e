"""Two tasks at once on MovieLens 1M, what is watched and what is liked; writes docs/results/multitask.md.

    python -m bench.multitask FOLDER [--ratings 60000] [--seed 1]

FOLDER holds ratings.csv.gz, users.dat.gz and movies.dat.gz. A rating stands for a click, and for each one a film that
the user never rated is drawn as what was shown and not clicked. A click of 4 stars or more is a conversion, one of 1 to
3 is none, and what was not clicked says nothing of it. 80 % training, 10 % validation, 10 % test, at random, a rating
and the film drawn for it in the same part. MMoE learns both; beside it the same network with one expert that both
tasks share (a shared bottom), and the same network for each task alone. Number of epochs: by the validation part.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import results
from bench.ranking import inputs
from recsys.metrics import paired_bootstrap
from training.cost import cpu_seconds
from training.ranker import Examples, auc, calibration_error
from training.rankers import mmoe

NAME, TITLE = "multitask", "Click and conversion at once (MMoE) on MovieLens 1M"
COMMAND = "python -m bench.multitask FOLDER"
TASKS = ("click", "conversion")
NOTES = """\
**Task.** A rating is a click, a rating of 4 or more a conversion; for each click one film that the user did not rate is
drawn evenly, so that the click AUC is that of a drawn sample and mostly tells popular films from others. Splits are
random, as in docs/results/ranking.md. The difference in log loss to the task's own network has a paired bootstrap
interval over the test examples; below zero the shared network is better. The test has 6 000 clicks, of each tenth of
which the share of conversions is known to about .02: a calibration error of .01 cannot be told from .02 there."""


def examples(folder: Path, ratings: int, seed: int) -> Examples:
    """Return clicks and, behind each, what was drawn for it: `ratings` of each. labels (2 R, 2)"""
    table = pd.read_csv(folder / "ratings.csv.gz", usecols=["UserID", "MovieID", "Rating"])
    rng = np.random.default_rng([seed, 5])
    films = np.unique(table["MovieID"])
    seen = set(zip(table["UserID"], table["MovieID"], strict=True))
    chosen = table.iloc[rng.permutation(len(table))[:ratings]]
    drawn = []
    for user in chosen["UserID"]:
        film = rng.choice(films)
        while (user, film) in seen:
            film = rng.choice(films)
        drawn.append(film)
    users = np.repeat(chosen["UserID"].to_numpy(), 2)
    shown = np.stack([chosen["MovieID"].to_numpy(), drawn], 1).ravel()
    labels = np.full((len(users), 2), np.nan, np.float32)
    labels[:, 0] = np.tile([1, 0], len(chosen))
    labels[::2, 1] = chosen["Rating"] >= 4
    return Examples(np.zeros((len(users), 0), np.float32), labels, inputs(folder, users, shown))


def of_task(part: Examples, task: int) -> Examples:
    """Return the examples that a task knows, with its label alone."""
    known = part.rows(np.flatnonzero(np.isfinite(part.labels[:, task])))
    return Examples(known.numbers, known.labels[:, task], known.categories)


def losses(probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return -log of what was said of what happened. (n,)"""
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return -np.where(labels > 0.5, np.log(p), np.log1p(-p))


def measured(said: list[np.ndarray], alone: list[np.ndarray], tested: Examples, cost: str, seed: int) -> str:
    """Put both tasks' figures into words. `said`, `alone`: probabilities of the examples that each task knows."""
    told = []
    for task, name in enumerate(TASKS):
        labels = of_task(tested, task).labels
        words = f"{name} AUC {auc(said[task], labels):.4f}, calibration error "
        words += f"{calibration_error(said[task], labels):.4f}"
        if said is not alone:
            gap, low, high = paired_bootstrap(losses(said[task], labels), losses(alone[task], labels), seed)
            words += f", log loss to its own network {gap:+.4f} [{low:+.4f}, {high:+.4f}]"
        told.append(words)
    return "; ".join(told) + cost


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND.rsplit(" ", 1)[0], description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ratings", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    every = examples(arguments.folder, arguments.ratings, arguments.seed)
    pairs = np.random.default_rng(arguments.seed).permutation(len(every) // 2)
    tested, tried, train = (
        every.rows((2 * part[:, None] + [0, 1]).ravel())
        for part in np.split(pairs, [len(pairs) // 10, len(pairs) // 5])
    )
    begun, alone = cpu_seconds(), []
    for task in range(len(TASKS)):
        parts = (of_task(part, task) for part in (train, tried))
        alone.append(mmoe.fit(*parts, mmoe.Config(), arguments.seed, 1).predict(of_task(tested, task)))
    rows: list[dict[str, Any]] = []

    def told(name: str, said: list[np.ndarray], target: str) -> None:
        cost = f"; {cpu_seconds() - begun:.0f} CPU-s, seed {arguments.seed}, threads 1"
        text = measured(said, alone, tested, cost, arguments.seed)
        rows.append({"measure": name, "target": target, "measured": text, "command": COMMAND})
        print(json.dumps(rows[-1]), flush=True)

    told(f"a network for each task, {arguments.ratings} clicks", alone, "none")
    for name, config in (("shared bottom", mmoe.Config(experts=1)), ("mmoe", mmoe.Config())):
        begun = cpu_seconds()
        probabilities = mmoe.fit(train, tried, config, arguments.seed, 1).predict(tested)
        known = np.isfinite(tested.labels)
        both = [probabilities[known[:, task], task] for task in range(len(TASKS))]
        told(name, both, "calibration error ≤ .01; no task worse than alone" if name == "mmoe" else "none")
    results.publish(NAME, TITLE, rows, NOTES)


if __name__ == "__main__":
    main()
