"""HTTP as uvicorn speaks it, with the head and the body of an answer in one write, and connections that end some time.

Two writes are two packets: each costs a way through the kernel, and the first one wakes a client that can do nothing
yet, on a machine with few cores before the body was written.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ANSWERS_A_CONNECTION = 1000
"""After so many a connection is closed with its answer. Clients keep connections for as long as they can: without it
all of them stay with the processes that were there before one was started again."""
HEAD = b"HTTP/1.1 "
"""How a head begins; what else uvicorn writes is a body or a part of one."""


class OneWrite(HttpToolsProtocol):
    """One connection of a client."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_HeadHeld(transport, self.loop))  # type: ignore[arg-type]
        self._asked = 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._asked += 1
        if self._asked >= ANSWERS_A_CONNECTION:
            self.cycle.keep_alive = False  # the answer says so, and nothing is read behind it


class _HeadHeld:
    """A transport that holds a head back until something follows it, at most until the loop's next turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop):
        self._transport, self._loop = transport, loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if data.startswith(HEAD):
            self._release()
            self._head = data
            self._loop.call_soon(self._release)
        else:
            head, self._head = self._head, b""
            self._transport.write(head + data)

    def close(self) -> None:
        self._release()
        self._transport.close()

    def _release(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)
