"""The one evaluation: each written bundle answers the same test requests through the code that serves.

Full ranking over the catalogue less the user's own history, in blocks of users; per-user values are kept, so that every
difference between two models has a paired bootstrap interval. Beside being right, lists are judged by how evenly they
show the catalogue, how new, varied and surprising they are, and how well they fit the user's own mix of categories;
and the deciding metric is told apart by how much of a user is known.
"""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import beyond_accuracy, fairness, metrics
from recsys.artifacts import BASELINE_MODEL
from recsys.bundle import read_manifest
from recsys.retriever import Retriever
from training.dataset import Cut, Requests

BLOCK_SCORES = 8_000_000
"""Largest block of users × items that is scored at once: 32 MB."""
LIST_LENGTH = 20
TIMED_USERS = 300
DECIDING_METRIC = "ndcg_at_10"
BUCKETS = {"0": (0, 0), "1_to_5": (1, 5), "6_to_20": (6, 20), "over_20": (21, np.iinfo(np.int64).max)}
"""Name → least and most interactions that are known of a user."""
MOST_CATEGORIES = 256
"""The most frequent categories of the catalogue; what is rarer says nothing of variety or calibration."""
BLOCK_USERS = 500
RARE_SHARE = 0.2


@dataclass(frozen=True)
class Background:
    """What a list is held against, from the training part of a cut. I items, C categories."""

    counts: np.ndarray
    """Training users of each item. (I,)"""
    n_users: int
    popular: np.ndarray
    """The list that everybody would be shown. (1, K)"""
    categories: np.ndarray
    """Each item's shares of its categories, float32 (I, C); C is 0 where the catalogue has none."""

    @classmethod
    def of(cls, cut: Cut) -> "Background":
        data = cut.training_data()
        pairs = np.unique(data.users.astype(np.int64) * data.n_items + data.items)
        counts = np.bincount(pairs % data.n_items, minlength=data.n_items)
        popular = np.argsort(-counts, kind="stable")[None, :LIST_LENGTH]
        return cls(counts, len(np.unique(data.users)), popular, category_shares(cut.catalogue.categories))


def category_shares(listed: list[list[str]]) -> np.ndarray:
    """Return each item's shares of its `MOST_CATEGORIES` most frequent categories. float32 (I, C)"""
    frequency = Counter(name for names in listed for name in names)
    place = {name: column for column, (name, _) in enumerate(frequency.most_common(MOST_CATEGORIES))}
    shares = np.zeros((len(listed), len(place)), np.float32)
    for item, names in enumerate(listed):
        known = [place[name] for name in names if name in place]
        np.add.at(shares[item], known, 1 / max(len(known), 1))
    return shares


@dataclass(frozen=True)
class Quality:
    """How good a bundle is. B test requests."""

    per_user: dict[str, np.ndarray]
    """Metric → value of each request, NaN where it cannot be judged. (B,)"""
    overall: dict[str, float]
    """Their means, the coverage, and, where it was timed, the latency of one user's list in ms."""


def evaluate(
    bundle: Path,
    cut: Cut,
    requests: Requests,
    features: np.ndarray | None,
    threads: int,
    timed: bool = True,
    background: Background | None = None,
) -> Quality:
    """Judge a bundle on a cut's requests. The bundle may be of an older cut: items are matched by id.

    A target that the bundle's catalogue lacks counts as relevant and not found; history items it lacks are ignored.

    Args:
        features: user features of the requests in the order of `artifacts.USER_FEATURES` (B, F); None: all unknown.
        timed: measure the latency, too.
        background: of this cut, where several bundles are judged on it; otherwise it is made here.
    """
    retriever = Retriever(bundle, threads)
    to_bundle = np.array([retriever.index.get(item, -1) for item in cut.catalogue.item_id])  # (I,)
    histories = [known[known >= 0] for known in (to_bundle[history] for history in requests.histories)]
    if not retriever.manifest.user_features:
        features = None
    lists = recommend_all(retriever, histories, features)  # (B, k)

    targets = [to_bundle[target] for target in requests.targets]
    hits = np.array([np.isin(best, target[target >= 0]) for best, target in zip(lists, targets, strict=True)])  # (B, k)
    n_relevant = np.array([len(target) for target in targets])
    per_user = {
        "recall_at_20": metrics.recall_at_k(hits, n_relevant, 20),
        "ndcg_at_10": metrics.ndcg_at_k(hits, n_relevant, 10),
        "map_at_10": metrics.map_at_k(hits, n_relevant, 10),
        "hit_rate_at_10": metrics.hit_rate_at_k(hits, n_relevant, 10),
        "mrr_at_10": metrics.mrr_at_k(hits, n_relevant, 10),
        "precision_at_10": metrics.precision_at_k(hits, n_relevant, 10),
    }
    from_bundle = np.full(retriever.n_items + 1, -1)  # its last place is what pads
    from_bundle[to_bundle[to_bundle >= 0]] = np.flatnonzero(to_bundle >= 0)
    shown = from_bundle[lists]  # (B, k), codes of the cut
    background = background or Background.of(cut)
    per_user |= character(shown, hits, n_relevant, requests.histories, background)
    overall = {name: float(np.nanmean(values)) for name, values in per_user.items() if not np.isnan(values).all()}
    overall["coverage_at_20"] = metrics.coverage_at_k(lists, retriever.n_items, 20)
    overall["gini_at_20"] = beyond_accuracy.gini_at_k(shown, len(background.counts), 20)
    overall |= by_history(per_user[DECIDING_METRIC], requests.histories)
    overall |= fair(shown, background.counts, per_user[DECIDING_METRIC], requests.histories)
    if timed:
        overall |= latency(retriever, histories[:TIMED_USERS], features)
    return Quality(per_user, overall)


def character(
    shown: np.ndarray, hits: np.ndarray, n_relevant: np.ndarray, histories: list[np.ndarray], background: Background
) -> dict[str, np.ndarray]:
    """Return novelty (bits), serendipity and, where the catalogue has categories, variety and miscalibration (nats) of
    each list, all at 20. `shown`: codes of the cut, (B, k)."""
    k, (counts, n_users) = LIST_LENGTH, (background.counts, background.n_users)
    values = {
        "novelty_at_20": beyond_accuracy.novelty_at_k(shown, counts, n_users, k),
        "serendipity_at_20": beyond_accuracy.serendipity_at_k(
            shown, hits, n_relevant, np.repeat(background.popular, len(shown), 0), k
        ),
    }
    if not background.categories.shape[1]:
        return values
    diversity, miscalibration, place = [], [], np.full(len(counts) + 1, -1)  # its last place is what pads
    for start in range(0, len(shown), BLOCK_USERS):
        own = histories[start : start + BLOCK_USERS]
        rows = shown[start : start + BLOCK_USERS]
        pool = np.unique(np.concatenate([rows[rows >= 0], *own]))
        place[pool] = np.arange(len(pool))
        categories = background.categories[pool]
        diversity.append(beyond_accuracy.diversity_at_k(place[rows], categories, k))
        used = [place[history] for history in own]
        miscalibration.append(beyond_accuracy.miscalibration_at_k(place[rows], used, categories, k))
    return values | {
        "diversity_at_20": np.concatenate(diversity),
        "miscalibration_at_20": np.concatenate(miscalibration),
    }


def by_history(values: np.ndarray, histories: list[np.ndarray]) -> dict[str, float]:
    """Return the mean of the deciding metric for users of whom so much is known; buckets without a judged user are
    left out. `values`: (B,)"""
    lengths, means = np.array([len(history) for history in histories]), {}
    for name, (least, most) in BUCKETS.items():
        inside = values[(lengths >= least) & (lengths <= most) & ~np.isnan(values)]
        if len(inside):
            means[f"{DECIDING_METRIC}_of_{name}_known"] = float(inside.mean())
    return means


def fair(shown: np.ndarray, counts: np.ndarray, values: np.ndarray, histories: list[np.ndarray]) -> dict[str, float]:
    """Return what share of the exposure that their use deserves the seldom used items get (all that make up the last
    fifth of the events), and the deciding metric of the worst-served group of users over that of the best-served, by
    how much is known of them; what cannot be judged is left out. `shown`: codes of the cut (B, k)"""
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    is_rare = np.empty(len(counts), np.int64)
    is_rare[order] = before >= (1 - RARE_SHARE) * counts.sum()
    lengths = np.array([len(history) for history in histories])
    group = np.searchsorted([most for _, most in BUCKETS.values()], lengths)
    found = {"worst_over_best_by_history": fairness.worst_over_best(values, group)}
    if is_rare.any() and (shown >= 0).any():
        found["rare_exposure_ratio_at_20"] = float(fairness.exposure_ratios(shown, is_rare, counts)[-1])
    return {name: value for name, value in found.items() if not np.isnan(value)}


def recommend_all(retriever: Retriever, histories: list[np.ndarray], features: np.ndarray | None) -> np.ndarray:
    """Return each user's list in blocks of users. int64 (B, 20)"""
    block = max(1, BLOCK_SCORES // retriever.n_items)
    lists = [
        retriever.recommend(
            histories[start : start + block],
            LIST_LENGTH,
            user_features=None if features is None else features[start : start + block],
        )[0]
        for start in range(0, len(histories), block)
    ]
    return np.concatenate(lists)


def latency(retriever: Retriever, histories: list[np.ndarray], features: np.ndarray | None) -> dict[str, float]:
    """Return the median and the 99th percentile of one user's list in ms, measured one by one in this process."""
    taken = []
    for row, history in enumerate(histories):
        known = None if features is None else features[row : row + 1]
        started = time.perf_counter()
        retriever.recommend([history], LIST_LENGTH, user_features=known)
        taken.append((time.perf_counter() - started) * 1000)
    p50, p99 = np.percentile(taken, [50, 99])
    return {"inference_p50_ms": float(p50), "inference_p99_ms": float(p99)}


def compare(candidate: Quality, baseline: Quality, seed: int, metric: str = DECIDING_METRIC) -> dict[str, float]:
    """Return the mean difference per user, its 95 % bootstrap interval, and the ratio of the means."""
    difference, low, high = metrics.paired_bootstrap(candidate.per_user[metric], baseline.per_user[metric], seed)
    base = baseline.overall[metric]
    ratio = candidate.overall[metric] / base if base > 0 else float("nan")
    return {"difference": difference, "low": low, "high": high, "ratio": ratio}


def over_bundle(cut: Cut, name: str, bundle: Path, threads: int, seed: int) -> dict[str, float]:
    """Return the difference of this model of the cut to another bundle, on the cut's test users (`compare`)."""
    from training import point_in_time

    requests, features = cut.requests(), point_in_time.test_features(cut)
    bundles = model_folder(cut, name) / "bundle", bundle
    ours, theirs = (evaluate(one, cut, requests, features, threads, timed=False) for one in bundles)
    return compare(ours, theirs, seed)


def differences(candidate: Quality, baseline: Quality, seed: int) -> dict[str, dict[str, float]]:
    """Return `compare` for every metric that both have a value of for some user."""
    return {
        metric: compare(candidate, baseline, seed, metric)
        for metric, values in candidate.per_user.items()
        if metric in baseline.per_user and not np.isnan(values - baseline.per_user[metric]).all()
    }


def evaluate_models(
    cut: Cut, names: list[str], features: np.ndarray | None, *, threads: int, seed: int
) -> tuple[dict[str, Quality], dict[str, dict[str, float]]]:
    """Judge the cut's bundles of these models. Returns each one's quality, and each one's difference to the baseline
    (none where the baseline is not among them)."""
    requests, background = cut.requests(), Background.of(cut)
    qualities = {
        name: evaluate(model_folder(cut, name) / "bundle", cut, requests, features, threads, background=background)
        for name in names
    }
    baseline = qualities.get(BASELINE_MODEL)
    against = {
        name: compare(quality, baseline, seed)
        for name, quality in qualities.items()
        if baseline is not None and name != BASELINE_MODEL
    }
    return qualities, against


def write_per_user(path: Path, user_ids: np.ndarray, quality: Quality) -> None:
    """Write the value of each test user and metric as Parquet."""
    pq.write_table(pa.table({"user_id": user_ids, **quality.per_user}), path)


def model_folder(cut: Cut, name: str) -> Path:
    """Return where a model of the cut lies."""
    return cut.folder / "models" / name


def table(qualities: dict[str, Quality], against: dict[str, dict[str, float]], costs: dict[str, dict]) -> list[dict]:
    """Return a row a model for people, the best first."""
    rows = []
    for name, quality in qualities.items():
        row = {"model": name, **{key: round(value, 4) for key, value in quality.overall.items()}, **costs.get(name, {})}
        if name in against:
            row["ndcg_at_10_over_popularity"] = round(against[name]["ratio"], 3)
            row["difference_low"], row["difference_high"] = (round(against[name][end], 4) for end in ("low", "high"))
        rows.append(row)
    return sorted(rows, key=lambda row: (-row[DECIDING_METRIC], row["model"]))


def framework_of(cut: Cut, name: str) -> str:
    """Return what trained a model."""
    return read_manifest(model_folder(cut, name) / "bundle").framework
