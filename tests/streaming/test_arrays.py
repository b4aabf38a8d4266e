"""Columns spelled for PostgreSQL come back from it as they were."""

from datetime import UTC, date, datetime

import pytest

from recsys.warehouse import connect
from streaming.arrays import literal

pytestmark = pytest.mark.services

AT = datetime(2026, 11, 29, 12, 30, 1, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", []),
        ("text", ["plain", "", "NULL", "null"]),
        ("text", ["{a,b}", ' "quoted" ', "back\\slash\\", '\\"', "ä, ö", "'; drop table x; --"]),
        ("text", ['one"', '"two']),
        ("text", ['"']),
        ("text", [None, "a\\b", 'c"d']),
        ("float8", [1.5, None, 0.1 + 0.2, -1e-300, float("inf")]),
        ("bigint", [0, -(2**63), None]),
        ("timestamptz", [AT, None]),
        ("date", [date(2026, 2, 28), None]),
    ],
)
def test_a_column_comes_back(world, kind, values):
    with connect(world("postgres")) as connection:
        connection.execute("set time zone 'UTC'")
        ((back,),) = connection.execute(f"select %s::{kind}[]", (literal(values),)).fetchall()

    assert back == values
