"""The online store as an answer sees it: one round trip at a time, a short wait, and a breaker before both."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from recsys.errors import ServiceUnavailable
from serving.breaker import CircuitBreaker
from serving.metrics import REDIS, Metrics
from serving.wire import Address, Commands, Reply, Wire, raise_first

Result = TypeVar("Result")

CONNECT_SECONDS, ANSWER_SECONDS = 0.06, 0.06
"""How long one request waits for the online store, at most. A healthy one takes a fiftieth of it."""


class OnlineStore:
    """Redis or Valkey behind a breaker, shared by all that reads it while somebody waits. For use in one event loop."""

    def __init__(self, url: str, metrics: Metrics, breaker: CircuitBreaker):
        """Prepare a store that need not be up.

        Raises:
            UnusableInput: the address says what is not understood.
        """
        self._address, self._breaker, self._metrics = Address(url), breaker, metrics
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[Wire] | None = None

    async def ask(self, queue: Callable[[Commands], None], decode: Callable[[list[Any]], Result]) -> Result:
        """Return what `decode` makes of the replies to the commands that `queue` puts together: one round trip.

        Raises:
            ServiceUnavailable: no reply in time, a value that is none of ours, or the store failed lately.
        """
        if not self._breaker.allows():
            raise _unavailable("left alone after repeated failures")
        commands = Commands()
        queue(commands)
        try:
            replies = await self._replies(commands)
            raise_first(replies)
            decoded = decode([
                reply if made_of is None else made_of(reply)
                for reply, made_of in zip(replies, commands.made_of, strict=True)
            ])  # fmt: skip
        except (RedisError, OSError, ValueError) as error:  # ValueError: a value that is none of ours
            self._breaker.failed()
            self._metrics.dependency_errors.labels(REDIS).inc()
            raise _unavailable(str(error) or "no reply in time") from error
        self._breaker.succeeded()
        return decoded

    async def _replies(self, commands: Commands) -> list[Reply]:
        try:
            return await self._once(commands)
        except (
            RedisConnectionError
        ):  # once more at once where the connection was cut; a time-out is not waited for twice
            return await self._once(commands)

    async def _once(self, commands: Commands) -> list[Reply]:
        wire = self._wire
        if wire is None or wire.is_cut:
            wire = await self._connected()
        replies = wire.ask(commands.packed)
        late = asyncio.get_running_loop().call_later(ANSWER_SECONDS, _give_up, wire, replies)
        try:
            return await replies
        finally:
            late.cancel()

    async def _connected(self) -> Wire:
        """Return the connection; however many ask for it, it is made once."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._took)
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Wire:
        async with asyncio.timeout(CONNECT_SECONDS):  # a store that takes connections and never answers is away too
            return await self._address.connect()

    def _took(self, made: asyncio.Task[Wire]) -> None:
        self._connecting = None
        if not made.cancelled() and made.exception() is None:
            self._wire = made.result()

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._wire is not None:
            self._wire.cut("closed")


def _give_up(wire: Wire, replies: asyncio.Future[list[Reply]]) -> None:
    """Cut a connection that is late. Of those that wait on it too none asks again: a store that is slow or frozen would
    take their time twice."""
    if not replies.done():
        wire.cut("no reply in time", RedisTimeoutError)


def _unavailable(why: object) -> ServiceUnavailable:
    return ServiceUnavailable("online store", why, "Answers are popular lists until it is back")
