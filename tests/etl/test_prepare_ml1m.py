"""The rebuilt MovieLens 1M gets its instants back in the order that is known."""

import gzip

import pytest

from bench.prepare_ml1m import prepare

REBUILT = """UserID,MovieID,Rating,Position,Timestamp
1,10,5,3,
1,11,4,1,
1,12,3,2,1000
1,13,2,5,1005
1,14,1,6,
1,15,1,,
1,16,1,,900
2,10,3,1,7
"""


@pytest.fixture
def rebuilt(tmp_path):
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress(REBUILT.encode()))
    for name in ("movies.dat", "users.dat"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(f"1::{name}\n".encode()))
    return tmp_path


def test_known_instants_stay_and_the_others_follow_the_position(rebuilt, tmp_path):
    assert prepare(rebuilt, tmp_path / "out") == {"rows": 8, "real_timestamps": 4}
    assert (tmp_path / "out" / "ratings.dat").read_text().splitlines() == [
        "1::10::5::1001",  # a third of the way from 1000 to 1005, rounded down
        "1::11::4::999",
        "1::12::3::1000",
        "1::13::2::1005",
        "1::14::1::1006",
        "1::15::1::1001",  # the lower median of 999, 1000, 1001, 1005, 1006
        "1::16::1::900",
        "2::10::3::7",
    ]
    assert (tmp_path / "out" / "movies.dat").read_text() == "1::movies.dat\n"


def test_a_user_without_any_known_instant_is_named(rebuilt, tmp_path):
    (rebuilt / "ratings.csv.gz").write_bytes(gzip.compress(REBUILT.replace("1,7", "1,").encode()))
    with pytest.raises(ValueError, match="user 2"):
        prepare(rebuilt, tmp_path / "out")
