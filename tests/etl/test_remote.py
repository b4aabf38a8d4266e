"""Raw files in object storage: heads stand for them, Spark reads the whole ones where they are."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from etl import remote
from etl.discovery import discover
from recsys.errors import RecsysError, UnusableInput
from recsys.settings import HOME, Settings
from tests.worlds import etl_files as files
from tests.worlds import object_store

NEEDED = {
    "s3a://raw/movies": "org.apache.hadoop:hadoop-aws",
    "gs://raw/movies": "org.apache.hadoop:hadoop-gcp",
    "abfs://raw@account.dfs.core.windows.net/movies": "org.apache.hadoop:hadoop-azure",
}


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    """A folder that Spark reads like a store, with a release whose files are longer than their heads."""
    monkeypatch.setattr(remote, "HEAD_BYTES", 40)
    files.movielens_1m(tmp_path / "store" / "ml-1m")
    return tmp_path / "store"


@pytest.fixture
def heads(spark, store, tmp_path) -> Path:
    return remote.bring_heads(spark, f"file://{store}", tmp_path / "heads")


def fingerprints(folder: Path, var: Path) -> list[str]:
    found = discover(Settings(_env_file=None, var_dir=var, data_dir=folder), ["movies"])
    return [files.fingerprint for _, files in found]


def test_what_is_landed_is_the_whole_file_and_not_its_head(land, store, heads):
    assert (heads / "ml-1m" / "ratings.dat").stat().st_size == 40 < (store / "ml-1m" / "ratings.dat").stat().st_size
    there, here = land(heads, lake="there"), land(store, lake="here")
    assert there.counts == here.counts
    assert there.count().rows_landed > 1
    for table in ("interactions", "items", "users", "quarantine"):
        assert there.rows(table) == here.rows(table), table


def test_heads_follow_the_store(spark, store, heads, tmp_path):
    before = fingerprints(heads, tmp_path)
    assert before == fingerprints(heads, tmp_path)
    with (store / "ml-1m" / "ratings.dat").open("a") as file:
        file.write("1::1::5::978300999\n")
    (store / "ml-1m" / "users.dat").unlink()
    remote.bring_heads(spark, f"file://{store}", heads)
    after = fingerprints(heads, tmp_path)
    assert len(after) == len(before) - 1
    assert not set(after[:1]) & set(before)


@pytest.mark.parametrize("url", NEEDED)
def test_a_connector_that_is_not_there_is_named(spark, url, tmp_path):
    with pytest.raises(RecsysError, match=f"RECSYS_SPARK_PACKAGES={NEEDED[url]}"):
        remote.bring_heads(spark, url, tmp_path)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [("ftp://raw/movies", "Begin it with one of"), ("s3a://user:secret@raw/movies", "Leave credentials")],
)
def test_an_address_that_is_none_is_refused_without_its_password(url, sentence):
    with pytest.raises(RecsysError, match=sentence) as refused:
        remote.check_url(url)
    assert "secret" not in str(refused.value)


def test_an_empty_place_is_said(spark, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnusableInput, match="no file is there"):
        remote.bring_heads(spark, f"file://{tmp_path / 'empty'}", tmp_path / "heads")


def run(command: list[str], **said: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=HOME, env=os.environ | said, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.services
@pytest.mark.soak
def test_spark_reads_a_bucket_through_hadoops_own_connector(world, tmp_path):
    """The connector's jars come from Maven's public repository, 700 MB at the first time: they stay in Ivy's folder."""
    settings = world("postgres")
    files.movielens_1m(tmp_path / "there" / "ml-1m", suffix=".gz")
    command = ["etl", "land", "--domains", "movies", "--as-of", files.AS_OF]
    here = run(command, RECSYS_DATA_DIR=str(tmp_path / "there"), RECSYS_LAKE_URL=str(tmp_path / "here"))
    with object_store.bucket(tmp_path) as (address, store):
        object_store.put(store, tmp_path / "there")
        options = {
            "spark.hadoop.fs.s3a.endpoint": "http://" + parse_qs(urlsplit(address).query)["endpoint_override"][0],
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.endpoint.region": "us-east-1",
        }
        said = {
            "RECSYS_DATA_URL": "s3a://raw/movies", "RECSYS_LAKE_URL": str(tmp_path / "lake"),
            "RECSYS_SPARK_PACKAGES": remote.CONNECTORS["s3a"], "RECSYS_SPARK_OPTIONS": json.dumps(options),
        }  # fmt: skip
        landed = run(command, **said)
        assert run(command, **said)["unchanged"] is True
    assert settings.postgres_url
    assert landed["rows_landed"] == here["rows_landed"] == len(files.RATINGS)
    assert [count["quarantine"] for count in landed["sources"]] == [count["quarantine"] for count in here["sources"]]


@pytest.mark.soak
@pytest.mark.parametrize(
    ("scheme", "connector", "implementation"),
    [
        ("abfs", "abfs", "org.apache.hadoop.fs.azurebfs.AzureBlobFileSystem"),
        ("gs", "gs", "org.apache.hadoop.fs.gs.GoogleHadoopFileSystem"),
    ],
)
def test_the_other_stores_connectors_load(scheme, connector, implementation, tmp_path):
    """No emulator of theirs is here: seen is that the class which answers for their addresses loads."""
    asked = f"""
from etl.spark import session
from recsys.settings import Settings
settings = Settings(_env_file=None, var_dir="{tmp_path}", spark_packages="{remote.CONNECTORS[connector]}")
with session(settings, 0, keep_classes=False) as spark:
    file_system = spark._jvm.org.apache.hadoop.fs.FileSystem
    print(file_system.getFileSystemClass("{scheme}", spark._jsc.hadoopConfiguration()).getName())
"""
    done = subprocess.run([sys.executable, "-c", asked], cwd=HOME, capture_output=True, text=True)
    assert implementation in done.stdout, done.stderr[-3000:]
