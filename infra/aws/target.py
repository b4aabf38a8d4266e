"""What `infra.configuration` takes from this folder: its part of RECSYS_CLOUDS, its blueprint and its plane."""

from collections.abc import Callable

from infra.aws.blueprint import AwsBlueprint as Blueprint
from infra.aws.blueprint import AwsConfig as Config
from infra.blueprint import ServingPlane
from recsys.settings import default_environment

__all__ = ["Blueprint", "Config", "plane"]


def plane(config: Config, sleep: Callable[[float], None]) -> ServingPlane:
    """Return the control plane; the SDK, which wants these before it is imported, is loaded here."""
    default_environment(
        AWS_DEFAULT_REGION=config.region,
        SAGEMAKER_TELEMETRY_OPT_OUT="true",
        AWS_MAX_ATTEMPTS="1",  # retries are the reconciler's
    )
    from infra.aws.plane import AwsPlane

    return AwsPlane(config, sleep)
