"""The data interval: half-open, UTC, one spelling for each."""

from argparse import ArgumentParser
from datetime import UTC, date, datetime

import pytest

from recsys.errors import RecsysError
from recsys.interval import HISTORY, Interval, add_arguments, from_arguments


def read(*arguments: str) -> Interval:
    parser = ArgumentParser()
    add_arguments(parser)
    return from_arguments(parser.parse_args(arguments))


def test_without_since_it_is_the_whole_history():
    interval = read("--as-of", "2020-03-01")
    assert interval == Interval(("movies",), date(2020, 3, 1))
    assert (interval.start, interval.end) == (None, datetime(2020, 3, 1, tzinfo=UTC))
    assert interval.partition == HISTORY


def test_with_since_its_partition_is_its_first_day():
    interval = read("--as-of", "2020-03-01", "--since", "2020-02-29")
    assert interval.start == datetime(2020, 2, 29, tzinfo=UTC)
    assert interval.partition == "2020-02-29"


def test_order_and_repetition_of_domains_do_not_matter():
    one, other = (read("--as-of", "2020-03-01", "--domains", d) for d in ("movies,books", "books,movies,books,"))
    assert one == other
    assert one.key == other.key == "books,movies@2020-03-01"


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["--as-of", "1 March"], "--as-of"),
        (["--as-of", "2020-02-30"], "--as-of"),
        (["--as-of", "2020-03-01", "--since", "yesterday"], "--since"),
        (["--as-of", "2020-03-01", "--since", "2020-03-01"], "--since"),
        (["--as-of", "2020-03-01", "--domains", "opera"], "--domains"),
        (["--as-of", "2020-03-01", "--domains", ","], "--domains"),
    ],
)
def test_nonsense_is_refused_with_its_name(arguments, culprit):
    with pytest.raises(RecsysError, match=culprit):
        read(*arguments)
