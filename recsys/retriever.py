"""Recommendation from a bundle: histories in, ranked items out. Pure: no I/O after loading, no clock, no state.

Shapes: B users, I items, D embedding size, L history length, F user features.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from recsys import bundle
from recsys.approximate import TUNED, Approximate
from recsys.bundle import Manifest, SparseRows
from recsys.eight_bit import MANY, EightBit
from recsys.errors import UnusableInput

GROUP_SIZE = 32
"""Items whose maximum is taken together when the best of a row are looked for."""
GIVES_SCORES = ("linear", "scorer")
BY_PRODUCT = ("ials", "mean", "onnx")
LARGE_CATALOGUE = 16_384
"""Items from which on the first look at a score is in eight bits; below, ONNX Runtime's memory is not worth it."""
BLOCK_PAIRS = 1_000_000
"""Pairs of user and item that a `scorer` sees at once: it may hold layers of some dozen numbers a pair."""


class Retriever:
    """Scores the whole catalogue for histories of item indices (oldest first).

    A history is all that a model knows of a user, so a user unseen in training, or one who clicked a second ago, is
    served by the same code (fold-in).
    """

    def __init__(self, folder: Path, threads: int = 1):
        """Load a bundle.

        Raises:
            UnusableInput: the folder is no readable bundle, or its item-item weights are no matrix.
        """
        self.manifest: Manifest = bundle.read_manifest(folder)
        self.catalogue = bundle.read_catalogue(folder)
        arrays = bundle.read_arrays(folder)
        self.popularity = arrays[bundle.POPULARITY]  # (I,)
        self.item_vectors: np.ndarray | SparseRows | None = None
        self._eight_bit: EightBit | None = None
        if "item_vectors" in arrays and self.n_items < LARGE_CATALOGUE:
            # column by column: scoring a few users together is then several times faster
            self.item_vectors = np.asfortranarray(arrays["item_vectors"])  # (I, D)
        elif "item_vectors" in arrays:
            self.item_vectors = arrays["item_vectors"]
        self.item_bias = arrays.get("item_bias")  # (I,)
        self.gram = arrays.get("gram")  # (D, D)
        if self.manifest.kind == "ials" and self.gram is not None:
            self._by_row = arrays["item_vectors"]  # (I, D): an item is one read
            self._unobserved = self.manifest.unobserved_weight * self.gram  # (D, D)
        self.index = {item_id: i for i, item_id in enumerate(self.catalogue.item_id)}
        if self.manifest.kind == "linear":
            self.item_vectors = _item_weights(folder, arrays, len(self.index))  # (I, I): an item's row is its vector
        self._approximate: Approximate | None = None
        if self.manifest.kind in BY_PRODUCT and (folder / TUNED).exists():
            self._approximate = Approximate(folder, self.item_vectors, self.item_bias)
        elif self.manifest.kind in BY_PRODUCT and self.n_items >= LARGE_CATALOGUE:
            self._eight_bit = EightBit(self.item_vectors, self.item_bias)
        self._session = (
            _onnx_session(folder / bundle.ENCODER, threads) if self.manifest.kind in bundle.WITH_ENCODER else None
        )

    @property
    def n_items(self) -> int:
        return len(self.popularity)

    def indices(self, item_ids: Sequence[str]) -> np.ndarray:
        """Return the indices of the known ones among these items, in their order. int64, at most len(item_ids)."""
        try:  # as a rule all are known, and a loop in C suffices
            return np.fromiter(map(self.index.__getitem__, item_ids), np.int64, len(item_ids))
        except KeyError:
            return np.array([place for place in map(self.index.get, item_ids) if place is not None], dtype=np.int64)

    def encode(self, histories: Sequence[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        """Return the users' vectors; for kinds `linear` and `scorer` the items' scores before the bias. (B, D)

        Args:
            histories: item indices of each user, oldest first; must not be empty. An item that stands there twice
                counts once, at its latest place, as in the online store.
            user_features: (B, F) raw feature values in the manifest's order; NaN (unknown) counts as the mean.
        """
        recent = [by_latest_event(history)[-self.manifest.max_history :] for history in histories]
        if self.manifest.kind == "ials":
            users = [self._solve(history) for history in recent]
            return users[0][None] if len(users) == 1 else np.stack(users)
        if self.manifest.kind == "mean":
            return np.stack([self._mean(history) for history in recent])
        if self.manifest.kind == "linear":
            summed = [self.item_vectors.weighted_sum(history, self._weights(len(history))) for history in recent]
            return np.stack(summed).astype(np.float32)  # (B, I)
        if self.manifest.kind == "onnx":
            return self._run_encoder(recent, user_features, "user_vector")
        block = max(1, BLOCK_PAIRS // self.n_items)
        parts = [slice(start, start + block) for start in range(0, len(recent), block)]
        features = [None if user_features is None else user_features[part] for part in parts]
        return np.concatenate(
            [self._run_encoder(recent[part], known, "scores") for part, known in zip(parts, features, strict=True)]
        )  # (B, I)

    def score(self, histories: Sequence[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        """Return each user's score of each item; a user with an empty history gets the popularity. float32 (B, I)"""
        known = [row for row, history in enumerate(histories) if len(history)]
        if self.manifest.kind == "popularity" or not known:
            return np.tile(self.popularity, (len(histories), 1))  # (B, I)
        features = None if user_features is None else user_features[known]
        users = self.encode([histories[row] for row in known], features)  # (B', D)
        scored = users if self.manifest.kind in GIVES_SCORES else users @ self.item_vectors.T  # (B', I)
        if self.item_bias is not None:
            scored += self.item_bias
        if len(known) == len(histories):
            return scored
        scores = np.tile(self.popularity, (len(histories), 1))  # (B, I)
        scores[known] = scored
        return scores

    def best(
        self,
        histories: Sequence[np.ndarray],
        user_features: np.ndarray | None,
        lengths: Sequence[int],
        left_out: Sequence[Sequence[np.ndarray | slice]],
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return each user's best items and their scores: at most as many as `lengths` says, best first, ties by item.

        The same lists as sorting `score` gives, sooner where the catalogue is large. With an index beside the bundle
        nearly the same ones: `index_recall` says how nearly.

        Args:
            left_out: indices (or slices) of the items that a user is not shown.
        """
        known = [row for row, history in enumerate(histories) if len(history)]
        if self._approximate is not None and known:
            return self._nearly_best(known, histories, user_features, lengths, left_out)
        if self._eight_bit is None or not known:
            scores = self.score(histories, user_features)  # (B, I)
            return [_best_of(row, k, out) for row, k, out in zip(scores, lengths, left_out, strict=True)]
        found: list[tuple[np.ndarray, np.ndarray]] = [(_NONE, _NONE)] * len(histories)
        users = self.encode([histories[row] for row in known], None if user_features is None else user_features[known])
        for row, user, look in zip(known, users, self._eight_bit.looks(users), strict=True):
            for items in left_out[row]:
                look.leave_out(items)
            candidates = look.candidates(_at_most_the_kth(look.steps, lengths[row]))
            if len(candidates) <= MANY * self.n_items:
                found[row] = _first(candidates, self._eight_bit.exact(user, candidates), lengths[row])
            else:
                full = user @ self.item_vectors.T
                full = full if self.item_bias is None else full + self.item_bias
                found[row] = _best_of(full, lengths[row], left_out[row])
        for row in set(range(len(histories))).difference(known):
            found[row] = _best_of(self.popularity.copy(), lengths[row], left_out[row])
        return found

    @property
    def index_recall(self) -> float | None:
        """Share of the true best 100 that the index beside the bundle finds; None where every item is scored."""
        return None if self._approximate is None else self._approximate.tuned.recall

    def _nearly_best(
        self,
        known: Sequence[int],
        histories: Sequence[np.ndarray],
        user_features: np.ndarray | None,
        lengths: Sequence[int],
        left_out: Sequence[Sequence[np.ndarray | slice]],
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return what the index finds for the known, and popularity for the others. What it finds too little of is
        scored in full."""
        assert self._approximate is not None
        users = self.encode([histories[row] for row in known], None if user_features is None else user_features[known])
        user_of = dict(zip(known, users, strict=True))
        found = []
        for row in range(len(histories)):
            user = user_of.get(row)
            nearly = None if user is None else self._approximate.best(user, lengths[row], left_out[row])
            if nearly is None:
                scores = self.popularity.copy() if user is None else self.item_vectors @ user
                if user is not None and self.item_bias is not None:
                    scores = scores + self.item_bias
                nearly = _best_of(scores, lengths[row], left_out[row])
            found.append(nearly)
        return found

    def recommend(
        self,
        histories: Sequence[np.ndarray],
        k: int,
        user_features: np.ndarray | None = None,
        allowed: np.ndarray | None = None,
        filter_seen: bool = True,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return each user's k best items and their scores, best first, ties by item id. Both (B, k).

        Args:
            k: list length; beyond the number of eligible items the rows are padded with index -1 and score -inf.
            allowed: bool (I,), the items that may be shown; all by default.
            filter_seen: leave out the items of the user's own history.
        """
        scores = self.score(histories, user_features)
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        if filter_seen:
            for row, history in enumerate(histories):
                scores[row, history] = -np.inf
        return top_k(scores, k)

    def similar_items(self, item: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the k items most like this one, without it, and how much.

        By cosine; for kind `linear` by the weight that this item gives them; by popularity where it has neither.
        """
        if self.item_vectors is None:
            scores = self.popularity.copy()
        elif isinstance(self.item_vectors, SparseRows):
            given, weights = self.item_vectors.row(item)
            scores = np.zeros(self.n_items, np.float32) if len(given) else self.popularity.copy()
            scores[given] = weights
        else:
            norms = np.linalg.norm(self.item_vectors, axis=1) + 1e-12
            scores = self.item_vectors @ self.item_vectors[item] / (norms * norms[item])
        scores[item] = -np.inf
        best, values = top_k(scores[None], k)
        return best[0], values[0]

    def _weights(self, length: int) -> np.ndarray:
        """Weight of each place of a history, the latest (last) place 1. float32 (length,)"""
        return _recency(length, self.manifest.recency_exponent)

    def _solve(self, history: np.ndarray) -> np.ndarray:
        """Closed-form user of iALS (Hu et al. 2008; regularisation of Rendle et al. 2021), events weighted. (D,)"""
        vectors, weights = self._by_row.take(history, axis=0), self._weights(len(history))  # (L, D), (L,)
        observed = weights.sum() + self.manifest.unobserved_weight * self.n_items
        left = (vectors * weights[:, None]).T @ vectors  # (D, D)
        left += self._unobserved
        left.ravel()[:: len(left) + 1] += self.manifest.reg * observed**self.manifest.reg_exponent  # the diagonal
        return np.linalg.solve(left, weights @ vectors).astype(np.float32)

    def _mean(self, history: np.ndarray) -> np.ndarray:
        weights = self._weights(len(history))
        return weights @ self.item_vectors[history] / weights.sum()

    def _run_encoder(
        self, histories: Sequence[np.ndarray], user_features: np.ndarray | None, output: str
    ) -> np.ndarray:
        longest = max(len(history) for history in histories)
        padded = np.zeros((len(histories), longest), np.int64)  # (B, L)
        mask = np.zeros((len(histories), longest), np.float32)
        for row, history in enumerate(histories):
            padded[row, longest - len(history) :] = history  # right-aligned: the latest item stands last
            mask[row, longest - len(history) :] = 1
        inputs = {"history": padded, "mask": mask}
        if self.manifest.user_features:
            inputs["user_features"] = self._standardised(user_features, len(histories))
        return self._session.run([output], inputs)[0]

    def _standardised(self, user_features: np.ndarray | None, rows: int) -> np.ndarray:
        width = len(self.manifest.user_features)
        raw = np.full((rows, width), np.nan) if user_features is None else np.asarray(user_features, float)
        scaled = (raw - np.array(self.manifest.feature_mean)) / np.array(self.manifest.feature_scale)
        return np.clip(np.nan_to_num(scaled, nan=0.0), -5, 5).astype(np.float32)  # (B, F)


def _item_weights(folder: Path, arrays: dict[str, np.ndarray], n_items: int) -> SparseRows:
    try:
        return SparseRows(arrays, n_items)
    except (KeyError, ValueError) as error:
        raise UnusableInput("model bundle", folder, f"Its weights cannot be read ({error}); train it again") from error


@lru_cache(1024)
def _recency(length: int, exponent: float) -> np.ndarray:
    age = np.arange(length, dtype=np.float32)[::-1]  # 0 is the latest
    weights = (1 + age) ** np.float32(-exponent)
    weights.flags.writeable = False
    return weights


_NONE = np.empty(0, np.int64)


def _first(items: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best of some items, which ascend, with their scores; ties by item. Both at most (k,)"""
    if len(items) > k:
        best = scores.copy()
        best.partition(len(best) - k)
        good = (scores >= best[len(best) - k]).nonzero()[0]
        items, scores = items.take(good), scores.take(good)
    order = (-scores).argsort(kind="stable")[:k]
    return items.take(order), scores.take(order)


def _best_of(scores: np.ndarray, k: int, left_out: Sequence[np.ndarray | slice]) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best of a row (I,), which is written to, without what is left out."""
    for items in left_out:
        scores[items] = -np.inf
    best, values = top_k(scores[None], k)
    shown = best[0] >= 0
    return best[0, shown], values[0, shown]


def by_latest_event(history: np.ndarray) -> np.ndarray:
    """Return the history with each item once, at its latest place."""
    if len(set(history.tolist())) == len(history):  # as the online store gives it
        return history
    _, from_the_end = np.unique(history[::-1], return_index=True)
    return history[np.sort(len(history) - 1 - from_the_end)]


def top_k(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best columns of each row and their scores, ties by column. Both (B, k); padded with -1 and -inf.

    Columns with score -inf are never returned.

    Raises:
        ValueError: k is below one.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    best = np.full((len(scores), k), -1, np.int64)
    values = np.full((len(scores), k), -np.inf, np.float32)
    for row, line in enumerate(scores):
        threshold = _at_most_the_kth(line, k)
        candidates = np.flatnonzero(line >= threshold if threshold > -np.inf else line > -np.inf)
        chosen = candidates[np.argsort(-line[candidates], kind="stable")][:k]  # they ascend: ties stay by column
        best[row, : len(chosen)] = chosen
        values[row, : len(chosen)] = line[chosen]
    return best, values


def _at_most_the_kth(line: np.ndarray, k: int) -> float:
    """Return a bound that the k best of this row (I,) reach and few others do; -inf where there are no more than k.

    The k-th best of the maxima of disjoint groups is such a bound: k items at least reach it. One pass over the row
    finds the maxima, and only they are sorted: a quarter of the time of sorting the row.
    """
    if k >= len(line):
        return -math.inf
    if len(line) >= 2 * k * GROUP_SIZE:
        groups = len(line) // GROUP_SIZE
        best = np.maximum.reduce(line[: groups * GROUP_SIZE].reshape(GROUP_SIZE, groups))  # (groups,)
    else:
        best = line.copy()
    best.partition(len(best) - k)
    return best[len(best) - k].item()


def _onnx_session(path: Path, threads: int):
    import onnxruntime  # only bundles of kind `onnx` need it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
