"""What variety and fair exposure cost, on NCF's MovieLens 1M by full ranking; writes docs/results/diversity.md.

    python -m bench.diversity FOLDER [--users 1500] [--seed 1]

FOLDER is the data folder with `benchmarks/ncf-ml-1m` and `movies/ml-1m`. EASE (reg 1000) retrieves 100 films for each
of some users; MMR and DPP make lists of 10 of them at several trade-offs, films alike by their genres. Then the films
outside the fifth that is used most are given a least share of the exposure. Each list is judged by the user's one test
film. Quality across groups of users (gender, age band) stands in the last rows: the worst over the best.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from time import process_time
from typing import Any

import numpy as np
import pandas as pd

from bench import results
from recsys import beyond_accuracy, diversity, fairness, metrics
from recsys.retriever import top_k
from training.benchmark.formats import read
from training.benchmark.protocol import Asked, scored
from training.model import Workplace
from training.models import ease

NAME, TITLE = "diversity", "What variety and fair exposure cost on MovieLens 1M, ndcg@10 by full ranking"
COMMAND = "python -m bench.diversity FOLDER"
CANDIDATES, K = 100, 10
TRADE_OFFS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5, 0.3, 0.1)
SHARES = (0.0, 0.05, 0.1, 0.2, 0.4)
NOTES = """\
**Protocol.** Trained on NCF's training file; of each user the test film is to be found among all films that the user
has not rated (not among 99 others). Diversity is the mean of 1 - cosine over all pairs of a list's films by genres, the
same likeness that MMR and DPP read: it shows what they are able to do, and no user was asked whether they liked it.
Trade-off 1 is the order of the scores. Intervals: paired bootstrap over users, against that order.

**Exposure** of a rank is 1 / log2(1 + rank); the share is what all lists give to films outside the fifth that is used
most, which have the stated share of the training events. Groups of fewer than 30 users are not told."""


def order_by(lists: list[np.ndarray], candidates: np.ndarray) -> np.ndarray:
    """Return the items at these positions of each user's candidates. (B, K)"""
    return np.stack([row[positions] for row, positions in zip(candidates, lists, strict=True)])


def found(listed: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return each user's ndcg@K of one wanted film. (B,)"""
    return metrics.ndcg_at_k(listed == wanted[:, None], np.ones(len(wanted), int), K)


def row(measure: str, measured: str, target: str = "none", **more: Any) -> dict[str, Any]:
    return {"measure": measure, "target": target, "measured": measured, "command": COMMAND, **more}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.diversity", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    benchmark = arguments.folder / "benchmarks" / "ncf-ml-1m"
    split = read(benchmark / "ml-1m.train.rating.gz", benchmark / "ml-1m.test.rating.gz", "ncf")
    model = ease.fit(split.train, ease.Config(reg=1000), arguments.seed, Workplace(1, Path(gettempdir())))
    rng = np.random.default_rng(arguments.seed)
    places = np.sort(rng.permutation(len(split.asked.users))[: arguments.users])
    wanted = split.asked.items[places]
    asked = Asked(split.asked.users[places], np.arange(len(places) + 1), wanted)
    candidates, scores = [], []
    for _, values, user, seen in scored(model, split.train, asked):
        values[user, seen] = -np.inf
        items, best = top_k(values, CANDIDATES)
        candidates.append(items)
        scores.append(best)
    candidates, scores = np.concatenate(candidates), np.concatenate(scores)
    genres, users = described(arguments.folder, split.item_ids)
    plain = found(candidates[:, :K], wanted)

    def told(lists: np.ndarray, seconds: float) -> tuple[str, dict[str, float]]:
        values = found(lists, wanted)
        varied = float(np.nanmean(beyond_accuracy.diversity_at_k(lists, genres, K)))
        gap, low, high = metrics.paired_bootstrap(values, plain, arguments.seed)
        text = f"ndcg@{K} {values.mean():.4f} ({gap:+.4f} [{low:+.4f}, {high:+.4f}]), diversity {varied:.4f}, "
        return text + f"{1000 * seconds / len(lists):.2f} CPU-ms a list", {"ndcg": values.mean(), "diversity": varied}

    rows = []
    methods: tuple[Callable, ...] = (diversity.mmr, diversity.dpp)
    for method in methods:
        for trade_off in TRADE_OFFS:
            began = process_time()
            lists = [method(own, genres[items], K, trade_off) for own, items in zip(scores, candidates, strict=True)]
            measured, values = told(order_by(lists, candidates), process_time() - began)
            rows.append(row(f"{method.__name__}, trade-off {trade_off:g}", measured, **values))
    rows += exposure_rows(candidates, scores, wanted, np.bincount(split.train.items, minlength=len(genres)), plain)
    rows += group_rows(plain, users, [split.user_ids[user] for user in asked.users])
    results.publish(NAME, TITLE, rows, NOTES)
    print(json.dumps(rows, default=float))


def described(folder: Path, item_ids: list[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the genres of NCF's items, float (I, G), and the users by NCF's number, which is MovieLens' less one."""
    options = {"sep": "::", "engine": "python", "header": None, "encoding": "latin-1"}
    films = pd.read_csv(folder / "movies" / "ml-1m" / "movies.dat.gz", names=["id", "title", "genres"], **options)
    users = pd.read_csv(
        folder / "movies" / "ml-1m" / "users.dat.gz", names=["id", "gender", "age", "occupation", "zip"], **options
    )
    numbers = pd.read_csv(folder / "benchmarks" / "ncf-ml-1m" / "item_map.csv.gz").set_index("iid")["MovieID"]
    names = films.set_index("id")["genres"].str.get_dummies("|")
    known = names.reindex(numbers.reindex([int(item) for item in item_ids])).fillna(0)
    return known.to_numpy(float), users.set_index(users["id"] - 1)


def exposure_rows(
    candidates: np.ndarray, scores: np.ndarray, wanted: np.ndarray, counts: np.ndarray, plain: np.ndarray
) -> list[dict[str, Any]]:
    """Measure what a least share of exposure for the films outside the most used fifth costs."""
    is_rare = np.ones(len(counts), bool)
    is_rare[np.argsort(-counts, kind="stable")[: len(counts) // 5]] = False
    merit = counts[is_rare].sum() / counts.sum()
    rows = []
    for least in SHARES:
        lists = [
            fairness.with_least_exposure(own, is_rare[items], K, least)
            for own, items in zip(scores, candidates, strict=True)
        ]
        listed = order_by(lists, candidates)
        share = fairness.exposure_shares(listed, is_rare.astype(int), 2)[1]
        gap, low, high = metrics.paired_bootstrap(found(listed, wanted), plain, 1)
        measured = f"share {share:.3f} (of the events {merit:.3f}), ndcg@{K} {found(listed, wanted).mean():.4f} "
        measured += f"({gap:+.4f} [{low:+.4f}, {high:+.4f}])"
        rows.append(row(f"films outside the most used fifth, at least {least:g} of the exposure", measured))
    return rows


def group_rows(values: np.ndarray, users: pd.DataFrame, ids: list[str]) -> list[dict[str, Any]]:
    """Tell the quality of each group of users."""
    own = users.loc[[int(name) for name in ids]]
    rows = []
    for name in ("gender", "age"):
        codes, kinds = pd.factorize(own[name], sort=True)
        means = fairness.quality_by_group(values, codes)
        told = ", ".join(f"{kinds[group]}: {mean:.4f}" for group, mean in means.items())
        ratio = fairness.worst_over_best(values, codes)
        rows.append(row(f"quality by {name}", f"ndcg@{K} {told}; worst over best {ratio:.2f}"))
    return rows


if __name__ == "__main__":
    main()
