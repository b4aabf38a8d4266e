"""Which targets an installation has: the JSON file that `RECSYS_CLOUDS` names.

    {"image": "recsys:{version}", "scaling": {"max_replicas": 8}, "aws": {"role_arn": "arn:aws:…", "registry": "…"}}

No secret stands in it: credentials are the SDK's matter, from the cloud's own sign-in or role.
"""

import time
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError

from infra.autoscaling import ScalingPolicy
from infra.aws.blueprint import AwsBlueprint, AwsConfig
from infra.blueprint import BlueprintTarget
from infra.reconcile import Ledger, Reconciler
from infra.targets import Frozen, Target
from recsys.errors import MissingArtifact, UnusableInput
from recsys.settings import Settings


class Clouds(Frozen):
    """The file's content; a cloud that is left out is not used."""

    image: str = Field("recsys:{version}", pattern=r"\{version\}", description="the release's image, by its version")
    scaling: ScalingPolicy = ScalingPolicy()
    aws: AwsConfig | None = None


def read(settings: Settings) -> Clouds:
    """Return what the file says.

    Raises:
        MissingArtifact: none is named, or it is not there.
        UnusableInput: it does not say what it should.
    """
    try:
        return Clouds.model_validate_json(Path(settings.clouds or "no file is named").read_bytes())
    except FileNotFoundError as error:
        raise MissingArtifact("RECSYS_CLOUDS", settings.clouds or "not set", "See docs/clouds.md") from error
    except ValidationError as error:
        raise UnusableInput("RECSYS_CLOUDS", f"{settings.clouds}: {error}", "See docs/clouds.md") from error


def target(name: str, settings: Settings, clouds: Clouds, sleep: Callable[[float], None] = time.sleep) -> Target:
    """Return a cloud's target; its SDK is loaded here.

    Raises:
        MissingArtifact: the file has no such cloud.
    """
    if name != "aws" or clouds.aws is None:
        raise MissingArtifact(f"target {name}", f"not in {settings.clouds}", "Add it there; see docs/clouds.md")
    from infra.aws.plane import AwsPlane

    plane = AwsPlane(clouds.aws, sleep)
    ledger = Ledger(settings.var_dir / "clouds" / f"{name}.jsonl")
    return BlueprintTarget(AwsBlueprint(clouds.aws), plane, Reconciler(name, plane, ledger, sleep))
