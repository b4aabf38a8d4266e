"""Receipts chain tasks: same inputs and code, same fingerprint; anything else, another."""

import pytest

from recsys import receipts
from recsys.errors import MissingArtifact
from recsys.warehouse import connect


@pytest.fixture
def connection(world):
    with connect(world("postgres")) as open_connection:
        yield open_connection
        open_connection.rollback()


def test_fingerprint_sees_values_and_their_places_but_not_the_order_of_keys():
    assert receipts.fingerprint({"a": 1, "b": 2}) == receipts.fingerprint({"b": 2, "a": 1})
    assert receipts.fingerprint("a", "b") != receipts.fingerprint("b", "a")
    assert receipts.fingerprint("ab", "") != receipts.fingerprint("a", "b")


def test_code_fingerprint_sees_names_and_contents_of_source_files_only(tmp_path, monkeypatch):
    monkeypatch.setattr(receipts, "HOME", tmp_path)
    station = tmp_path / "station"
    (station / "target").mkdir(parents=True)
    (station / "a.py").write_text("1")
    first = receipts.code_fingerprint("station")
    (station / "notes.txt").write_text("not code")
    (station / "target" / "compiled.sql").write_text("select 1")
    assert receipts.code_fingerprint("station") == first
    (station / "a.py").write_text("2")
    second = receipts.code_fingerprint("station")
    (station / "a.py").rename(station / "b.py")
    third = receipts.code_fingerprint("station")
    assert len({first, second, third}) == 3


def test_file_fingerprint_is_that_of_its_bytes(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"x"), other.write_bytes(b"x")
    assert receipts.file_fingerprint(one) == receipts.file_fingerprint(other)
    other.write_bytes(b"y")
    assert receipts.file_fingerprint(one) != receipts.file_fingerprint(other)


def test_recall_knows_the_wanted_fingerprint_only(connection):
    receipts.record(connection, "t", "k", "one", {"rows": 1})
    assert receipts.recall(connection, "t", "k", "one") == {"rows": 1}
    assert receipts.recall(connection, "t", "k", "two") is None
    receipts.record(connection, "t", "k", "two", {"rows": 2})
    assert receipts.recall(connection, "t", "k", "one") is None
    assert receipts.latest(connection, "t", "k") == ("two", {"rows": 2})


def test_latest_names_the_task_that_is_missing(connection):
    with pytest.raises(MissingArtifact, match=r"training\.cut"):
        receipts.latest(connection, "training.cut", "k")


def test_upstream_takes_all_partitions_of_etl_and_the_own_key_of_others(connection):
    for key in ("history/movies@2020-01-01", "2020-01-01/movies@2020-01-02"):
        receipts.record(connection, "etl.load", key, f"rows of {key}", {})
    for key in ("movies@2020-01-01", "movies@2020-01-02"):
        receipts.record(connection, "dbt.build", key, f"marts of {key}", {})
    assert receipts.upstream(connection, ["etl.load", "dbt.build"], "movies@2020-01-02") == [
        ("etl.load", "2020-01-01/movies@2020-01-02", "rows of 2020-01-01/movies@2020-01-02"),
        ("etl.load", "history/movies@2020-01-01", "rows of history/movies@2020-01-01"),
        ("dbt.build", "movies@2020-01-02", "marts of movies@2020-01-02"),
    ]


def test_one_receipt_of_a_timeless_task_serves_every_interval(connection):
    receipts.record(connection, "feast.apply", receipts.key_of("feast.apply", "movies@2020-01-01"), "applied", {})
    for key in ("movies@2020-01-01", "books@2024-01-01"):
        assert receipts.upstream(connection, ["feast.apply"], key) == [("feast.apply", "always", "applied")]
    assert receipts.key_of("dbt.build", "movies@2020-01-01") == "movies@2020-01-01"


def test_upstream_names_the_task_that_is_missing(connection):
    for task in ("etl.load", "dbt.build"):
        with pytest.raises(MissingArtifact, match=task):
            receipts.upstream(connection, [task], "movies@2020-01-02")
