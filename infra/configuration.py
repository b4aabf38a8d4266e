"""Which targets an installation has: the JSON file that `RECSYS_CLOUDS` names.

    {"image": "recsys:{version}", "scaling": {"max_replicas": 8}, "aws": {"role_arn": "arn:aws:…", "registry": "…"}}

A target is a file `infra/<name>/target.py` with `Config`, `Blueprint` and `plane`; its part of the file has its name.
No secret stands in it: credentials are the SDK's matter, from the cloud's own sign-in or role.
"""

import json
import time
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field, ValidationError

from infra.autoscaling import ScalingPolicy
from infra.blueprint import BlueprintTarget, ServingPlane
from infra.reconcile import Ledger, Reconciler
from infra.targets import Frozen, Release, Target
from recsys.errors import MissingArtifact, UnusableInput
from recsys.settings import Settings

FOLDER = Path(__file__).parent


class Clouds(Frozen):
    """The file's content; a target that is left out is not used."""

    image: str = Field(
        "recsys:{version}", pattern=r"^[a-z0-9._/-]+:[\w.-]*\{version\}$",
        description="the release's image in each target's registry, by its version",
    )  # fmt: skip
    scaling: ScalingPolicy = ScalingPolicy()
    idle_hours: int = Field(
        24, ge=1, le=24 * 14, description="without a request, after which an endpoint's machines go"
    )
    targets: dict[str, Any] = Field({}, description="name → its `Config`")


def names(folder: Path = FOLDER) -> list[str]:
    """Return the targets that there are."""
    return sorted(path.parent.name for path in folder.glob("*/target.py"))


def module(name: str) -> ModuleType:
    return import_module(f"infra.{name}.target")


def read(settings: Settings) -> Clouds:
    """Return what the file says.

    Raises:
        MissingArtifact: none is named, or it is not there.
        UnusableInput: it does not say what it should.
    """
    try:
        given = json.loads(Path(settings.clouds or "no file is named").read_bytes())
        known = {name: given.pop(name) for name in names() if name in given}
        targets = {name: module(name).Config.model_validate(part) for name, part in known.items()}
        return Clouds.model_validate({**given, "targets": targets})
    except FileNotFoundError as error:
        raise MissingArtifact("RECSYS_CLOUDS", settings.clouds or "not set", "See docs/clouds.md") from error
    except (ValueError, ValidationError) as error:
        raise UnusableInput("RECSYS_CLOUDS", f"{settings.clouds}: {error}", "See docs/clouds.md") from error


def release(name: str, clouds: Clouds, version: str) -> Release:
    """Return the release of this version for a target: its image is the one in that target's registry.

    Raises:
        MissingArtifact: the file has no such part.
    """
    registry = part(name, clouds).registry
    return Release(version=version, image=f"{registry}/{clouds.image.format(version=version)}")


def part(name: str, clouds: Clouds) -> Any:
    """Return a target's part of the file.

    Raises:
        MissingArtifact: it has none.
    """
    if name not in clouds.targets:
        raise MissingArtifact(f"target {name}", "not in the file of RECSYS_CLOUDS", "Add it there; see docs/clouds.md")
    return clouds.targets[name]


class Later:
    """A plane that is made when it is first asked: who only builds an image needs neither its SDK nor a sign-in."""

    def __init__(self, make: Callable[[], ServingPlane]):
        self._make = make

    @cached_property
    def _plane(self) -> ServingPlane:
        return self._make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plane, name)


def target(name: str, settings: Settings, clouds: Clouds, sleep: Callable[[float], None] = time.sleep) -> Target:
    """Return a target; its SDK is loaded when its cloud is first asked.

    Raises:
        MissingArtifact: the file has no such part.
    """
    config = part(name, clouds)
    plane = Later(lambda: module(name).plane(config, sleep))
    ledger = Ledger(settings.var_dir / "clouds" / f"{name}.jsonl")
    return BlueprintTarget(module(name).Blueprint(config), plane, Reconciler(name, plane, ledger, sleep))
