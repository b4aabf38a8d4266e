"""One connection to Redis or Valkey on which requests do not wait for each other's replies.

Replies come in the order of the commands, so a request writes at once and takes the replies that are its own; no
connection is taken from a pool and given back. Parsing is that of hiredis.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from recsys.errors import UnusableInput

Reply = Any
UNDERSTOOD = {"host", "port", "db", "username", "password", "path", "connection_class", "ssl_ca_certs"}
"""What an address may say."""


class Commands:
    """Commands that go out together, with what makes of each reply what the client library would give."""

    def __init__(self) -> None:
        self.packed: list[bytes] = []
        self.made_of: list[Callable[[Reply], Reply] | None] = []

    def _add(self, *words: str | int | float, made_of: Callable[[Reply], Reply] | None = None) -> None:
        self.packed.append(hiredis.pack_command(words))
        self.made_of.append(made_of)

    def get(self, key: str) -> None:
        self._add("GET", key)

    def zrange(self, key: str, start: int, end: int) -> None:
        self._add("ZRANGE", key, start, end)

    def zcard(self, key: str) -> None:
        self._add("ZCARD", key)

    def hgetall(self, key: str) -> None:
        self._add("HGETALL", key, made_of=_pairs)

    def eval(self, script: str, n_keys: int, *rest: str | int | float) -> None:
        self._add("EVAL", script, n_keys, *rest)

    def scan(self, cursor: int, match: str, count: int) -> None:
        self._add("SCAN", cursor, "MATCH", match, "COUNT", count, made_of=lambda reply: (int(reply[0]), reply[1]))


def _pairs(reply: list[str]) -> dict[str, str]:
    return dict(zip(reply[::2], reply[1::2], strict=True))


class Wire(asyncio.Protocol):
    """A connection; once it is cut, all that waits on it fails and it stays cut."""

    def __init__(self) -> None:
        # characters that are no UTF-8 become a mark: such a value is none of ours, and is found out as that
        self._reader = hiredis.Reader(encoding="utf-8", errors="replace")
        self._waiting: deque[tuple[int, asyncio.Future[list[Reply]]]] = deque()
        self._replies: list[Reply] = []
        self._transport: asyncio.Transport | None = None
        self.is_cut = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def ask(self, packed: list[bytes]) -> asyncio.Future[list[Reply]]:
        """Write commands; return their replies to come, errors among them as values."""
        future: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        self._waiting.append((len(packed), future))
        self._transport.write(b"".join(packed))
        return future

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._replies.append(reply)
                if len(self._replies) == self._waiting[0][0]:
                    _, future = self._waiting.popleft()
                    replies, self._replies = self._replies, []
                    if not future.done():  # whoever asked may have gone
                        future.set_result(replies)
        except (hiredis.ProtocolError, IndexError) as error:
            self.cut(f"no reply of Redis: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self.cut(str(error or "the connection was closed"))

    def cut(self, why: str, failure: type[RedisError] = RedisConnectionError) -> None:
        """Give up the connection, later replies could not be told from each other: all that waits on it fails so."""
        self.is_cut = True
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(failure(why))


class Address:
    """Where the store is, and how to come in."""

    def __init__(self, url: str):
        """Read an address as the client library does.

        Raises:
            UnusableInput: it says something that is not understood here.
        """
        said = parse_url(url)
        if unknown := set(said) - UNDERSTOOD:
            raise UnusableInput("RECSYS_REDIS_URL", sorted(unknown), f"Leave these out; understood: {UNDERSTOOD}")
        self._path, self._tls = None, None
        if said.get("connection_class") is UnixDomainSocketConnection:
            self._path = said["path"]
        if said.get("connection_class") is SSLConnection:
            self._tls = ssl.create_default_context(cafile=said.get("ssl_ca_certs"))
        self._host, self._port = said.get("host", "localhost"), said.get("port", 6379)
        self._greeting: list[bytes] = []
        if password := said.get("password"):
            user = [said["username"]] if said.get("username") else []
            self._greeting.append(hiredis.pack_command(("AUTH", *user, password)))
        if database := said.get("db"):
            self._greeting.append(hiredis.pack_command(("SELECT", database)))

    async def connect(self) -> Wire:
        """Return a connection that is let in.

        Raises:
            OSError: nobody answers there.
            RedisError: it was not let in.
        """
        loop = asyncio.get_running_loop()
        if self._path is not None:
            _, wire = await loop.create_unix_connection(Wire, self._path)
        else:
            _, wire = await loop.create_connection(Wire, self._host, self._port, ssl=self._tls)
        if self._greeting:
            try:
                raise_first(await wire.ask(self._greeting))
            except BaseException:
                wire.cut("not let in")
                raise
        return wire


def raise_first(replies: list[Reply]) -> None:
    """Pass replies without an error.

    Raises:
        ResponseError: the first that is one.
    """
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise ResponseError(str(reply))
