"""What `infra.configuration` takes from this folder: its part of RECSYS_CLOUDS, its blueprint and its plane."""

from collections.abc import Callable

from infra.blueprint import ServingPlane
from infra.gcp.blueprint import GcpBlueprint as Blueprint
from infra.gcp.blueprint import GcpConfig as Config

__all__ = ["Blueprint", "Config", "plane"]


def plane(config: Config, sleep: Callable[[float], None]) -> ServingPlane:
    """Return the control plane; the SDK is loaded here."""
    from infra.gcp.plane import GcpPlane

    return GcpPlane(config, sleep)
