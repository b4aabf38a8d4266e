"""Raw files in object storage that Spark reads where they are, through Hadoop's own connectors.

    RECSYS_DATA_URL        s3a://bucket/prefix · gs://bucket/prefix · abfs://container@account.dfs.core.windows.net/x
    RECSYS_SPARK_PACKAGES  the connector, as Maven names it, such as org.apache.hadoop:hadoop-aws:3.5.0
    RECSYS_SPARK_OPTIONS   further options of the session, JSON, such as {"spark.hadoop.fs.s3a.endpoint": "…"}

What finds out which official file is which, and whether it can be used, looks at first lines only. So a folder of heads
stands for the store: of each object the first `HEAD_BYTES` under its own name, and a list of where the whole ones
are. It is written through the connector too, so nothing else needs to know the store or its credentials.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import RecsysError, UnusableInput

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LIST = ".remote.json"
HEAD_BYTES = 4 << 20
"""Enough for the first block of every compression."""
SCHEMES = ("s3a", "gs", "abfs", "abfss", "file")
SECRET = re.compile(r"(?<=//)[^/@]*:[^/@]*@")
CLASS_MISSING = re.compile(r"(No FileSystem for scheme \"?\w+|Class [\w.]+ not found|ClassNotFoundException[^\n]*)")
CONNECTORS = {
    "s3a": "org.apache.hadoop:hadoop-aws:3.5.0",
    "abfs": "org.apache.hadoop:hadoop-azure:3.5.0",
    "gs": "org.apache.hadoop:hadoop-gcp:3.5.0",
}


@dataclass(frozen=True)
class Remote:
    """An object: its address, its size and the instant of its last change, which stand for its content."""

    url: str
    bytes: int
    changed_ms: int


def remote_of(path: Path) -> Remote | None:
    """Return the object that a head stands for; None for a file that is what it is."""
    for folder in path.parents:
        if (folder / LIST).is_file():
            found = _listed(folder, (folder / LIST).stat().st_mtime_ns).get(str(path.relative_to(folder)))
            return None if found is None else Remote(**found)
    return None


@lru_cache(8)
def _listed(folder: Path, changed_ns: int) -> dict[str, dict]:
    return json.loads((folder / LIST).read_text())


def heads_folder(var_dir: Path, url: str) -> Path:
    """Return where the heads of a store's folder lie."""
    return var_dir / "etl" / "heads" / hashlib.sha256(url.encode()).hexdigest()[:16]


def check_url(url: str) -> str:
    """Return the scheme of an address.

    Raises:
        RecsysError: it is none of a store's, or carries a password.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme not in SCHEMES or not rest:
        raise RecsysError(
            "RECSYS_DATA_URL", SECRET.sub("…@", url), f"Begin it with one of {', '.join(SCHEMES)}, then ://"
        )
    if SECRET.search(url):
        raise RecsysError("RECSYS_DATA_URL", SECRET.sub("…@", url), "Leave credentials to the provider's configuration")
    return scheme


def bring_heads(spark: SparkSession, url: str, folder: Path) -> Path:
    """Make the folder of heads say what the store holds now; return it.

    Raises:
        RecsysError: the connector of this address is not there, or refuses the address or an option.
        UnusableInput: the store does not answer, refuses, or holds nothing there.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    scheme = check_url(url)
    java = spark._jvm
    try:
        root = java.org.apache.hadoop.fs.Path(url)
        store = root.getFileSystem(spark._jsc.hadoopConfiguration())
        found, listing = {}, store.listFiles(root, True)
        base = store.makeQualified(root).toString().rstrip("/") + "/"
        while listing.hasNext():
            one = listing.next()
            address = one.getPath().toString()
            found[address.removeprefix(base)] = Remote(address, one.getLen(), one.getModificationTime())
        if not found:
            raise UnusableInput(url, "no file is there", "Name the folder that holds the raw files")
        known = json.loads((folder / LIST).read_text()) if (folder / LIST).is_file() else {}
        for name in known.keys() - found.keys():
            (folder / name).unlink(missing_ok=True)
        for name, one in found.items():
            if known.get(name) != asdict(one) or not (folder / name).is_file():
                _bring(java, store, one, folder / name, folder)
    except Py4JJavaError as error:
        said = str(error.java_exception)
        if CLASS_MISSING.search(said):
            package = CONNECTORS.get(scheme.removesuffix("s") if scheme == "abfss" else scheme, "its connector")
            raise RecsysError(
                f"Spark's connector for {scheme}://", said, f"Set RECSYS_SPARK_PACKAGES={package}"
            ) from error
        raise UnusableInput(url, " ".join(said.split())[:300], "Look at address and permissions") from error
    except PySparkException as error:  # Java's IllegalArgumentException, in PySpark's words
        raise RecsysError("RECSYS_DATA_URL", url, f"{error}. Look at address and RECSYS_SPARK_OPTIONS") from error
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{LIST}.draft"
    draft.write_text(json.dumps({name: asdict(one) for name, one in found.items()}, indent=0))
    draft.replace(folder / LIST)
    return folder


def _bring(java, store, one: Remote, path: Path, folder: Path) -> None:
    """Copy the first bytes of an object; below the folder whatever its name says."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UnusableInput(one.url, "its name leads out of the folder", "Rename the object")
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = store.open(java.org.apache.hadoop.fs.Path(one.url))
    try:
        wanted = min(one.bytes, HEAD_BYTES)
        path.write_bytes(bytes(java.org.apache.commons.io.IOUtils.toByteArray(stream, wanted)))
    finally:
        stream.close()
