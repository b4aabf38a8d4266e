"""Raw files from object storage: moto's S3 over HTTP, spoken to by Arrow's own client, then landed."""

import os
import signal
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest
from pyarrow import fs

from etl.mirror import mirror
from infra.local.service import NotHealthyYet, poll
from recsys.errors import RecsysError, UnusableInput
from recsys.settings import HOME
from tests.conftest import free_port
from tests.worlds import etl_files as files

CLOUD = HOME / ".venv" / "cloud" / "bin" / "python"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The address of a bucket, and Arrow's file system for it."""
    if not CLOUD.exists():
        pytest.skip("moto comes with the clouds' environment, .venv/cloud, which is not installed")
    port, folder = free_port(), tmp_path_factory.mktemp("moto")
    with (folder / "moto.log").open("wb") as log:
        server = subprocess.Popen(
            [str(CLOUD), "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def answers() -> None:
        assert server.poll() is None, (folder / "moto.log").read_text()
        try:
            urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5).close()
        except OSError as error:
            raise NotHealthyYet(str(error)) from error

    said = {"AWS_ACCESS_KEY_ID": "made", "AWS_SECRET_ACCESS_KEY": "up", "AWS_EC2_METADATA_DISABLED": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in said.items():
            patch.setenv(name, value)
        try:
            poll(answers, 120)
            options = f"?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
            store, _ = fs.FileSystem.from_uri(f"s3://raw{options}")
            store.create_dir("raw")
            yield f"s3://raw/movies{options}", store
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(20)


def put(store: fs.FileSystem, folder: Path) -> None:
    for path in sorted(folder.rglob("*.*")):
        with store.open_output_stream(f"raw/movies/{path.relative_to(folder)}", compression=None) as target:
            target.write(path.read_bytes())


def below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}


def test_what_lies_in_a_bucket_is_landed_and_fetched_once(bucket, land, tmp_path):
    address, store = bucket
    here, there = tmp_path / "here", tmp_path / "there"
    files.movielens_1m(there / "ml-1m", suffix=".gz")
    put(store, there)
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
