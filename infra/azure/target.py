"""What `infra.configuration` takes from this folder: its part of RECSYS_CLOUDS, its blueprint and its plane."""

from collections.abc import Callable

from infra.azure.blueprint import AzureBlueprint as Blueprint
from infra.azure.blueprint import AzureConfig as Config
from infra.blueprint import ServingPlane

__all__ = ["Blueprint", "Config", "plane"]


def plane(config: Config, sleep: Callable[[float], None]) -> ServingPlane:
    """Return the control plane; the SDK is loaded here."""
    from infra.azure.plane import AzurePlane

    return AzurePlane(config, sleep)
