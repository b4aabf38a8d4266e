"""SLIST: a linear model of items, solved at once: what a user did last predicts what the user does next.

Choi, Kim, Lee, Shim, Lee 2021, "Session-aware Linear Item-Item Models for Session-based Recommendation" (here its
transition half); a ridge regression like EASE: Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data". A
user's sequence is cut at up to `splits` places. A row of S holds what lies before a cut, the item `a` places back
weighing (1 + a)^-recency_exponent; the row of T what follows it, the item `b` places ahead (1 + b)^-target_exponent, up
to `horizon` items. A cut of `half_life_days` before the end of training counts half. With both centred, the weights are

    B = (S'S + λ I)^-1 S'T,  score = history @ B + bias,  λ = reg (1 + prior_rows / rows),

so that little data shrinks the score to the bias. That is the intercept, with the mean of T replaced by today's
popularity. Items with fewer than `min_events` events and those beyond the `max_items` most used have no weights and the
popularity alone. Cost O(U³) once and four dense matrices of U² for U used items (1 GB at 8000); rows are summed up in
blocks of users. Beyond `max_exact_items` each item is regressed on the `neighbours` that say most of it by themselves
(training/neighbours.py). There is no chance in it.

Chosen on the validation parts of MovieLens 1M / latest-small (a second temporal split inside train), ndcg@10,
popularity alone .179 / .219: at λ 300 horizon 20 without the target's exponent .317 / .194, with exponent .5 .320;
horizon 40 with exponent .5 .325, with .75 .320; λ 100, 250, 1000 .327, .325, .314 on 1M (1000 without half-life);
300, 1000, 2000 .212, .214, .220 on latest-small (with exponent .75); exponent of recency .45, .6 .310, .317; rows of
length one, or 10 or 40 splits, change less than .003. As it stands, with 1000 neighbours and 200 items read, .6, .7,
.8 give .3266, .3275, .3274 and latest-small .218; 300, 600, 1000 and all neighbours gave .323, .326, .327, .327.
Of Beauty's 12 101 items the 8000 most used alone gave recall / ndcg@10 .0844 / .0513 on the test, all of them by 200
neighbours .0889 / .0546 in 5.5 processor seconds (`make benchmark`, seed 1, 2026-11-30).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.sparse

from recsys.retriever import by_latest_event
from training import neighbours
from training.dataset import TrainingData
from training.model import Between, ModelConfig, Parts, Workplace, popularity

FRAMEWORK = "numpy"
NEEDS_ORDER = True
FEATURES: tuple[str, ...] = ()
BLOCK_USERS = 1500
"""So many users' rows are held at once: some 3 million numbers at 100 events a user."""
TRIALS = (
    {},
    {"reg": 30.0},
    {"reg": 30.0, "horizon": 10, "target_exponent": 1.0},
    {"reg": 500.0},
    {"recency_exponent": 1.0},
    {"reg": 30.0, "neighbours": 80},  # what is begun with where the others take long
)
SPACE = {
    "reg": Between(10.0, 1000.0, log=True),
    "recency_exponent": Between(0.0, 1.5),
    "target_exponent": Between(0.0, 1.5),
    "half_life_days": Between(30.0, 5000.0, log=True),
    "horizon": Between(5, 100, log=True),
}


class Config(ModelConfig):
    splits: int = 20
    max_history: int = 200
    horizon: int = 40
    recency_exponent: float = 0.7
    target_exponent: float = 0.5
    half_life_days: float = 365.0
    reg: float = 150.0
    prior_rows: float = 10_000.0
    min_events: int = 3
    max_items: int = 40_000
    max_exact_items: int = 8000
    """With more used items than this, each target is regressed on `neighbours` of them alone."""
    neighbours: int = 200
    max_neighbours: int = 1000


def estimate_seconds(data: TrainingData, config: Config) -> float:
    """Measured on one core of 2026: cutting rows, the moments of the used items, the solution."""
    used, users = min(data.n_items, config.max_items), len(np.unique(data.users))
    rows = min(config.splits * users, len(data.items))
    if used > config.max_exact_items:
        return 2 + rows / 1e5 + neighbours.seconds(data.users, data.items, config.neighbours, config.max_items)
    return 1 + rows * (config.max_history / 2e7 + used / 8e8) + used**3 / 4e10


@dataclass(frozen=True)
class Slist:
    weights: scipy.sparse.csr_array  # (I, I), row: item of the history, column: item to score
    bias: np.ndarray  # (I,)
    counts: np.ndarray  # (I,)
    config: Config

    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        latest = [by_latest_event(history)[-self.config.max_history :] for history in histories]
        decay = falling(self.config.max_history, self.config.recency_exponent).astype(np.float32)
        start = np.append(0, np.cumsum([len(own) for own in latest]))
        values = np.concatenate([decay[: len(own)][::-1] for own in latest])
        shape = (len(histories), len(self.bias))
        users = scipy.sparse.csr_array((values, np.concatenate(latest), start), shape=shape)
        scores = (users @ self.weights).toarray()  # (B, I)
        scores += self.bias
        return scores

    def parts(self) -> Parts:
        arrays = {
            "popularity": self.counts,
            "item_bias": self.bias,
            "weight_start": self.weights.indptr.astype(np.int64),
            "weight_item": self.weights.indices.astype(np.int32),
            "weight_value": self.weights.data,
        }
        shared = ("max_history", "recency_exponent")
        return Parts("linear", arrays, settings={name: getattr(self.config, name) for name in shared})

    def save_native(self, folder: Path) -> None:
        scipy.sparse.save_npz(folder / "weights.npz", self.weights)


def fit(data: TrainingData, config: Config, seed: int, workplace: Workplace) -> Slist:
    """Solve the weights of the used items. Without two events of a user there are none, and the popularity answers."""
    used = used_items(data, config)
    sequences = sequences_of(data, used)
    cut = (
        cut_rows(sequences[start : start + BLOCK_USERS], len(used), data.cut_at, config)
        for start in range(0, len(sequences), BLOCK_USERS)
    )
    if len(used) <= config.max_exact_items:
        moments = Moments(len(used))
        for rows in cut:
            moments.add(*rows)
        mean_source, mean_target, gram, cross = moments.centred()
        solved = solve(gram, cross, ridge(config, moments.rows))  # (U, U)
        kept = prune(solved, config.max_neighbours)
    else:
        mean_source, mean_target, kept = by_neighbours(list(cut), len(used), config)

    counts = popularity(data)  # (I,)
    per_count = mean_target.sum() / max(counts[used].sum(), 1e-12) or 1.0  # the bias is a rate as the targets are
    bias = counts * np.float32(per_count)
    bias[used] -= (mean_source @ kept).astype(np.float32)
    rows, columns = used[kept.tocoo().coords[0]], used[kept.tocoo().coords[1]]
    weights = scipy.sparse.csr_array((kept.tocoo().data, (rows, columns)), shape=(data.n_items, data.n_items))
    weights.sort_indices()
    return Slist(weights, bias, counts, config)


def ridge(config: Config, rows: float) -> float:
    """Return λ for so many rows."""
    return config.reg * (1 + config.prior_rows / max(rows, 1.0))


def by_neighbours(
    cut: list[tuple[scipy.sparse.csr_array, scipy.sparse.csr_array, np.ndarray]], n_used: int, config: Config
) -> tuple[np.ndarray, np.ndarray, scipy.sparse.csr_array]:
    """Return the means of S and T (U,), and the weights, each item's of the few that say most of it. (U, U)"""
    if not cut:
        return np.zeros(n_used), np.zeros(n_used), scipy.sparse.csr_array((n_used, n_used), dtype=np.float32)
    source, target = (scipy.sparse.vstack([part[side] for part in cut], format="csr") for side in (0, 1))
    weight = np.concatenate([part[2] for part in cut]).astype(np.float64)
    total = max(weight.sum(), 1e-12)
    mean_source, mean_target = (side.T @ weight / total for side in (source, target))  # (U,), (U,)
    by_root = scipy.sparse.diags_array(np.sqrt(weight).astype(np.float32))
    weights = neighbours.regress(
        (by_root @ source).tocsr(),
        (by_root @ target).tocsr(),
        np.full(n_used, ridge(config, total)),
        config.neighbours,
        config.max_items,
        (np.sqrt(total) * mean_source, np.sqrt(total) * mean_target),
    )
    return mean_source, mean_target, weights


def used_items(data: TrainingData, config: Config) -> np.ndarray:
    """Return the items that get weights: the `max_items` most used with `min_events` or more, ascending. (U,)"""
    events = np.bincount(data.items, minlength=data.n_items)
    most = np.argsort(-events, kind="stable")[: config.max_items]
    return np.sort(most[events[most] >= config.min_events])


def sequences_of(data: TrainingData, used: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each user's used items (places in `used`, each once, by time) and their instants, two or more of them."""
    place = np.full(data.n_items, -1)
    place[used] = np.arange(len(used))
    listed = ((place[data.items[rows]], data.instants[rows]) for rows in data.sequences())
    kept = ((items[items >= 0], instants[items >= 0]) for items, instants in listed)
    return [(items, instants) for items, instants in kept if len(items) > 1]


def falling(length: int, exponent: float) -> np.ndarray:
    """Return 1, 2^-exponent, 3^-exponent and so on. (length,)"""
    return (1.0 + np.arange(length)) ** -exponent


def cut_rows(
    sequences: list[tuple[np.ndarray, np.ndarray]], n_used: int, cut_at: int, config: Config
) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array, np.ndarray]:
    """Cut sequences at evenly spaced places. Returns S and T, both float32 (R, U), and each row's weight (R,)."""
    before, after = (
        falling(config.max_history, config.recency_exponent),
        falling(config.horizon, config.target_exponent),
    )
    source, target, instants = ([], [], []), ([], [], []), []
    first = 0
    for items, at in sequences:
        cuts = np.unique(np.linspace(1, len(items) - 1, min(config.splits, len(items) - 1)).round().astype(int))  # (K,)
        ahead = np.arange(len(items)) - cuts[:, None]  # (K, L), 0 is the first item after the cut
        for (rows, columns, values), inside, decay, distance in (
            (source, (ahead < 0) & (ahead >= -config.max_history), before, -1 - ahead),
            (target, (ahead >= 0) & (ahead < config.horizon), after, ahead),
        ):
            row, column = np.nonzero(inside)
            rows.append(first + row)
            columns.append(items[column])
            values.append(decay[distance[inside]])
        instants.append(at[cuts])
        first += len(cuts)
    age_days = (cut_at - np.concatenate(instants)) / 86_400_000
    made = (
        scipy.sparse.csr_array(
            (np.concatenate(values).astype(np.float32), (np.concatenate(rows), np.concatenate(columns))),
            shape=(first, n_used),
        )
        for rows, columns, values in (source, target)
    )
    return *made, (0.5 ** (age_days / config.half_life_days)).astype(np.float32)


class Moments:
    """The weighted sums over rows that the regression needs. U items."""

    def __init__(self, n_used: int):
        self.rows = 0.0
        self.source, self.target = np.zeros(n_used), np.zeros(n_used)  # (U,)
        self.gram, self.cross = (np.zeros((n_used, n_used), np.float32) for _ in range(2))  # (U, U)

    def add(self, source: scipy.sparse.csr_array, target: scipy.sparse.csr_array, weight: np.ndarray) -> None:
        self.rows += float(weight.sum(dtype=np.float64))
        self.source += source.T @ weight.astype(np.float64)
        self.target += target.T @ weight.astype(np.float64)
        weighted = (source * weight[:, None]).tocsr().T  # (U, R)
        self.gram += weighted @ source
        self.cross += weighted @ target

    def centred(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the means of S and T (U,), and S'S and S'T (U, U) less what the means explain."""
        mean_source, mean_target = (total / max(self.rows, 1e-12) for total in (self.source, self.target))
        scaled = (self.rows * mean_source).astype(np.float32)[:, None]
        self.gram -= scaled * mean_source.astype(np.float32)
        self.cross -= scaled * mean_target.astype(np.float32)
        return mean_source, mean_target, self.gram, self.cross


def solve(gram: np.ndarray, cross: np.ndarray, reg: float) -> np.ndarray:
    """Return (gram + reg I)^-1 cross by Cholesky, in the precision of the input; both inputs are overwritten. (U, U)"""
    gram[np.diag_indices_from(gram)] += gram.dtype.type(reg)
    if not len(gram):
        return cross
    factor = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    return scipy.linalg.cho_solve(factor, cross, overwrite_b=True, check_finite=False)


def prune(weights: np.ndarray, max_neighbours: int) -> scipy.sparse.csr_array:
    """Return each row's `max_neighbours` largest weights by amount, without zeros. float32 (U, U)"""
    rows, columns, values = [], [], []
    for row, line in enumerate(weights):
        kept = np.arange(len(line))
        if max_neighbours < len(line):
            kept = np.sort(np.argpartition(-np.abs(line), max_neighbours)[:max_neighbours])
        kept = kept[line[kept] != 0]
        rows.append(np.full(len(kept), row))
        columns.append(kept)
        values.append(line[kept])
    if not rows:
        return scipy.sparse.csr_array(weights.shape, dtype=np.float32)
    listed = (np.concatenate(rows), np.concatenate(columns))
    return scipy.sparse.csr_array((np.concatenate(values).astype(np.float32), listed), shape=weights.shape)
