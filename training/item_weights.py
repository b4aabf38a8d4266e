"""A model that is a matrix of item-item weights and nothing else: the score is the sum of the history's rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

from training.dataset import TrainingData
from training.model import Parts


@dataclass(frozen=True)
class ItemWeights:
    """A fitted model of this kind (training.model.Model)."""

    weights: scipy.sparse.csr_array
    """Row: item of the history, column: item to score, ascending within each row. (I, I)"""
    counts: np.ndarray
    """Popularity, for users without a history. (I,)"""

    def score(self, histories: list[np.ndarray], user_features: np.ndarray | None = None) -> np.ndarray:
        return sparse_scores(histories, self.weights)  # (B, I)

    def parts(self) -> Parts:
        arrays = {
            "popularity": self.counts,
            "weight_start": self.weights.indptr.astype(np.int64),
            "weight_item": self.weights.indices.astype(np.int32),
            "weight_value": self.weights.data.astype(np.float32),
        }
        return Parts("linear", arrays, settings={"max_history": 1_000_000})

    def save_native(self, folder: Path) -> None:
        scipy.sparse.save_npz(folder / "weights.npz", self.weights)


def interaction_matrix(data: TrainingData) -> scipy.sparse.csr_array:
    """Return 1 where a user has used an item. float32 (U, I), a row a code up to the largest"""
    shape = (int(data.users.max()) + 1, data.n_items)
    matrix = scipy.sparse.csr_array((np.ones(len(data.users), np.float32), (data.users, data.items)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def dense_gram(matrix: scipy.sparse.csr_array, block: int = 1000) -> np.ndarray:
    """Return X'X by dense blocks of rows, which is faster than the sparse product unless nearly all is zero. (I, I)"""
    n_rows, n_items = matrix.shape
    if matrix.nnz < 0.002 * n_rows * n_items:
        return (matrix.T @ matrix).toarray()
    gram = np.zeros((n_items, n_items), np.float32)
    for start in range(0, n_rows, block):
        rows = matrix[start : start + block].toarray()  # (R, I)
        gram += rows.T @ rows
    return gram


def history_matrix(histories: list[np.ndarray], n_items: int) -> scipy.sparse.csr_array:
    """Return histories as rows of ones. float32 (B, I)"""
    start = np.append(0, np.cumsum([len(history) for history in histories]))
    items = np.concatenate(histories)
    return scipy.sparse.csr_array((np.ones(len(items), np.float32), items, start), shape=(len(histories), n_items))


def sparse_scores(histories: list[np.ndarray], weights: scipy.sparse.csr_array) -> np.ndarray:
    """Return the sum of each history's rows of item-item weights. float32 (B, I)"""
    users, n_items = history_matrix(histories, weights.shape[0]), weights.shape[0]
    if n_items < 10 * len(histories) and weights.nnz > 0.03 * n_items**2:
        return users.toarray() @ weights.toarray()  # well-filled matrices multiply faster as dense ones
    return (users @ weights).toarray()


def strongest(weights: np.ndarray, most: int) -> scipy.sparse.csr_array:
    """Return a dense matrix in compressed rows, of each row the `most` largest by amount. (R, I)"""
    amounts = np.abs(weights)
    if most < weights.shape[1]:
        bound = weights.shape[1] - most
        least = np.maximum(np.partition(amounts, bound, axis=1)[:, bound], np.float32(1e-30))
        row, column = np.nonzero(amounts >= least[:, None])
    else:
        row, column = np.nonzero(amounts)
    start = np.append(0, np.cumsum(np.bincount(row, minlength=len(weights))))
    return scipy.sparse.csr_array((weights[row, column], column, start), shape=weights.shape)


def strongest_of_columns(weights: scipy.sparse.csc_array, most: int) -> scipy.sparse.csc_array:
    """Return of each column its `most` largest weights by amount, without zeros. (I, b)"""
    kept = weights.data != 0
    for column in range(weights.shape[1]):
        span = slice(weights.indptr[column], weights.indptr[column + 1])
        if span.stop - span.start > most:
            amounts = np.abs(weights.data[span])
            kept[span.start + np.argpartition(-amounts, most)[most:]] = False
    lengths = np.append(0, np.cumsum(kept))[weights.indptr]
    return scipy.sparse.csc_array((weights.data[kept], weights.indices[kept], lengths), shape=weights.shape)
