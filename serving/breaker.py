"""A circuit breaker: a dependency that failed is left alone for a while, so that requests do not queue up for it."""

from collections.abc import Callable
from time import monotonic


class CircuitBreaker:
    """Closed until `threshold` failures in a row; then open, letting one probe through every `cool_down` seconds.

    A probe that succeeds closes it. A probe that never reports (its request was cancelled) costs one `cool_down`.
    For use in one event loop: not thread-safe.
    """

    def __init__(self, threshold: int = 3, cool_down: float = 1.0, clock: Callable[[], float] = monotonic):
        self._threshold, self._cool_down, self._clock = threshold, cool_down, clock
        self._failures = 0
        self._probe_at = 0.0

    def allows(self) -> bool:
        """Return whether to try now; when open, True takes the probe."""
        if self._failures < self._threshold:
            return True
        if self._clock() < self._probe_at:
            return False
        self._probe_at = self._clock() + self._cool_down
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._probe_at = self._clock() + self._cool_down
