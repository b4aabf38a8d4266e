"""Lays other models beside the served one, so that people can compare their lists on the
storefront; they answer nobody.

    <var_dir>/serving/beside/v7/    the bundle of version 7, with the facts and the ranker that the served one has

The latest version of each model counts, the newest first; what the registry has no bundle of is left out and told.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.registry import Version
from recsys.bundle import read_manifest
from recsys.errors import MissingArtifact, UnusableInput
from recsys.promotion import beside_folder
from recsys.registry import models_by_version
from recsys.settings import Settings

MOST = 4
"""Models beside the served one."""

Furnish = Callable[[Version, Path], Path]
"""Brings a version's bundle, with all that the served one has beside it, into a folder of versions."""


def place_beside(settings: Settings, served: Version, furnish: Furnish) -> dict[str, Any]:
    """Bring the latest version of each other model, `MOST` at most, and take away what else lay there.

    Returns:
        `beside`: the versions that are there; `not_beside`: why others are not.

    Raises:
        ServiceUnavailable: the registry does not answer.
    """
    home = beside_folder(settings).resolve()
    own = read_manifest(settings.served_model).model
    wanted: dict[str, Version] = {}
    for number, run_id, model in models_by_version(settings.mlflow_url):
        if number != served.number and model != own:
            wanted.setdefault(model, Version(number, run_id))
    there, missing = {}, {}
    for version in list(wanted.values())[:MOST]:
        try:
            there[version.number] = furnish(version, home)
        except (MissingArtifact, UnusableInput) as error:
            missing[version.number] = str(error)
    for folder in home.glob("v*"):
        if folder not in there.values():
            shutil.rmtree(folder)
    return {"beside": list(there), "not_beside": missing}
