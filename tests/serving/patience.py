"""Waiting for what happens soon, without saying when."""

from collections.abc import Callable

import httpx
import tenacity

PATIENCE_SECONDS = 60


def eventually(check: Callable[[], None]) -> None:
    """Repeat a check until it holds; after a minute its own failure is raised."""
    tenacity.Retrying(
        stop=tenacity.stop_after_delay(PATIENCE_SECONDS),
        wait=tenacity.wait_fixed(0.05),
        retry=tenacity.retry_if_exception_type((AssertionError, httpx.TransportError)),
        reraise=True,
    )(check)
