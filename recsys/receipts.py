"""Receipts: the proof that a task has already done this very work, so that a second run costs a look-up.

A task's fingerprint covers its parameters, its own code and the fingerprints of what it reads; so the receipts form a
chain, as in a build system. A receipt is written last, in the transaction that completes the output where the output is
in the warehouse: a task that was killed leaves none and is done again.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from recsys.errors import MissingArtifact
from recsys.settings import HOME

CODE_SUFFIXES = {".py", ".sql", ".yml", ".yaml", ".json"}
PARTITIONED = frozenset({"etl.land", "etl.load"})
"""Tasks whose receipts are kept by partition and interval."""
TIMELESS = frozenset({"feast.apply"})
"""Tasks that do not depend on an interval: one receipt serves all."""
ALWAYS = "always"


def fingerprint(*parts: object) -> str:
    """Return a digest of these values; each is rendered as JSON with sorted keys."""
    rendered = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(rendered.encode(), digest_size=16).hexdigest()


def code_fingerprint(*folders: str) -> str:
    """Return a digest of the source files below these folders of the repository, names included."""
    digest = hashlib.blake2b(digest_size=16)
    skipped = {"__pycache__", "target", "logs", "dbt_packages"}
    for folder in sorted(folders):
        for path in sorted((HOME / folder).rglob("*")):
            if path.suffix in CODE_SUFFIXES and not skipped.intersection(path.relative_to(HOME).parts):
                digest.update(path.relative_to(HOME).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """Return a digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def key_of(task: str, interval_key: str) -> str:
    """Return the key under which a task keeps its receipt for an interval; a partitioned task adds its partition."""
    return ALWAYS if task in TIMELESS else interval_key


def recall(connection: psycopg.Connection, task: str, key: str, wanted: str) -> dict[str, Any] | None:
    """Return the detail of this task's receipt if its fingerprint is the wanted one, else None."""
    row = connection.execute(
        "select detail from monitoring.receipts where task = %s and key = %s and fingerprint = %s", (task, key, wanted)
    ).fetchone()
    return row[0] if row else None


def known(connection: psycopg.Connection, task: str, key: str) -> dict[str, Any] | None:
    """Return the detail of a task's receipt, None while there is none."""
    row = connection.execute(
        "select detail from monitoring.receipts where task = %s and key = %s", (task, key)
    ).fetchone()
    return row[0] if row else None


def latest(connection: psycopg.Connection, task: str, key: str) -> tuple[str, dict[str, Any]]:
    """Return the fingerprint and the detail of an upstream task's receipt.

    Raises:
        MissingArtifact: that task has not completed for this key.
    """
    row = connection.execute(
        "select fingerprint, detail from monitoring.receipts where task = %s and key = %s", (task, key)
    ).fetchone()
    if row is None:
        raise MissingArtifact(f"receipt of `{task}`", key, "Run that task first; `make demo` runs all in order")
    return row[0], row[1]


def upstream(connection: psycopg.Connection, tasks: Iterable[str], key: str) -> list[tuple[str, str, str]]:
    """Return task, key and fingerprint of each receipt that these upstream tasks have for an interval.

    A task that writes partitions of the raw tables keeps a receipt for each; who reads those tables reads them all.

    Raises:
        MissingArtifact: one of the tasks has not completed for this key.
    """
    found = []
    for task in tasks:
        if task in PARTITIONED:
            rows = connection.execute(
                "select key, fingerprint from monitoring.receipts where task = %s order by key", (task,)
            ).fetchall()
            if not rows:
                raise MissingArtifact(
                    f"receipt of `{task}`", "none", "Run that task first; `make demo` runs all in order"
                )
            found += [(task, *row) for row in rows]
        else:
            own = key_of(task, key)
            found.append((task, own, latest(connection, task, own)[0]))
    return found


def record(connection: psycopg.Connection, task: str, key: str, wanted: str, detail: dict[str, Any]) -> None:
    """Write or replace this task's receipt."""
    connection.execute(
        """
        insert into monitoring.receipts (task, key, fingerprint, detail) values (%s, %s, %s, %s)
        on conflict (task, key) do update set fingerprint = excluded.fingerprint, detail = excluded.detail
        """,
        (task, key, wanted, json.dumps(detail, default=str)),
    )
