"""`make lineage ID=…`: from a served answer back to the raw partitions, and from a raw partition forward again.

    request id ─► model version ─► data cut ─► raw partitions
    raw partition ─► data cuts ─► model versions ─► answers

A version's tags in the registry say which cut it learned from; a cut is all raw rows of its domains before its as-of
day, so its partitions are those that hold such days. Only receipts, tags and one record are read, and a few
impressions as examples.
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
import redis

from recsys.artifacts import RAW_IMPRESSIONS, REGISTERED_MODEL
from recsys.errors import MissingArtifact, ServiceUnavailable
from recsys.interval import HISTORY
from recsys.settings import Settings
from recsys.user_state import record_key
from recsys.warehouse import connect

TOLD = ("model", "framework", "git_commit", "feature_service", "seed", "ndcg_at_10", "training_seconds", "cpu_seconds")
"""Tags of a version that its lineage shows, beside those that name its data."""
SOME_ANSWERS = 3
MOST_VERSIONS = 1000


@dataclass(frozen=True)
class Partition:
    """A loaded raw partition: `history`, or the first day of its interval."""

    key: str
    label: str
    domains: frozenset[str]
    rows: Mapping[str, int]

    def is_read_by(self, domains: frozenset[str], as_of: str) -> bool:
        """Whether a cut of these domains that ends at this day (exclusive) holds rows of it."""
        return bool(self.domains & domains) and (self.label == HISTORY or self.label < as_of[:10])


def lineage(settings: Settings, id_: str) -> dict[str, Any]:
    """Return what this id was made of, and what was made of it.

    Args:
        id_: a request id, a version of the registered model, the id of a data cut, or a raw partition (its label, e.g.
            `history`, or its whole key).

    Raises:
        MissingArtifact: nothing has this id.
        ServiceUnavailable: the registry, PostgreSQL or Redis does not answer.
    """
    versions = _versions(settings.mlflow_url)
    with connect(settings) as connection:
        partitions = _partitions(connection)
        chosen = [one for one in partitions if id_ in {one.key, one.label}]
        if chosen:
            made = [v for v in versions if any(one.is_read_by(*_data_of(v)) for one in chosen)]
            return _said("raw partition", id_, made, chosen, connection)
        of_cut = [version for version in versions if version["tags"].get("cut_id") == id_]
        if of_cut:
            return _said("data cut", id_, of_cut, _read(partitions, of_cut), connection)
        of_number = [version for version in versions if version["version"] == id_]
        if of_number:
            return _said("model version", id_, of_number, _read(partitions, of_number), connection)
        record = _record(settings, id_)
        answered = [version for version in versions if version["version"] == record["retrieval"]["model_version"]]
        found = _said("request", id_, answered, _read(partitions, answered), connection)
        named = {name: record[name] for name in ("answered_at", "variant", "rung", "retrieval")}
        return {**found, "request": named}


def _said(
    kind: str, id_: str, versions: list[dict], partitions: list[Partition], connection: psycopg.Connection
) -> dict[str, Any]:
    cuts = {v["tags"]["cut_id"]: v["tags"] for v in versions if "cut_id" in v["tags"]}
    return {
        "id": id_,
        "kind": kind,
        "partitions": [{"key": one.key, "rows": one.rows} for one in partitions],
        "cuts": [{"cut_id": cut, "as_of": tags["as_of"], "domains": tags["domains"]} for cut, tags in cuts.items()],
        "versions": [
            {
                "version": version["version"],
                "run_id": version["run_id"],
                "cut_id": version["tags"].get("cut_id"),
                **{name: version["tags"][name] for name in TOLD if name in version["tags"]},
                "some_requests": _some_requests(connection, version["version"]),
            }
            for version in versions
        ],
        "unchanged": True,
    }


def _read(partitions: list[Partition], versions: list[dict]) -> list[Partition]:
    return [one for one in partitions if any(one.is_read_by(*_data_of(version)) for version in versions)]


def _data_of(version: dict) -> tuple[frozenset[str], str]:
    tags = version["tags"]
    return frozenset(filter(None, tags.get("domains", "").split(","))), tags.get("as_of", "")


def _partitions(connection: psycopg.Connection) -> list[Partition]:
    rows = connection.execute(
        "select key, detail -> 'rows' from monitoring.receipts where task = 'etl.load' order by key"
    ).fetchall()
    found = []
    for key, counted in rows:
        label, _, interval_key = key.partition("/")
        found.append(Partition(key, label, frozenset(interval_key.partition("@")[0].split(",")), counted or {}))
    return found


def _some_requests(connection: psycopg.Connection, version: str) -> list[str]:
    rows = connection.execute(
        f"select request_id from {RAW_IMPRESSIONS} where model_version = %s and rank = 1 limit %s",
        (version, SOME_ANSWERS),
    ).fetchall()
    return [row[0] for row in rows]


def _record(settings: Settings, request_id: str) -> dict[str, Any]:
    try:
        with redis.Redis.from_url(settings.record_store, decode_responses=True, socket_timeout=5) as client:
            kept = client.get(record_key(request_id))
    except redis.RedisError as error:
        raise ServiceUnavailable("Redis", error, "Start the platform with `make up`") from error
    if kept is None:
        raise MissingArtifact(
            "lineage",
            request_id,
            "It is no raw partition, data cut or model version; a request is kept for RECSYS_REQUEST_DAYS",
        )
    return json.loads(kept)


def _versions(mlflow_url: str) -> list[dict[str, Any]]:
    """Return the registered versions by the registry's REST API (its client needs seconds to import)."""
    query = urllib.parse.urlencode({"filter": f"name='{REGISTERED_MODEL}'", "max_results": MOST_VERSIONS})
    try:
        with urllib.request.urlopen(f"{mlflow_url}/api/2.0/mlflow/model-versions/search?{query}", timeout=10) as answer:
            found = json.load(answer).get("model_versions", [])
    except OSError as error:
        raise ServiceUnavailable("MLflow", f"{mlflow_url}: {error}", "Start the platform with `make up`") from error
    return [
        {
            "version": str(one["version"]),
            "run_id": one.get("run_id", ""),
            "tags": {tag["key"]: tag["value"] for tag in one.get("tags", [])},
        }
        for one in found
    ]
