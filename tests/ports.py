"""Ports for services of tests and measurements."""

import random
import socket
from contextlib import ExitStack, suppress

LOOPBACK = "127.0.0.1"


def free_port(span: int = 1) -> int:
    """Return a port such that it and the following `span - 1` are free on 127.0.0.1 at this moment.

    It is below those that Linux gives to outgoing connections (32 768 and more): of those, any connection may take one
    before the service that it was meant for is up.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with ExitStack() as stack, suppress(OSError):
            for offset in range(span):
                stack.enter_context(socket.socket()).bind((LOOPBACK, port + offset))
            return port
