"""Waiting for what happens soon, without saying when."""

from collections.abc import Callable
from typing import TypeVar

import httpx
import tenacity

PATIENCE_SECONDS = 60
Found = TypeVar("Found")


def eventually(check: Callable[[], Found]) -> Found:
    """Repeat a check until it holds and return what it found; after a minute its own failure is raised."""
    return tenacity.Retrying(
        stop=tenacity.stop_after_delay(PATIENCE_SECONDS),
        wait=tenacity.wait_fixed(0.05),
        retry=tenacity.retry_if_exception_type((AssertionError, httpx.TransportError)),
        reraise=True,
    )(check)
