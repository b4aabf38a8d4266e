"""Raw files from object storage: moto's S3 over HTTP, spoken to by Arrow's own client, then landed."""

from pathlib import Path

import pytest

from etl.mirror import mirror
from recsys.errors import RecsysError, UnusableInput
from tests.worlds import etl_files as files
from tests.worlds import object_store


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The address of a bucket, and Arrow's file system for it."""
    with object_store.bucket(tmp_path_factory.mktemp("moto")) as here:
        yield here


def below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}


def test_what_lies_in_a_bucket_is_landed_and_fetched_once(bucket, land, tmp_path):
    address, store = bucket
    here, there = tmp_path / "here", tmp_path / "there"
    files.movielens_1m(there / "ml-1m", suffix=".gz")
    object_store.put(store, there)
    assert mirror(address, here) == {"folder": str(here), "fetched": 3, "kept": 0, "removed": 0}
    assert below(here) == below(there)
    assert land(here).count().rows_landed == len(files.RATINGS)

    (here / "notes.txt").write_text("mine")
    assert mirror(address, here)["kept"] == 3
    store.delete_file("raw/movies/ml-1m/users.dat.gz")
    files.movielens_1m(there / "ml-1m", ratings=files.RATINGS[:2], suffix=".gz")
    with store.open_output_stream("raw/movies/ml-1m/ratings.dat.gz", compression=None) as target:
        target.write((there / "ml-1m" / "ratings.dat.gz").read_bytes())
    assert mirror(address, here) == {"folder": str(here), "fetched": 1, "kept": 1, "removed": 1}
    assert sorted(below(here)) == ["ml-1m/movies.dat.gz", "ml-1m/ratings.dat.gz", "notes.txt"]


def test_an_address_without_files_or_a_store_that_refuses_leaves_the_folder(bucket, tmp_path):
    address, _ = bucket
    (tmp_path / "kept.csv").write_text("a\n")
    for wrong in (address.replace("/movies", "/nothing"), address.replace("//raw", "//elsewhere")):
        with pytest.raises(UnusableInput, match="s3://"):
            mirror(wrong, tmp_path)
    assert below(tmp_path) == {"kept.csv": b"a\n"}


@pytest.mark.parametrize(
    ("address", "sentence"),
    [("nowhere", "Use s3://"), ("ftp://host/x", "Use s3://"), ("s3://key:secret@raw/x", "Leave credentials")],
)
def test_a_wrong_address_is_named_without_its_password(address, sentence, tmp_path):
    with pytest.raises(RecsysError, match=sentence) as error:
        mirror(address, tmp_path)
    assert "secret" not in str(error.value)


def test_a_folder_is_mirrored_like_a_bucket(tmp_path):
    files.movielens_1m(tmp_path / "from")
    assert mirror((tmp_path / "from").as_uri(), tmp_path / "to")["fetched"] == 3
    assert below(tmp_path / "to") == below(tmp_path / "from")
