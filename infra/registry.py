"""The registry's champion, which every target serves."""

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import NamedTuple

from recsys.artifacts import ALIAS_CHAMPION, REGISTERED_MODEL
from recsys.errors import MissingArtifact, ServiceUnavailable


class Version(NamedTuple):
    """One version of the registered model."""

    number: str
    run_id: str


def champion(mlflow_url: str, registered: str = REGISTERED_MODEL) -> Version:
    """Return the version that the alias names, by the registry's REST API (its client needs seconds to import).

    Raises:
        MissingArtifact: no version is champion yet.
        ServiceUnavailable: the registry does not answer.
    """
    query = urllib.parse.urlencode({"name": registered, "alias": ALIAS_CHAMPION})
    try:
        with urllib.request.urlopen(
            f"{mlflow_url}/api/2.0/mlflow/registered-models/alias?{query}", timeout=10
        ) as answer:
            found = json.load(answer)["model_version"]
    except urllib.error.HTTPError as error:
        raise MissingArtifact(
            f"models:/{registered}@{ALIAS_CHAMPION}",
            f"{mlflow_url} answers {error.code}",
            "Train, register and promote first; `make demo` runs all in order",
        ) from error
    except OSError as error:
        raise ServiceUnavailable("MLflow", f"{mlflow_url}: {error}", "Start the platform with `make up`") from error
    return Version(str(found["version"]), found.get("run_id", ""))
