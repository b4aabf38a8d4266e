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
from tests.worlds import emulators, object_store
from tests.worlds import etl_files as files

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


def test_an_address_that_hadoop_refuses_is_named(spark, tmp_path):
    with pytest.raises(RecsysError, match="Wrong FS"):
        remote.bring_heads(spark, "file://elsewhere/x", tmp_path)


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


def check_landed_from(url: str, world, tmp_path: Path, **said: str) -> None:
    """What a store holds is landed, through its connector, as the same files of a folder are; a second time nothing
    has changed."""
    settings = world("postgres")
    command = ["etl", "land", "--domains", "movies", "--as-of", files.AS_OF]
    here = run(command, RECSYS_DATA_DIR=str(tmp_path / "there"), RECSYS_LAKE_URL=str(tmp_path / "here"))
    said |= {
        "RECSYS_DATA_URL": url,
        "RECSYS_LAKE_URL": str(tmp_path / "lake"),
        "RECSYS_SPARK_PACKAGES": remote.CONNECTORS[url.partition(":")[0]],
    }
    landed = run(command, **said)
    assert run(command, **said)["unchanged"] is True
    assert settings.postgres_url
    assert landed["rows_landed"] == here["rows_landed"] == len(files.RATINGS)
    assert [count["quarantine"] for count in landed["sources"]] == [count["quarantine"] for count in here["sources"]]


@pytest.fixture
def there(tmp_path) -> Path:
    """A folder with a whole release, packed."""
    files.movielens_1m(tmp_path / "there" / "ml-1m", suffix=".gz")
    return tmp_path / "there"


# The connectors' jars come from Maven's public repository, S3's 700 MB at the first time: they stay in Ivy's folder.


@pytest.mark.services
@pytest.mark.soak
def test_spark_reads_s3(world, there, tmp_path):
    with object_store.bucket(tmp_path) as (address, store):
        object_store.put(store, there)
        options = {
            "spark.hadoop.fs.s3a.endpoint": "http://" + parse_qs(urlsplit(address).query)["endpoint_override"][0],
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.endpoint.region": "us-east-1",
        }
        check_landed_from("s3a://raw/movies", world, tmp_path, RECSYS_SPARK_OPTIONS=json.dumps(options))


@pytest.mark.services
@pytest.mark.soak
def test_spark_reads_google_storage(world, there, tmp_path):
    with emulators.google(tmp_path, there) as (java_options, account):
        options = {
            "spark.hadoop.fs.gs.auth.type": "SERVICE_ACCOUNT_JSON_KEYFILE",
            "spark.hadoop.fs.gs.auth.service.account.json.keyfile": account,
            "spark.hadoop.fs.gs.project.id": "made-up",
            "spark.driver.extraJavaOptions": java_options,
        }
        check_landed_from("gs://raw/movies", world, tmp_path, RECSYS_SPARK_OPTIONS=json.dumps(options, default=str))


@pytest.mark.services
@pytest.mark.soak
def test_spark_reads_azure_storage(world, there, tmp_path):
    """Azurite plays accounts without hierarchical namespace, at their blob endpoint."""
    host = f"{emulators.ACCOUNT}.dfs.core.windows.net"
    with emulators.azure(tmp_path, there) as (address, key):
        options = {
            f"spark.hadoop.fs.azure.account.key.{host}": key,
            "spark.hadoop.fs.azure.account.hns.enabled": "false",
            "spark.hadoop.fs.azure.fns.account.service.type": "BLOB",
            "spark.hadoop.fs.azure.abfs.endpoint": address,
            "spark.hadoop.fs.azure.always.use.https": "false",
            "spark.hadoop.fs.azure.networking.library": "JDK_HTTP_URL_CONNECTION",
        }
        check_landed_from(f"abfs://raw@{host}/movies", world, tmp_path, RECSYS_SPARK_OPTIONS=json.dumps(options))
