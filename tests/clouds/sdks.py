"""Imported by every rehearsal before an emulator: skips it, and says why, where the clouds' SDKs are not installed."""

from importlib.metadata import PackageNotFoundError, version

import pytest

NEEDED = ("moto", "sagemaker", "google-cloud-aiplatform", "azure-ai-ml", "kubernetes", "kubernetes-validate")


def missing(names: tuple[str, ...] = NEEDED) -> list[str]:
    """Return which of these distributions this environment lacks."""
    found = []
    for name in names:
        try:
            version(name)
        except PackageNotFoundError:
            found.append(name)
    return found


if lacking := missing():
    pytest.skip(
        f"{', '.join(lacking)} not installed: `make setup-cloud`, then `make rehearse`", allow_module_level=True
    )
