"""A cross-encoder on top of a retriever, on S3-Rec's Beauty; writes docs/results/rerank.md.

    python -m bench.rerank SEQUENCES ITEMS [--lists 400] [--asked 250] [--seed 1] [--cache FOLDER]

The files and the split are those of bench/generative.py. `content_ials`, trained on all but each user's last two items,
proposes 20 items; the cross-encoder learns on users whose validation item is among them, chooses its weight on some of
those, and is asked about other users whose test item is among their 20. Only such lists can change: over all users the
difference is that of these lists times the retriever's recall@20.
"""

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench import results
from bench.cold_start import FACTORS
from bench.generative import texts
from recsys.metrics import paired_bootstrap
from recsys.retriever import top_k
from training.benchmark.formats import read
from training.benchmark.protocol import Asked, hold_out, scored
from training.cost import cpu_seconds
from training.dataset import TrainingData
from training.model import Workplace
from training.models import content_ials
from training.rankers import cross_encoder

NAME, TITLE = "rerank", "A cross-encoder re-ranks a retriever's lists on Beauty"
COMMAND = "python -m bench.rerank SEQUENCES ITEMS"
CANDIDATES, K = 20, 10
NOTES = """\
**Protocol.** Only users whose next item is among the retriever's 20 are asked: no order of the others' lists is better
than another. The weight of what the network says beside the retriever's score was chosen on validation lists that it
was not trained on; a weight of 0 means that reading did not help there. Two layers of the checkpoint, one epoch; the
test was read once. The seconds leave out the retriever."""


def lists_of(model: Any, data: TrainingData, asked: Asked) -> cross_encoder.Lists:
    """Return the lists of those whose item is among the first `CANDIDATES`."""
    rows, candidates, scores = [], [], []
    for block, values, user, seen in scored(model, data, asked):
        values[user, seen] = -np.inf
        items, best = top_k(values, CANDIDATES)
        candidates.append(items)
        scores.append(best)
        rows.append(asked.users[block])
    users, candidates, scores = (np.concatenate(part) for part in (rows, candidates, scores))
    starts = np.searchsorted(data.users, np.arange(users.max() + 2))
    histories = [data.items[starts[user] : starts[user + 1]] for user in users]
    every = cross_encoder.Lists(histories, candidates, scores, asked.items)
    return every.rows(np.flatnonzero((candidates == asked.items[:, None]).any(1)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rerank", description=__doc__.splitlines()[0])
    parser.add_argument("sequences", type=Path)
    parser.add_argument("items", type=Path)
    parser.add_argument("--lists", type=int, default=400)
    parser.add_argument("--asked", type=int, default=250)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="folder of encoded texts")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    split, rng = read(arguments.sequences, None, "sequence"), np.random.default_rng([arguments.seed, 59])
    rest, validation = hold_out(split, arguments.seed)
    said = texts(arguments.items, split.item_ids)
    with TemporaryDirectory() as scratch:
        place = Workplace(1, arguments.cache or Path(scratch))
        config = content_ials.Config(**FACTORS)
        retriever = content_ials.fit(replace(rest, texts=said), config, arguments.seed, place)
    learnt, tested = (lists_of(retriever, *parts) for parts in ((rest, validation), (split.train, split.asked)))
    learnt = learnt.rows(rng.permutation(len(learnt))[: arguments.lists * 4 // 3])
    recall = len(tested) / len(split.asked.users)
    tested = tested.rows(rng.permutation(len(tested))[: arguments.asked])
    begun = cpu_seconds()
    config = cross_encoder.Config(lists=arguments.lists, validation_lists=arguments.lists // 4)
    model = cross_encoder.fit(learnt, said, config, arguments.seed, 1)
    trained = cpu_seconds()
    opinion = model.opinion(tested)
    asked = cpu_seconds() - trained
    orders = {
        "retriever alone": tested.candidates,
        f"with the cross-encoder, weight {model.weight:g}": order(
            tested, model.combined(tested, opinion, model.weight)
        ),
        "cross-encoder alone": order(tested, opinion),
    }
    values = {name: cross_encoder.quality(listed, tested.targets, K) for name, listed in orders.items()}
    plain, rows = values["retriever alone"], []
    for name, own in values.items():
        gap, low, high = paired_bootstrap(own, plain, arguments.seed)
        measured = f"ndcg@{K} {own.mean():.4f}"
        measured += "" if own is plain else f" ({gap:+.4f} [{low:+.4f}, {high:+.4f}]; over all {gap * recall:+.4f})"
        rows.append({"measure": name, "target": "none", "measured": measured, "command": COMMAND})
    rows[1]["measured"] += f"; {len(learnt)} lists learnt from or chosen on, {trained - begun:.0f} CPU-s; "
    rows[1]["measured"] += f"{len(tested)} asked, {1000 * asked / len(tested):.0f} CPU-ms a list of {CANDIDATES}; "
    rows[1]["measured"] += f"retriever's recall@{CANDIDATES} {recall:.4f}; seed {arguments.seed}, threads 1"
    results.publish(NAME, TITLE, rows, NOTES)
    print(json.dumps(rows))


def order(lists: cross_encoder.Lists, scores: np.ndarray) -> np.ndarray:
    """Return the candidates of each user by these scores, best first. (B, N)"""
    return np.take_along_axis(lists.candidates, np.argsort(-scores, axis=1, kind="stable"), axis=1)


if __name__ == "__main__":
    main()
