"""The one evaluation: each written bundle answers the same test requests through the code that serves.

Full ranking over the catalogue less the user's own history, in blocks of users; per-user values are kept, so that every
difference between two models has a paired bootstrap interval.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import metrics
from recsys.artifacts import BASELINE_MODEL
from recsys.bundle import read_manifest
from recsys.retriever import Retriever
from training.dataset import Cut, Requests

BLOCK_SCORES = 8_000_000
"""Largest block of users × items that is scored at once: 32 MB."""
LIST_LENGTH = 20
TIMED_USERS = 300
DECIDING_METRIC = "ndcg_at_10"


@dataclass(frozen=True)
class Quality:
    """How good a bundle is. B test requests."""

    per_user: dict[str, np.ndarray]
    """Metric → value of each request, NaN where it cannot be judged. (B,)"""
    overall: dict[str, float]
    """Their means, the coverage, and, where it was timed, the latency of one user's list in ms."""


def evaluate(
    bundle: Path, cut: Cut, requests: Requests, features: np.ndarray | None, threads: int, timed: bool = True
) -> Quality:
    """Judge a bundle on a cut's requests. The bundle may be of an older cut: items are matched by id.

    A target that the bundle's catalogue lacks counts as relevant and not found; history items it lacks are ignored.

    Args:
        features: user features of the requests in the order of `artifacts.USER_FEATURES` (B, F); None: all unknown.
        timed: measure the latency, too.
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
    }
    overall = {name: float(np.nanmean(values)) for name, values in per_user.items()}
    overall["coverage_at_20"] = metrics.coverage_at_k(lists, retriever.n_items, 20)
    if timed:
        overall |= latency(retriever, histories[:TIMED_USERS], features)
    return Quality(per_user, overall)


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


def evaluate_models(
    cut: Cut, names: list[str], features: np.ndarray | None, *, threads: int, seed: int
) -> tuple[dict[str, Quality], dict[str, dict[str, float]]]:
    """Judge the cut's bundles of these models. Returns each one's quality, and each one's difference to the baseline
    (none where the baseline is not among them)."""
    requests = cut.requests()
    qualities = {name: evaluate(model_folder(cut, name) / "bundle", cut, requests, features, threads) for name in names}
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


def fitted_models(cut: Cut, names: tuple[str, ...]) -> list[str]:
    """Return those of the models that have a bundle in this cut, in the given order."""
    return [name for name in names if (model_folder(cut, name) / "bundle" / "manifest.json").is_file()]


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
