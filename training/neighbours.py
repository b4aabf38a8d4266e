"""Ridge regressions of many columns, each on the few inputs that say most of it: an inverse of all would take I³
operations and I² numbers.

The selection is that of Ning and Karypis 2011, "SLIM: Sparse Linear Methods for Top-N Recommender Systems" (fsSLIM).
Products of inputs stand in one dense table of 16-bit numbers (3.2 GB at 40 000 inputs), from which a column's are
gathered. Shapes: R rows, I items, M inputs, N of them chosen for one column.
"""

import numpy as np
import scipy.linalg
import scipy.sparse

BLOCK_COLUMNS, BLOCK_INPUTS = 1000, 500
MOST_MET = 4000
"""Different items, about, that a much used item meets in its users' histories; for the estimate of time alone."""
LARGEST = 60_000.0
"""Of a 16-bit number of floating point, with some room."""


def regress(
    inputs: scipy.sparse.csr_array,
    targets: scipy.sparse.csr_array,
    ridge: np.ndarray,
    neighbours: int,
    max_inputs: int,
    means: tuple[np.ndarray, np.ndarray] | None = None,
) -> scipy.sparse.csr_array:
    """Return each target's weights of the inputs that say most of it by themselves, never of itself. float32 (I, I)

    Args:
        inputs: rows already times the root of their weight. (R, I)
        targets: likewise. (R, I)
        ridge: of each input. (I,)
        neighbours: N; inputs that share no row with a target are none of its neighbours.
        max_inputs: so many of the most used are read at all.
        means: of inputs and targets, times the root of the rows' weight, where both are to be centred. (I,), (I,)
    """
    counts = np.bincount(inputs.indices, minlength=inputs.shape[1])  # (I,)
    read = np.sort(np.argsort(-counts, kind="stable")[:max_inputs])  # (M,)
    squares = np.asarray(inputs.multiply(inputs).sum(0)).ravel().astype(np.float64)  # (I,)
    scale = np.float32(min(1.0, LARGEST / max(squares.max(), 1e-12)))
    flat, size = products(inputs[:, read], scale).reshape(-1), len(read)  # (M · M,)
    mean_input, mean_target = means if means is not None else (None, None)
    centred = squares[read] - (0 if mean_input is None else mean_input[read] ** 2)  # (M,)
    diagonal = (centred + ridge[read]).astype(np.float32)
    mean = None if mean_input is None else mean_input[read].astype(np.float32)
    predicting, by_column = inputs[:, read].T.tocsr(), targets.tocsc()  # (M, R), (R, I)
    columns, rows, values = [np.empty(0, int)], [np.empty(0, int)], [np.empty(0, np.float32)]
    for start in range(0, targets.shape[1], BLOCK_COLUMNS):
        block = (predicting @ by_column[:, start : start + BLOCK_COLUMNS]).tocsc()  # (M, b)
        for place in range(block.shape[1]):
            span = slice(block.indptr[place], block.indptr[place + 1])
            others, shared = block.indices[span], block.data[span]  # places in `read`, and their products
            kept = read[others] != start + place
            others, shared = others[kept], shared[kept]
            if mean is not None:
                shared = shared - mean[others] * np.float32(mean_target[start + place])
            if len(others) > neighbours:
                said = shared * shared / np.maximum(centred[others], 1e-6)
                near = np.sort(np.argpartition(-said, neighbours)[:neighbours])
                others, shared = others[near], shared[near]
            if not len(others):
                continue
            left = flat.take(others[:, None].astype(np.int64) * size + others).astype(np.float32) / scale  # (N, N)
            if mean is not None:
                left -= np.outer(mean[others], mean[others])
            left.reshape(-1)[:: len(left) + 1] = diagonal[others]
            _, solved, failed = scipy.linalg.lapack.sposv(left, shared, lower=1, overwrite_a=1)
            if failed:  # rounding to 16 bits left it not quite positive definite
                left.reshape(-1)[:: len(left) + 1] = 2 * diagonal[others]
                solved = np.linalg.solve(left, shared)
            columns.append(np.full(len(others), start + place))
            rows.append(read[others])
            values.append(solved.ravel().astype(np.float32))
    listed = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return scipy.sparse.csr_array(listed, shape=(inputs.shape[1], targets.shape[1]))


def seconds(users: np.ndarray, items: np.ndarray, neighbours: int, max_inputs: int) -> float:
    """Return about the processor seconds that regressing each item takes: the table of products, gathering those of its
    neighbours, of which there are no more than the others that its users have used, and solving. Measured on one core
    of 2026 that others used as well.

    Args:
        users, items: codes of each interaction. Both (n,)
    """
    others = np.bincount(items, np.bincount(users)[users] - 1.0)  # (I,): at most so many neighbours
    most = np.minimum(others, neighbours)
    inputs, met = min(np.count_nonzero(others), max_inputs), np.minimum(others, MOST_MET)
    table = inputs**2 / 2e8 + float((others / 4e7 + met / 6e6).sum())
    return table + float((most**3 / 3 / 6e9 + most**2 / 2e8).sum())


def products(inputs: scipy.sparse.csr_array, scale: np.float32) -> np.ndarray:
    """Return the products of all inputs, times `scale`. float16 (M, M)"""
    transposed = inputs.T.tocsr()
    table = np.zeros((inputs.shape[1], inputs.shape[1]), np.float16)
    for start in range(0, len(table), BLOCK_INPUTS):
        block = (transposed[start : start + BLOCK_INPUTS] @ inputs).tocoo()
        table[start + block.coords[0], block.coords[1]] = block.data * scale
    return table
