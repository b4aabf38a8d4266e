"""Splits of interactions into training and test, by time.

The split is a global one: everything before the cut instant is for training, of all users. A test user's own events
after it are split at the user's request instant: the earlier part is history, known at the time of the request and used
by fold-in only; the later part is the target. No model sees any event at or after the cut while it is trained.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TemporalSplit:
    """Row indices into the interactions that were split."""

    cut_at: int
    """The cut instant, in the unit of the given instants."""
    train: np.ndarray
    """Rows strictly before the cut, of all users. int64 (n_train,)."""
    history: np.ndarray
    """Rows known at each test user's request: all of theirs before it. int64 (n_history,)."""
    target: np.ndarray
    """Rows after each test user's request. int64 (n_target,)."""


def temporal_split(
    users: np.ndarray, instants: np.ndarray, train_share: float = 0.8, known_until: int | None = None
) -> TemporalSplit:
    """Split by one global instant, and each test user's later events by the user's request instant.

    Args:
        users: user of each interaction, integers (n,).
        instants: when it happened, integers (n,); any unit.
        train_share: share of the interactions before the cut, in (0, 1).
        known_until: the cut lies so that this share of what happened from this instant on lies before it, where that
            is later; None, or nothing happened since: of all interactions.

    A user with fewer than two interactions at or after the cut is no test user. Of a test user's m interactions
    after the cut, in the order of time and then of row, the first m // 2 are history. Ties with the last history
    instant stay where that order puts them.

    Raises:
        ValueError: the arrays differ in length or are empty, or the share is outside (0, 1).
    """
    users, instants = np.asarray(users), np.asarray(instants)
    if users.shape != instants.shape or users.ndim != 1 or not len(users):
        raise ValueError(f"users {users.shape} and instants {instants.shape} must be equally long and not empty")
    if not 0 < train_share < 1:
        raise ValueError(f"train_share must lie in (0, 1), got {train_share}")

    ordered = np.sort(instants, kind="stable")
    first = 0 if known_until is None else int(np.searchsorted(ordered, known_until)) % len(ordered)
    cut_at = int(ordered[first + int((len(ordered) - first) * train_share)])
    is_train = instants < cut_at

    later = np.flatnonzero(~is_train)
    later = later[np.lexsort((later, instants[later], users[later]))]  # by user, then time, then row
    _, begin, count = np.unique(users[later], return_index=True, return_counts=True)
    position = np.arange(len(later)) - np.repeat(begin, count)
    counts = np.repeat(count, count)
    is_tested = counts >= 2
    is_later_history = is_tested & (position < counts // 2)

    test_users = np.unique(users[later[is_tested]])
    earlier_history = np.flatnonzero(is_train & np.isin(users, test_users))
    return TemporalSplit(
        cut_at=cut_at,
        train=np.flatnonzero(is_train),
        history=np.sort(np.concatenate([earlier_history, later[is_later_history]])),
        target=np.sort(later[is_tested & ~is_later_history]),
    )
