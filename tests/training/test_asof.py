"""The join as of an instant, beside its definition."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.asof import latest

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(-5, 5)), max_size=30, unique=True).map(sorted)
QUESTIONS = st.lists(st.tuples(st.integers(0, 6), st.integers(-7, 7)), max_size=30)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.array(pairs, np.int64).reshape(-1, 2)
    return numbers[:, 0], numbers[:, 1]


@given(ROWS, QUESTIONS)
def test_it_is_the_latest_row_of_the_entity_that_is_not_later(rows, questions):
    expected = [
        max((number for number, (code, at) in enumerate(rows) if code == wanted and at <= instant), default=-1)
        for wanted, instant in questions
    ]
    assert latest(*columns(rows), *columns(questions)).tolist() == expected


def test_a_row_counts_from_its_very_instant():
    assert latest(*columns([(0, 10)]), *columns([(0, 9), (0, 10), (0, 11)])).tolist() == [-1, 0, 0]
