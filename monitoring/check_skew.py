"""The skew check: kept answers and marts in, one outcome row a feature out."""

from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from monitoring.skew import measure_skew, outcomes
from recsys.errors import ServiceUnavailable
from recsys.interval import Interval
from recsys.settings import Settings
from recsys.warehouse import connect, write_outcomes


def check_skew(settings: Settings, interval: Interval) -> dict[str, Any]:
    """Judge the features that the ranker read at its latest answers. Skew is news (`warn`), not an error.

    Raises:
        ServiceUnavailable: Redis or PostgreSQL does not answer.
    """
    with connect(settings) as connection, Redis.from_url(settings.record_store, socket_timeout=30) as store:
        try:
            skews = measure_skew(connection, store, interval)
        except RedisError as error:
            raise ServiceUnavailable("Redis", error, "See `make status`; start it with `make up`") from error
        rows = outcomes(skews, interval)
        write_outcomes(connection, rows)
    warned = [row for row in rows if row.verdict == "warn"]
    return {
        "compared": sum(skew.compared for skew in skews),
        "differing": [row.subject for row in warned],
        "warnings": [f"{row.check_name} of {row.subject}: {row.observed}, {row.expected}" for row in warned],
        "unchanged": False,
    }
