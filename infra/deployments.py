"""Every deployment as a run in MLflow: what serves where since when, by which way, and what it came from."""

import platform
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from recsys.artifacts import EXPERIMENT_DEPLOYMENTS
from recsys.registry import record_run, tags_of_version
from recsys.settings import Settings

LOCAL = "local"
FROM_THE_VERSION = ("model", "cut_id", "as_of", "domains", "feature_service", "environment", "git_commit")
"""Tags of the version that its deployment repeats."""


def log_deployment(
    settings: Settings, version: str, way: str, span: tuple[datetime, datetime], told: Mapping[str, Any],
    target: str = LOCAL,
) -> None:  # fmt: skip
    """Log that a version serves, or no longer does.

    Args:
        way: `pipeline`, `promotion` or `rollback`; of a cloud the step: `canary`, `shift`, `promote`, or
            `roll-back`, whose version is the one taken back.
        span: from the command's begin to the first answer of the version.
        told: what the command says; its numbers become metrics, the rest parameters.

    Raises:
        ServiceUnavailable: the registry does not answer; the version serves all the same.
    """
    tags = tags_of_version(settings.mlflow_url, version)
    origin = {name: tags.get(name, "unknown") for name in FROM_THE_VERSION}
    known = {name: value for name, value in told.items() if value is not None and not isinstance(value, bool)}
    numbers = {name: float(value) for name, value in known.items() if isinstance(value, int | float)}
    cpu_seconds = time.process_time()
    cost = {
        "wall_seconds": (span[1] - span[0]).total_seconds(),
        "cpu_seconds": cpu_seconds,
        "cost_usd": cpu_seconds / 3600 * settings.retraining_cpu_hour_usd,
    }
    params = {
        **origin, **{name: value for name, value in known.items() if name not in numbers},
        "version": version, "way": way, "target": target, "python": platform.python_version(),
    }  # fmt: skip
    name = f"version {version}" if target == LOCAL else f"version {version} on {target}"
    record_run(settings.mlflow_url, EXPERIMENT_DEPLOYMENTS, name, span, params, numbers | cost, origin)
