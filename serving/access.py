"""Who may come in: a key's scope and its rate, before the body is read; its users, once they are known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from time import monotonic
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.errors import ServiceUnavailable
from serving.doors import Refused, error_answer
from serving.keys import ApiKey, digest
from serving.online_store import OnlineStore

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/ping", "/metrics", "/docs", "/openapi.json"})
SCOPE_OF_PATH = {"/v1/events": "events", "/v1/requests/": "explain"}
"""By how the path begins; whatever else there is needs `recommend`."""

OPEN_PAGE = "/demo"
"""The storefront's page and its files: they tell nothing, what they show they ask for."""

KEY = "recsys.key"
"""Where the ASGI scope holds the caller's key; absent where no keys are asked for."""

TAKE = """
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local passed = math.max(0, now - (tonumber(bucket[2]) or now))
local tokens = math.min(burst, (tonumber(bucket[1]) or burst) + passed * rate)
local wait = 0
if tokens >= 1 then tokens = tokens - 1 else wait = (1 - tokens) / rate end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], math.ceil(burst / rate) + 1)
return string.format('%.6f', wait)
"""
"""Takes a token from the bucket, by the store's own clock; returns the seconds until there is one, or 0."""


@dataclass
class _Bucket:
    tokens: float
    at: float


class RateLimits:
    """Token buckets in the online store, shared by all processes; while it is away, each process keeps its own."""

    def __init__(self, store: OnlineStore, clock: Callable[[], float] = monotonic):
        self._store, self._clock = store, clock
        self._buckets: dict[str, _Bucket] = {}

    async def take(self, key: ApiKey) -> float:
        """Take one request's token; return how many seconds are missing until there is one, 0 if it was taken."""

        def queue(pipeline: Any) -> None:
            pipeline.eval(TAKE, 1, f"rate:{key.sha256[:16]}", key.requests_per_second, key.burst)

        try:
            return await self._store.ask(queue, lambda replies: float(replies[0]))
        except ServiceUnavailable:
            return self._take_here(key)

    def _take_here(self, key: ApiKey) -> float:
        now = self._clock()
        bucket = self._buckets.setdefault(key.sha256, _Bucket(key.burst, now))
        bucket.tokens = min(key.burst, bucket.tokens + (now - bucket.at) * key.requests_per_second)
        bucket.at = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / key.requests_per_second
        bucket.tokens -= 1
        return 0.0


@dataclass(frozen=True)
class KeyRing:
    """The keys that open this application, and what they have left."""

    keys: Mapping[str, ApiKey]
    limits: RateLimits


class Guard:
    """Lets a request through whose key is known, has a token left and covers the path."""

    def __init__(self, app: ASGIApp, ring: KeyRing, health_route: str):
        self._app, self._ring, self._open = app, ring, OPEN_PATHS | {health_route}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._open or _is_page(scope["path"]):
            return await self._app(scope, receive, send)
        key = self._ring.keys.get(digest(_bearer(scope)))
        if key is None:
            challenge = {"WWW-Authenticate": "Bearer"}
            return await error_answer(401, "send `Authorization: Bearer <key>` with a known key", challenge)(
                scope, receive, send
            )
        wait = await self._ring.limits.take(key)
        if wait > 0:
            message = f"the key {key.name!r} may send {key.requests_per_second:g} requests a second"
            return await error_answer(429, message, {"Retry-After": str(ceil(wait))})(scope, receive, send)
        needed = next((needed for path, needed in SCOPE_OF_PATH.items() if scope["path"].startswith(path)), "recommend")
        if not key.may(needed):
            message = f"the key {key.name!r} lacks the scope {needed!r}"
            return await error_answer(403, message)(scope, receive, send)
        scope[KEY] = key
        return await self._app(scope, receive, send)


def _is_page(path: str) -> bool:
    return path == OPEN_PAGE or path.startswith(f"{OPEN_PAGE}/")


def _bearer(scope: Scope) -> str:
    kind, _, key = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").partition(" ")
    return key.strip() if kind.lower() == "bearer" else ""


def may_speak_for(request: Request, user_id: str) -> bool:
    """Return whether the caller's key covers this user; without keys everybody does."""
    key: ApiKey | None = request.scope.get(KEY)
    return key is None or key.speaks_for(user_id)


def check_user(request: Request, user_id: str) -> None:
    """Let a request for this user pass.

    Raises:
        Refused: the caller's key may not speak for the user.
    """
    if not may_speak_for(request, user_id):
        raise Refused(403, "forbidden", f"user_id: the key may not speak for {user_id!r}")


def check_scope(request: Request, scope: str) -> None:
    """Let a request pass that needs more than its path says.

    Raises:
        Refused: the caller's key lacks the scope.
    """
    key: ApiKey | None = request.scope.get(KEY)
    if key is not None and not key.may(scope):
        raise Refused(403, "forbidden", f"the key {key.name!r} lacks the scope {scope!r}")
