"""What is asked of a model, its validation part, and the one way of ranking and judging.

Shapes: B users, I items, K ranks, n relevant items of all users together.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from recsys import beyond_accuracy, metrics
from recsys.errors import UnusableInput
from recsys.retriever import top_k
from training.dataset import TrainingData
from training.model import HasUsers

RANKS = 20
BLOCK_SCORES = 8_000_000
"""Largest block of users × items that is scored at once: 32 MB."""
VALIDATION_SHARE = 0.2
VALIDATION_USERS = {"lightgcn": 10_000, "ncf": 10_000, "sequence": 30_000}
DECIDING = {"lightgcn": "ndcg@20", "ncf": "ndcg@10", "sequence": "ndcg@10"}
SAMPLED_NEGATIVES = 99
TIMED_ANSWERS, TIMED_SECONDS = 200, 3.0
"""Answers that are timed, or as many as this time is enough for."""


@dataclass(frozen=True)
class Asked:
    """Users, and what each of them did in truth."""

    users: np.ndarray
    """Codes, ascending, each once. (B,)"""
    start: np.ndarray
    """Where each user's relevant items begin. (B + 1,)"""
    items: np.ndarray
    """Relevant items. (n,)"""
    candidates: np.ndarray | None = None
    """Sampled protocol: the one relevant item, then the items that it is ranked among, -1 where there is none.
    (B, 1 + N)"""


@dataclass(frozen=True)
class Split:
    """A split as its files say it."""

    form: str
    train: TrainingData
    asked: Asked
    user_ids: list[str]
    item_ids: list[str]

    def strangers(self) -> int:
        """Return how many of those who are asked have no training interaction; they are shown what is popular."""
        return len(np.setdiff1d(self.asked.users, self.train.users))


@dataclass(frozen=True)
class Judged:
    """What a model achieved."""

    overall: dict[str, float]
    per_user: dict[str, np.ndarray]
    """Metric → value of each user who was asked. (B,)"""


def rows_of(users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the users ascending (B,), and their items, each once, in compressed rows: starts (B + 1,), items (n,)."""
    width = int(items.max(initial=0)) + 1
    owners, items = np.divmod(np.unique(users.astype(np.int64) * width + items), width)
    listed, counts = np.unique(owners, return_counts=True)
    return listed, np.append(0, np.cumsum(counts)), items


def hold_out(split: Split, seed: int) -> tuple[TrainingData, Asked]:
    """Take a validation part out of the training part, as the test was taken out of the whole. The test is not read.

    lightgcn: a fifth of the items of up to 10 000 users; ncf and sequence: the latest item of each (of up to 10 000 and
    30 000), in ncf among 99 items that the user has not used. Of users with one interaction none is taken.

    Raises:
        UnusableInput: nobody has two interactions.
    """
    data, rng = split.train, np.random.default_rng([seed, 17])
    lengths = np.bincount(data.users, minlength=len(split.user_ids))  # (U,)
    able = np.flatnonzero(lengths >= 2)
    if not len(able):
        raise UnusableInput("TRAIN", "no user with two interactions", "Nothing can be held out to tune on; land more")
    chosen = np.sort(rng.choice(able, min(VALIDATION_USERS[split.form], len(able)), replace=False))
    first = np.cumsum(lengths) - lengths  # rows stand by user
    if split.form == "lightgcn":
        taken = np.concatenate([
            first[user] + rng.choice(lengths[user], max(1, round(VALIDATION_SHARE * lengths[user])), replace=False)
            for user in chosen
        ])  # fmt: skip
    else:
        taken = first[chosen] + lengths[chosen] - 1
    kept = np.ones(len(data.users), bool)
    kept[taken] = False
    users, start, items = rows_of(data.users[taken], data.items[taken])
    candidates = _sampled(data, users, items, rng) if split.form == "ncf" else None
    rest = replace(data, users=data.users[kept], items=data.items[kept], instants=data.instants[kept])
    return rest, Asked(users, start, items, candidates)


def _sampled(data: TrainingData, users: np.ndarray, items: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return each user's relevant item and up to 99 items that the user has not used. (B, 1 + 99)"""
    seen = np.unique(data.users.astype(np.int64) * data.n_items + data.items)
    drawn = rng.integers(0, data.n_items, (len(users), SAMPLED_NEGATIVES))  # (B, 99)
    for _ in range(20):  # whoever has used nearly everything keeps fewer
        keys = users[:, None].astype(np.int64) * data.n_items + drawn
        used = seen[np.minimum(np.searchsorted(seen, keys), len(seen) - 1)] == keys
        drawn[used] = rng.integers(0, data.n_items, used.sum())
        if not used.any():
            return np.column_stack([items, drawn])
    return np.column_stack([items, np.where(used, -1, drawn)])


def judge(model: Any, data: TrainingData, asked: Asked) -> Judged:
    """Ask a model, and measure what it answers."""
    return measure_answers(answer(model, data, asked), data, asked)


def answer(model: Any, data: TrainingData, asked: Asked) -> np.ndarray:
    """Return what a model answers to the users who are asked, block by block: no more than `BLOCK_SCORES` scores are
    ever there. What they did in truth is not read.

    The first K items of each, int64 (B, K), see `rank`; in the sampled protocol the candidates' scores, float32
    (B, 1 + N).
    """
    if asked.candidates is None:
        return rank(model, data, asked)
    given = [
        np.take_along_axis(scores, np.maximum(asked.candidates[users], 0), axis=1)
        for users, scores, _, _ in scored(model, data, asked)
    ]
    return np.concatenate(given)


class Products:
    """What scores as quickly as a model of 64 factors, and knows nothing."""

    def __init__(self, n_items: int):
        rng = np.random.default_rng(0)
        self.users, self.items = (rng.random((n, 64), np.float32) for n in (max(1, BLOCK_SCORES // n_items), n_items))

    def score(self, histories: list[np.ndarray]) -> np.ndarray:
        return self.users[: len(histories)] @ self.items.T


def seconds_of_asking(data: TrainingData, asked: Asked) -> float:
    """Return the wall seconds that asking these users takes of a quick model, by the first of them."""
    model, few = Products(data.n_items), min(len(asked.users), max(1, BLOCK_SCORES // data.n_items))
    first = Asked(
        asked.users[:few],
        asked.start[: few + 1],
        asked.items[: asked.start[few]],
        None if asked.candidates is None else asked.candidates[:few],
    )
    began = perf_counter()
    answer(model, data, first)
    return (perf_counter() - began) * len(asked.users) / few


def measure_answers(answers: np.ndarray, data: TrainingData, asked: Asked) -> Judged:
    """Compare what a model answered (see `answer`) with what the users did."""
    if asked.candidates is not None:
        return measure_places(places(answers, asked.candidates))
    return measure(answers, hits_of(answers, asked), np.diff(asked.start), data)


def rank(model: Any, data: TrainingData, asked: Asked) -> np.ndarray:
    """Return the first items of each user, best first, ties by code, without what the user has used. int64 (B, K), -1
    pads."""
    listed = []
    for _, scores, row, seen in scored(model, data, asked):
        scores[row, seen] = -np.inf
        listed.append(top_k(scores, RANKS)[0])
    return np.concatenate(listed)


def places(scores: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return how many of the sampled items stand before each user's relevant one, the first candidate; of those that
    score the same, half: what is to be expected if such ties are broken by chance. Both (B, 1 + N) → float64 (B,)"""
    own, others = scores[:, :1], np.where(candidates[:, 1:] < 0, -np.inf, scores[:, 1:])
    return (others > own).sum(1) + (others == own).sum(1) / 2


def answer_times(model: Any, data: TrainingData, asked: Asked) -> dict[str, float]:
    """Return `p50` and `p99` of the milliseconds that a list takes: one user's scores by the history, and the first K
    of them without it, one at a time after one that warms up. Empty where nobody has a history."""
    rows, starts = _by_user(data, int(max(data.users.max(), asked.users.max(initial=0))) + 1)
    known = asked.users[np.diff(starts)[asked.users] > 0]
    taken, started = [], perf_counter()
    places = np.linspace(0, max(len(known) - 1, 0), TIMED_ANSWERS + 1).astype(int)
    for user in known[places] if len(known) else known:
        history = data.items[rows[starts[user] : starts[user + 1]]]
        began = perf_counter()
        scores = model.score([history])
        scores[0, history] = -np.inf
        top_k(scores, min(RANKS, data.n_items))
        taken.append(1000 * (perf_counter() - began))
        if perf_counter() - started > TIMED_SECONDS:
            break
    return {f"p{share}": float(np.percentile(taken[1:], share)) for share in (50, 99)} if taken[1:] else {}


def scored(model: Any, data: TrainingData, asked: Asked) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield, block by block, which of the users they are, their scores (B', I), and row and item of all that they have
    used, each (m,). Whoever has used nothing gets the popularity, whatever the model."""
    rows, starts = _by_user(data, int(max(data.users.max(), asked.users.max(initial=0))) + 1)
    counts = np.bincount(data.items, minlength=data.n_items).astype(np.float32)  # (I,)
    block = max(1, BLOCK_SCORES // data.n_items)
    for begin in range(0, len(asked.users), block):
        users = asked.users[begin : begin + block]
        histories = [data.items[rows[starts[user] : starts[user + 1]]] for user in users]
        known = np.array([len(history) > 0 for history in histories])  # (B',)
        if known.all():
            scores = _scores(model, users, histories)
        else:
            scores = np.tile(counts, (len(users), 1))
            if known.any():
                scores[known] = _scores(model, users[known], [history for history in histories if len(history)])
        row = np.repeat(np.arange(len(users)), [len(history) for history in histories])
        yield slice(begin, begin + block), scores, row, np.concatenate(histories)


def _scores(model: Any, users: np.ndarray, histories: list[np.ndarray]) -> np.ndarray:
    return model.score_users(users) if isinstance(model, HasUsers) else model.score(histories)


def _by_user(data: TrainingData, n_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the events by user and time, the first of each item only, and where each user's begin."""
    pairs = data.users.astype(np.int64) * data.n_items + data.items
    rows = np.sort(np.unique(pairs, return_index=True)[1])
    return rows, np.searchsorted(data.users[rows], np.arange(n_users + 1))


def hits_of(listed: np.ndarray, asked: Asked) -> np.ndarray:
    """Return where the list holds a relevant item. bool (B, K)"""
    width = int(max(listed.max(initial=0), asked.items.max(initial=0))) + 1
    relevant = np.repeat(np.arange(len(asked.users)), np.diff(asked.start)) * width + asked.items
    keys = np.arange(len(listed))[:, None] * width + listed
    return np.isin(keys, relevant, kind="sort") & (listed >= 0)


def measure(listed: np.ndarray, hits: np.ndarray, n_relevant: np.ndarray, data: TrainingData) -> Judged:
    """Return all metrics of the lists: those of a user as values and means, those of the whole as numbers."""
    per_user = {
        f"{name}@{k}": function(hits, n_relevant, k)
        for k in (10, 20)
        for name, function in (
            ("recall", metrics.recall_at_k),
            ("ndcg", metrics.ndcg_at_k),
            ("hit_rate", metrics.hit_rate_at_k),
            ("precision", metrics.precision_at_k),
            ("map", metrics.map_at_k),
            ("mrr", metrics.mrr_at_k),
        )
    }
    counts, n_users = np.bincount(data.items, minlength=data.n_items), len(np.unique(data.users))
    popular = np.tile(np.argsort(-counts, kind="stable")[:20], (len(listed), 1))  # what everybody would be shown
    per_user["novelty@20"] = beyond_accuracy.novelty_at_k(listed, counts, n_users, 20)
    per_user["serendipity@20"] = beyond_accuracy.serendipity_at_k(listed, hits, n_relevant, popular, 20)
    overall = {name: float(np.nanmean(values)) for name, values in per_user.items()}
    overall |= {f"coverage@{k}": metrics.coverage_at_k(listed, data.n_items, k) for k in (10, 20)}
    overall["gini@20"] = beyond_accuracy.gini_at_k(listed, data.n_items, 20)
    return Judged(overall, per_user)


def measure_places(place: np.ndarray) -> Judged:
    """Return the metrics of one relevant item a user, found after so many others. `place`: see `places`. (B,)"""
    per_user = {}
    for k in (10, 20):
        is_hit = place < k
        per_user |= {
            f"recall@{k}": is_hit * 1.0,
            f"ndcg@{k}": is_hit / np.log2(place + 2),
            f"hit_rate@{k}": is_hit * 1.0,
            f"precision@{k}": is_hit / k,
            f"map@{k}": is_hit / (place + 1),
            f"mrr@{k}": is_hit / (place + 1),
        }
    return Judged({name: float(values.mean()) for name, values in per_user.items()}, per_user)
