"""The online store as an answer sees it: one round trip at a time, a short wait, and a breaker before both."""

from collections.abc import Callable
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from recsys.errors import ServiceUnavailable
from serving.breaker import CircuitBreaker
from serving.metrics import REDIS, Metrics

Result = TypeVar("Result")

CONNECT_SECONDS, ANSWER_SECONDS = 0.1, 0.1
"""How long one request waits for the online store, at most."""


class OnlineStore:
    """Redis or Valkey behind a breaker, shared by all that reads it while somebody waits."""

    def __init__(self, url: str, metrics: Metrics, breaker: CircuitBreaker):
        self._client = Redis.from_url(
            url,
            decode_responses=True,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            # once more at once where a pooled connection was cut; a time-out is not waited for twice
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        self._breaker, self._metrics = breaker, metrics

    async def ask(self, queue: Callable[[Any], None], decode: Callable[[list[Any]], Result]) -> Result:
        """Return what `decode` makes of the replies to the commands that `queue` puts on a pipeline: one round trip.

        Raises:
            ServiceUnavailable: no reply in time, a value that is none of ours, or the store failed lately.
        """
        if not self._breaker.allows():
            raise _unavailable("left alone after repeated failures")
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                queue(pipeline)
                decoded = decode(await pipeline.execute())
        except (RedisError, OSError, ValueError) as error:  # ValueError: a value that is none of ours
            self._breaker.failed()
            self._metrics.dependency_errors.labels(REDIS).inc()
            raise _unavailable(error) from error
        self._breaker.succeeded()
        return decoded

    async def close(self) -> None:
        await self._client.aclose()


def _unavailable(why: object) -> ServiceUnavailable:
    return ServiceUnavailable("online store", why, "Answers are popular lists until it is back")
