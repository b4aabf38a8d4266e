"""Lines of CSV: those without a quote, which are split, give what a parser gives of the same line with quotes."""

import csv

import pytest

from etl import casts
from etl.files import RawFiles

NAMES = ("a", "b", "c")
WHOLE = ["1,2,3", " 1 , 2 ,3 ", ",,", ",b,", ",,c", "é,日,🎬", "it's,a\\,b", "\t,\t,\t", "#,;,|", "a\x1fb,\x7f,'"]
BROKEN = ["1,2", "1,2,3,4", "1", ",,,", "," * 50]


@pytest.fixture(scope="module")
def parsed(spark, tmp_path_factory) -> dict[str, tuple]:
    """Record → fields and whether the line is broken; each line plain and with its first field in quotes."""
    path = tmp_path_factory.mktemp("lines") / "lines.csv"
    path.write_text("\n".join(WHOLE + BROKEN + [quoted(line) for line in WHOLE + BROKEN]) + "\n", newline="")
    frame = casts.csv(casts.lines(spark, RawFiles("source", "interactions", "lines.csv", (path,))), NAMES)
    return {row[casts.RECORD]: (tuple(row[:3]), row[casts.UNREADABLE]) for row in frame.collect()}


def quoted(line: str) -> str:
    first, *others = line.split(",")
    return ",".join([f'"{first}"', *others])


@pytest.mark.parametrize("line", WHOLE)
def test_fields_are_those_of_a_parser_and_empty_ones_null(parsed, line):
    (read,) = csv.reader([line])
    expected = tuple(field or None for field in read)
    assert parsed[line] == (expected, None)
    assert parsed[quoted(line)] == (expected, None)


@pytest.mark.parametrize("line", BROKEN)
def test_a_line_with_other_than_its_fields_is_broken(parsed, line):
    assert parsed[line][1] == parsed[quoted(line)][1] == casts.BROKEN_ROW
