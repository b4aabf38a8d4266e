"""The model registry by MLflow's REST API: its Python client needs seconds to import, a look every minute does not.

Tags of a version are how the stations agree on its way to champion (recsys/promotion.py).
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from recsys.artifacts import (
    ALIAS_CHAMPION,
    REGISTERED_MODEL,
    TAG_AS_OF,
    TAG_CHECKED_AT,
    TAG_MODEL,
    TAG_PROMOTION_AGAINST,
    TAG_PROMOTION_ENTERED_AT,
    TAG_PROMOTION_LIVE_AT,
    TAG_PROMOTION_STAGE,
    TAG_PROMOTION_WHY,
)
from recsys.errors import ServiceUnavailable, UnusableInput
from recsys.promotion import Candidacy

MOST_VERSIONS = 1000
"""The latest so many versions are looked at."""
SECONDS = 10
LONGEST_TAG = 5000


def candidacies(mlflow_url: str) -> list[Candidacy]:
    """Return every version that is or was on its way to champion, the latest first.

    Raises:
        ServiceUnavailable: the registry does not answer.
        UnusableInput: a version's tags are none that this platform writes.
    """
    asked = {"filter": f"name='{REGISTERED_MODEL}'", "max_results": str(MOST_VERSIONS)}
    found = []
    for one in _get(mlflow_url, "model-versions/search", asked).get("model_versions", []):
        tags = {tag["key"]: tag["value"] for tag in one.get("tags", [])}
        if TAG_PROMOTION_STAGE in tags:
            found.append(_candidacy(str(one["version"]), one.get("run_id", ""), tags))
    return sorted(found, key=lambda candidacy: -int(candidacy.version))


def models_by_version(mlflow_url: str) -> list[tuple[str, str, str]]:
    """Return version, run and model's name of every version that says which model it is, the latest first.

    Raises:
        ServiceUnavailable: the registry does not answer.
    """
    asked = {"filter": f"name='{REGISTERED_MODEL}'", "max_results": str(MOST_VERSIONS)}
    found = []
    for one in _get(mlflow_url, "model-versions/search", asked).get("model_versions", []):
        tags = {tag["key"]: tag["value"] for tag in one.get("tags", [])}
        if TAG_MODEL in tags:
            found.append((str(one["version"]), str(one.get("run_id", "")), tags[TAG_MODEL]))
    return sorted(found, key=lambda known: -int(known[0]))


def under_way(known: list[Candidacy]) -> Candidacy | None:
    """Return the version that serving shall hold beside the champion: at most one ever left the stage `candidate`."""
    return max((one for one in known if one.stage.is_served), key=lambda one: int(one.version), default=None)


def _candidacy(version: str, run_id: str, tags: Mapping[str, str]) -> Candidacy:
    try:
        return Candidacy(
            version=version,
            run_id=run_id,
            stage=tags[TAG_PROMOTION_STAGE],
            against=tags.get(TAG_PROMOTION_AGAINST, ""),
            entered_at=tags.get(TAG_PROMOTION_ENTERED_AT, ""),
            live_at=tags.get(TAG_PROMOTION_LIVE_AT) or None,
            why=tags.get(TAG_PROMOTION_WHY, ""),
        )
    except ValidationError as error:
        raise UnusableInput(
            f"promotion tags of version {version}",
            "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors()),
            f"Delete its tag {TAG_PROMOTION_STAGE} on MLflow's page",
        ) from error


def tags_of(candidacy: Candidacy) -> dict[str, str]:
    """Return the tags that say this of a version; the stage stands last, so that it is written last."""
    return {
        TAG_PROMOTION_AGAINST: candidacy.against,
        TAG_PROMOTION_ENTERED_AT: candidacy.entered_at.isoformat(),
        TAG_PROMOTION_LIVE_AT: candidacy.live_at.isoformat() if candidacy.live_at else "",
        TAG_PROMOTION_WHY: candidacy.why[:LONGEST_TAG],
        TAG_PROMOTION_STAGE: candidacy.stage.value,
    }


def write_candidacy(mlflow_url: str, candidacy: Candidacy) -> None:
    """Set the tags that say this of a version.

    Raises:
        ServiceUnavailable: the registry does not answer, or refuses to be written to.
    """
    for key, value in tags_of(candidacy).items():
        body = {"name": REGISTERED_MODEL, "version": candidacy.version, "key": key, "value": value}
        _post(mlflow_url, "model-versions/set-tag", body, "a tag")


def champion_of(mlflow_url: str) -> str | None:
    """Return the champion's version, None while there is none.

    Raises:
        ServiceUnavailable: the registry does not answer.
    """
    found = _champion(mlflow_url)
    return str(found["version"]) if found else None


def champion_knows_until(mlflow_url: str) -> datetime | None:
    """Return when the champion's data ended, at the latest: its tag names the day, which may not have been over when
    the version was registered. None without a champion or such a tag.

    Raises:
        ServiceUnavailable: the registry does not answer.
    """
    found = _champion(mlflow_url) or {}
    tags = {tag["key"]: tag["value"] for tag in found.get("tags", [])}
    if TAG_AS_OF not in tags:
        return None
    registered = datetime.fromtimestamp(int(found["creation_timestamp"]) / 1000, UTC)
    return min(datetime.fromisoformat(tags[TAG_AS_OF]), registered)


def _champion(mlflow_url: str) -> dict[str, Any] | None:
    """Return the champion's version as MLflow tells it: version, tags, creation_timestamp (ms)."""
    query = {"name": REGISTERED_MODEL, "alias": ALIAS_CHAMPION}
    try:
        return _get(mlflow_url, "registered-models/alias", query)["model_version"]
    except _NotThere:
        return None


def point_champion(mlflow_url: str, version: str) -> None:
    """Point the alias at a version.

    Raises:
        ServiceUnavailable: the registry does not answer, or refuses to be written to; the alias stays.
    """
    body = {"name": REGISTERED_MODEL, "alias": ALIAS_CHAMPION, "version": version}
    _post(mlflow_url, "registered-models/alias", body, "a moved alias")


def check_writable(mlflow_url: str, now: datetime) -> None:
    """Return if the registry takes a change: a tag of the registered model says when.

    Raises:
        ServiceUnavailable: the registry does not answer, or refuses to be written to.
    """
    body = {"name": REGISTERED_MODEL, "key": TAG_CHECKED_AT, "value": now.isoformat()}
    _post(mlflow_url, "registered-models/set-tag", body, "a tag")


class _NotThere(Exception):
    """The registry answers that there is no such thing."""


def _get(mlflow_url: str, path: str, query: Mapping[str, str]) -> dict[str, Any]:
    url = f"{mlflow_url}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code in {400, 404}:  # an alias that nothing has is a bad request to MLflow
            raise _NotThere(path) from error
        raise _unavailable(f"{mlflow_url} answers {error.code}") from error
    except (OSError, ValueError) as error:
        raise _unavailable(f"{mlflow_url}: {error}") from error


def _post(mlflow_url: str, path: str, body: Mapping[str, Any], what: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{mlflow_url}/api/2.0/mlflow/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise ServiceUnavailable(
            "MLflow", f"{mlflow_url} answers {error.code} to {what}", "Nothing was changed; is it read-only?"
        ) from error
    except (OSError, ValueError) as error:
        raise _unavailable(f"{mlflow_url}: {error}") from error


def _unavailable(value: str) -> ServiceUnavailable:
    return ServiceUnavailable("MLflow", value, "Start the platform with `make up`, or set RECSYS_MLFLOW_URL")


def record_run(
    mlflow_url: str,
    experiment: str,
    name: str,
    span: tuple[datetime, datetime],
    params: Mapping[str, object],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> None:
    """Log something that was done as a finished run of an experiment, made if it is missing. A run of the same name
    and begin is the same one and is logged once.

    Args:
        span: when it began and ended.

    Raises:
        ServiceUnavailable: the registry does not answer, or refuses to be written to.
    """
    began, ended = (int(at.timestamp() * 1000) for at in span)
    try:
        found = _get(mlflow_url, "experiments/get-by-name", {"experiment_name": experiment})
        experiment_id = found["experiment"]["experiment_id"]
    except _NotThere:
        experiment_id = _post(mlflow_url, "experiments/create", {"name": experiment}, "an experiment")["experiment_id"]
    wanted = {
        "experiment_ids": [experiment_id], "max_results": 1,
        "filter": f"attributes.run_name = '{name}' and attributes.start_time = {began}",
    }  # fmt: skip
    if _post(mlflow_url, "runs/search", wanted, "a search").get("runs"):
        return
    body = {"experiment_id": experiment_id, "run_name": name, "start_time": began}
    run_id = _post(mlflow_url, "runs/create", body, "a run")["run"]["info"]["run_id"]
    batch = {
        "run_id": run_id,
        "params": [{"key": key, "value": str(value)} for key, value in params.items()],
        "metrics": [{"key": key, "value": value, "timestamp": ended, "step": 0} for key, value in metrics.items()],
        "tags": [{"key": key, "value": value[:LONGEST_TAG]} for key, value in tags.items()],
    }
    _post(mlflow_url, "runs/log-batch", batch, "a run's metrics")
    _post(mlflow_url, "runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": ended}, "a run's end")


def tags_of_version(mlflow_url: str, version: str) -> dict[str, str]:
    """Return all tags of a version.

    Raises:
        ServiceUnavailable: the registry does not answer, or has no such version.
    """
    try:
        found = _get(mlflow_url, "model-versions/get", {"name": REGISTERED_MODEL, "version": version})
    except _NotThere as error:
        raise _unavailable(f"{mlflow_url} has no version {version}") from error
    return {tag["key"]: tag["value"] for tag in found["model_version"].get("tags", [])}
