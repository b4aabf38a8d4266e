"""Learning what else stands in a user's set: for two-towers where the order of events means nothing.

In each epoch the items of each user are dealt anew into those that are read and those that are asked for, all of which
the one vector of the read ones has to find: the multinomial likelihood of Liang, Krishnan, Hoffman, Jebara 2018,
"Variational Autoencoders for Collaborative Filtering", on items that the input does not hold. A user's vector costs one
pass of the tower whatever the number of items, so an epoch takes a tenth of one that predicts at every place.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recsys.errors import CheckFailed
from training.dataset import TrainingData

LEAST_READ, MOST_READ = 0.5, 0.9
"""Share of a user's items that is read, evenly drawn between these for each user and epoch."""
MAX_HISTORY = 1000
"""Of a larger set as many are read; in training by chance, afterwards the latest in the file."""


@dataclass(frozen=True)
class SetBatch:
    """B users, R items that are read, P that are asked for."""

    users: int
    read: np.ndarray
    """Item codes, user by user. (R,)"""
    reader: np.ndarray
    """Place of the user in the batch, ascending. (R,)"""
    targets: np.ndarray
    """Item codes. (P,)"""
    asked: np.ndarray
    """Place of the user in the batch, ascending. (P,)"""
    weight: np.ndarray
    """Of each target; one in all. (P,)"""

    def padded(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what is read as rows: items int64 (B, L) and mask float32 (B, L)."""
        lengths = np.bincount(self.reader, minlength=self.users)
        place = np.arange(len(self.reader)) - (np.cumsum(lengths) - lengths)[self.reader]
        items, mask = np.zeros((self.users, lengths.max()), np.int64), np.zeros((self.users, lengths.max()), np.float32)
        items[self.reader, place], mask[self.reader, place] = self.read, 1
        return items, mask


class Sets:
    """The users' sets. U users with two items or more, n pairs of user and item.

    Raises:
        CheckFailed: there is no such user.
    """

    def __init__(self, data: TrainingData, user_exponent: float):
        """`user_exponent`: a user of m targets weighs m^(1 - user_exponent)."""
        sequences = [rows for rows in data.sequences() if len(rows) > 1]
        if not sequences:
            raise CheckFailed("training sequences", 0, "No user has two events before the cut: land more history")
        self.lengths = np.array([len(rows) for rows in sequences])  # (U,)
        self.items = data.items[np.concatenate(sequences)].astype(np.int64)  # (n,)
        self.share = np.bincount(self.items, minlength=data.n_items) / len(self.items)  # (I,)
        self.user_exponent = user_exponent

    def steps(self, size: int) -> int:
        """Return the batches of an epoch."""
        return -(-len(self.lengths) // size)

    def epoch(self, size: int, rng: np.random.Generator) -> Iterator[SetBatch]:
        """Yield all users, up to `size` at once, in random order."""
        n_users = len(self.lengths)
        turn = rng.permutation(n_users)  # (U,): when a user's turn is
        owner = np.repeat(turn, self.lengths)
        dealt = np.lexsort((rng.random(len(owner)), owner))
        lengths = np.bincount(owner, minlength=n_users)  # by turn
        starts = np.append(0, np.cumsum(lengths))
        items, owner = self.items[dealt], owner[dealt]
        place = np.arange(len(items)) - starts[owner]
        read = (lengths * rng.uniform(LEAST_READ, MOST_READ, n_users)).astype(np.int64)
        read = np.clip(read, 1, lengths - 1)  # both sides hold one at least
        for users in np.array_split(np.arange(n_users), self.steps(size)):
            span = slice(starts[users[0]], starts[users[-1] + 1])
            is_read = place[span] < read[owner[span]]
            is_kept = is_read & (place[span] < MAX_HISTORY)
            row = owner[span] - users[0]
            asked = row[~is_read]
            weight = (lengths - read)[users][asked] ** -self.user_exponent
            yield SetBatch(
                len(users), items[span][is_kept], row[is_kept], items[span][~is_read], asked,
                (weight / weight.sum()).astype(np.float32),
            )  # fmt: skip
