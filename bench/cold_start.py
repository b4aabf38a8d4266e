"""What is new: items that nobody has used, and users of whom little is known. Beauty and Toys, leave-one-out, full
ranking; writes docs/results/cold_start.md.

    python -m bench.cold_start SEQUENCES ITEMS [--data beauty|toys] [--only items|users|text] [--seed 1]
        [--cache FOLDER]

The files and the protocol are those of bench/generative.py: trained on all but each user's last two items, asked with
the validation item behind the training part, all items ranked but those of the history, the test read once. For `items`
a tenth of the catalogue, drawn at random, is taken out of the training part; those users whose test item is one of them
make the cold figure, the others the warm one. For `users` everybody is asked for by the history alone, as somebody whom
training has not seen, and told apart by how long that is; of some the history is hidden altogether.
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
from bench.generative import texts
from recsys.metrics import paired_bootstrap
from training.benchmark.formats import read
from training.benchmark.protocol import Asked, Split, hold_out, judge
from training.cost import cpu_seconds
from training.dataset import TrainingData
from training.evaluate import BUCKETS
from training.model import Workplace, module_of
from training.models import text_encoder

NAME, TITLE = "cold_start", "New items and new users on Beauty and Toys, leave-one-out, full ranking"
COMMAND = "python -m bench.cold_start SEQUENCES ITEMS"
COLD_SHARE = 0.1
FACTORS = {"unobserved_ratio": 20.0, "reg": 0.01, "half_life_days": 1e6}
MOST_ASKED = 2500
"""Users of a bucket."""
TEXT = text_encoder.__name__.rsplit(".", 1)[-1]
METRICS = ("recall@10", "ndcg@10")
NOTES = """\
**Protocol.** As docs/results/sequence.md. The share of new items in the lists (`cold_scale`) was chosen between 1 and
1.5, which were measured on validation items with another tenth held out (training/models/content_ials.py); the test was
read at the choice and at 1.6. Models that know ids only give a new item no score of its own, so their cold figure is 0
by construction. All settings are those chosen on Beauty; Toys' test was read once a row. Beauty's rows of new items are
of 2026-11-29.

**Blended opinions.** In no bucket is the blend told from the better of its opinions. Its weights are those that make
the next item likeliest; since that gives popularity more than ten places bear, it steps back, knot by knot, to the
share under which the first places of users held out of training hold most (training/models/hybrid.py). Factors of
users by the history alone had half of this recall before, .0236, .0196 and .0550, by steps that overshot where data
are sparse (training/encoders.py), and the blend .0824, .0580 and .0461.

**Warm** in the rows with new items is the same model on the other users. These are the factors of iALS, which on Beauty
stand far behind `sasrec` (.0843 alone, .0940 as three networks): held against that, the cold figure is a little more
than half. LIGER's cold figure (of Beauty) is not reached there; the nearer of the two costs the known items a tenth."""


def part(asked: Asked, chosen: np.ndarray) -> Asked:
    """Return some of the users who are asked, each with one relevant item."""
    return Asked(asked.users[chosen], np.arange(chosen.sum() + 1), asked.items[chosen])


def without(data: TrainingData, dropped: np.ndarray) -> TrainingData:
    """Return the data without these rows."""
    return replace(data, users=data.users[~dropped], items=data.items[~dropped], instants=data.instants[~dropped])


def fitted(name: str, settings: dict[str, Any], data: TrainingData, seed: int, place: Workplace) -> tuple[Any, float]:
    module, begun = module_of(name), cpu_seconds()
    model = module.fit(data, module.Config(**settings), seed, place)
    return model, cpu_seconds() - begun


def shown(values: dict[str, float]) -> str:
    return " / ".join(f"{values[metric]:.4f}" for metric in METRICS)


def row(measure: str, target: str, measured: str, **more: Any) -> dict[str, Any]:
    return {"measure": measure, "target": target, "measured": measured, "command": COMMAND, **more}


def items(split: Split, rest: TrainingData, seed: int, place: Workplace) -> list[dict[str, Any]]:
    """Ids alone beside ids and texts, first with all items known, then with a tenth of them new."""
    rows, judged = [], {}
    for name in ("ials", "content_ials"):
        model, spent = fitted(name, FACTORS, rest, seed, place)
        judged[name] = judge(model, split.train, split.asked)
        measured = f"{shown(judged[name].overall)}; {spent:.0f} CPU-s"
        rows.append(row(f"all items known: {name}", "none", measured))
    ours, ids = (judged[name].per_user["recall@10"] for name in ("content_ials", "ials"))
    difference, low, high = paired_bootstrap(ours, ids, seed)
    ratio = ours.mean() / ids.mean() - 1
    measured = f"recall@10 {ratio:+.1%}: {difference:+.4f} [{low:+.4f}, {high:+.4f}]"
    rows.append(row("id + text over id alone, all items known", "+3 %", measured))

    is_cold = np.zeros(rest.n_items, bool)
    is_cold[np.random.default_rng([seed, 41]).permutation(rest.n_items)[: round(COLD_SHARE * rest.n_items)]] = True
    data = without(rest, is_cold[rest.items])
    known = without(split.train, is_cold[split.train.items])
    able = np.isin(split.asked.users, data.users)
    for name, settings in (
        ("ials", FACTORS),
        ("content_ials", FACTORS),
        ("content_ials", FACTORS | {"cold_scale": 1.6}),
        (TEXT, {"popularity_weight": 0.02}),
    ):
        model, spent = fitted(name, settings, data, seed, place)
        target_is_cold = is_cold[split.asked.items]
        cold, warm = (
            judge(model, known, part(split.asked, able & chosen)).overall
            for chosen in (target_is_cold, ~target_is_cold)
        )
        share = cold["recall@10"] / warm["recall@10"]
        more = f", cold_scale {settings['cold_scale']}" if "cold_scale" in settings else ""
        rows.append(
            row(
                f"a tenth of the items new: {name}{more}",
                "cold recall@10 ≥ half of warm; LIGER's cold .1008",
                f"cold {shown(cold)}, warm {shown(warm)}, share {share:.0%}; {spent:.0f} CPU-s",
                settings=settings,
            )
        )
    return rows


def users(split: Split, rest: TrainingData, seed: int, place: Workplace) -> list[dict[str, Any]]:
    """Opinions apart and blended, by how much is known of a user."""
    rows, rng, lengths = [], np.random.default_rng([seed, 53]), np.bincount(split.train.users)[split.asked.users]
    asked = {"0": rng.permutation(len(lengths))[:MOST_ASKED]}
    for name, (least, most) in BUCKETS.items():
        inside = rng.permutation(np.flatnonzero((lengths >= max(least, 1)) & (lengths <= most)))
        asked.setdefault(name, inside[:MOST_ASKED])
    values: dict[str, dict[str, np.ndarray]] = {}
    for name, settings in (("mf", {}), (TEXT, {"popularity_weight": 0.02}), ("hybrid", {})):
        model, spent = fitted(name, settings, rest, seed, place)
        said, values[name] = [], {}
        for bucket, places in asked.items():
            wanted = part(split.asked, np.isin(np.arange(len(lengths)), places))
            known = split.train
            if bucket == "0":  # judged as somebody without a history: what is popular, whatever the model
                known = without(known, np.isin(known.users, wanted.users))
            judged = judge(Folded(model), known, wanted)
            values[name][bucket] = judged.per_user["recall@10"]
            said.append(f"{bucket} ({len(places)}): {shown(judged.overall)}")
        rows.append(row(f"users by what is known of them: {name}", "none", f"{'; '.join(said)}; {spent:.0f} CPU-s"))
    for bucket in list(asked)[1:]:
        best = max(("mf", TEXT), key=lambda name: values[name][bucket].mean())
        difference, low, high = paired_bootstrap(values["hybrid"][bucket], values[best][bucket], seed)
        measured = f"recall@10 {difference:+.4f} [{low:+.4f}, {high:+.4f}] beside {best}"
        measured += ": MISSED" if high < 0 else ": met"
        rows.append(row(f"blend over the better of its opinions, {bucket} known", "not below", measured))
    return rows


class Folded:
    """A model that is asked by history alone, as a user unseen in training is."""

    def __init__(self, model: Any):
        self.score = model.score


def text(split: Split, rest: TrainingData, seed: int, place: Workplace) -> list[dict[str, Any]]:
    """The sentence encoder as it came, and tuned on what is used together."""
    rows = []
    for name, settings in ((TEXT, {"popularity_weight": 0.02}), ("contrastive_text", {})):
        model, spent = fitted(name, settings, rest, seed, place)
        measured = f"{shown(judge(model, split.train, split.asked).overall)}; {spent:.0f} CPU-s"
        rows.append(row(f"texts alone: {name}", "none", measured, settings=settings))
    return rows


def of_data(one: dict[str, Any], data: str, name: str) -> dict[str, Any]:
    """Return a row that says of which data and part it is."""
    more = "" if data == "beauty" else f" --data {data}"
    measure = one["measure"] if data == "beauty" else f"{data.capitalize()}, {one['measure']}"
    return {**one, "measure": measure, "command": f"{COMMAND}{more} --only {name}", "data": data, "part": name}


PARTS = {"items": items, "users": users, "text": text}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cold_start", description=__doc__.splitlines()[0])
    parser.add_argument("sequences", type=Path)
    parser.add_argument("items", type=Path)
    parser.add_argument("--data", choices=("beauty", "toys"), default="beauty")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="folder of encoded texts and checkpoints")
    parser.add_argument("--only", choices=sorted(PARTS))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    split = read(arguments.sequences, None, "sequence")
    rest, _ = hold_out(split, arguments.seed)
    rest = replace(rest, texts=texts(arguments.items, split.item_ids))
    written = results.FOLDER / f"{NAME}.json"
    with TemporaryDirectory() as scratch:
        place = Workplace(1, arguments.cache or Path(scratch))
        for name in [arguments.only] if arguments.only else PARTS:
            rows = [of_data(one, arguments.data, name) for one in PARTS[name](split, rest, arguments.seed, place)]
            kept = json.loads(written.read_text())["rows"] if written.exists() else []
            key = arguments.data, name
            rows += [old for old in kept if (old.get("data", "beauty"), old["part"]) != key]
            rows.sort(key=lambda one: (list(PARTS).index(one["part"]), one.get("data", "beauty")))
            results.publish(NAME, TITLE, rows, NOTES)
            print(json.dumps(rows), flush=True)


if __name__ == "__main__":
    main()
