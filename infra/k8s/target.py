"""What `infra.configuration` takes from this folder: its part of RECSYS_CLOUDS, its blueprint and its plane."""

from collections.abc import Callable

from infra.blueprint import ServingPlane
from infra.k8s.blueprint import K8sBlueprint as Blueprint
from infra.k8s.blueprint import K8sConfig as Config

__all__ = ["Blueprint", "Config", "plane"]


def plane(config: Config, sleep: Callable[[float], None]) -> ServingPlane:
    """Return the control plane; the SDK is loaded here."""
    from infra.k8s.plane import K8sPlane

    return K8sPlane(config, sleep)
