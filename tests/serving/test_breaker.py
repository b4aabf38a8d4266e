"""The circuit breaker, with a clock of its own."""

from serving.breaker import CircuitBreaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(threshold=2, cool_down=1.0, clock=clock)
    for _ in range(2):
        assert breaker.allows()
        breaker.failed()
    return breaker


def test_single_failures_leave_it_closed():
    breaker = CircuitBreaker(threshold=2, clock=Clock())
    for _ in range(5):
        breaker.failed()
        assert breaker.allows()
        breaker.succeeded()


def test_open_it_lets_one_probe_through_each_cool_down():
    clock = Clock()
    breaker = opened(clock)
    assert not breaker.allows()
    clock.now += 1.0
    assert [breaker.allows(), breaker.allows()] == [True, False]
    breaker.failed()
    assert not breaker.allows()
    clock.now += 1.0
    assert breaker.allows()
    breaker.succeeded()
    assert [breaker.allows(), breaker.allows()] == [True, True]


def test_a_probe_that_never_reports_does_not_keep_it_open():
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1.0
    assert breaker.allows()
    clock.now += 1.0
    assert breaker.allows()
