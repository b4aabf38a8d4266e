"""An answer's head goes out with its body, and is not kept for a body that is late or never comes."""

import asyncio
import socket

import uvicorn
from starlette.types import Receive, Scope, Send

from serving import one_write
from serving.one_write import OneWrite

PATIENCE_SECONDS = 10


class Service:
    """An application whose bodies come at once, or when it is told so; a real server in front of it."""

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()
        config = uvicorn.Config(self, http=OneWrite, lifespan="off", log_config=None)
        self.server = uvicorn.Server(config)
        self.listening = socket.create_server(("127.0.0.1", 0))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        if scope["path"] == "/late":
            await self.may_go_on.wait()
        await send({"type": "http.response.body", "body": b"body"})

    async def __aenter__(self) -> "Service":
        self.running = asyncio.create_task(self.server.serve(sockets=[self.listening]))
        self.reader, self.writer = await asyncio.open_connection(*self.listening.getsockname())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        self.server.should_exit = True
        await self.running

    async def arrives(self, method: str, path: str) -> bytes:
        """Ask; return what arrives first."""
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.read(65_536)


def test_head_and_body_arrive_together_again_and_again():
    async def ask() -> list[bytes]:
        async with Service() as service:
            return [await service.arrives("GET", "/") for _ in range(50)]

    answers = asyncio.run(ask())
    assert [answer.endswith(b"\r\n\r\nbody") for answer in answers] == [True] * 50
    assert all(answer.startswith(b"HTTP/1.1 200 OK\r\n") for answer in answers)


def test_a_connection_ends_with_an_answer_that_says_so(monkeypatch):
    monkeypatch.setattr(one_write, "ANSWERS_A_CONNECTION", 3)

    async def ask() -> tuple[list[bytes], bytes]:
        async with Service() as service:
            answers = [await service.arrives("GET", "/") for _ in range(3)]
            async with asyncio.timeout(PATIENCE_SECONDS):
                return answers, await service.reader.read()

    answers, behind = asyncio.run(ask())
    assert [b"connection: close" in answer for answer in answers] == [False, False, True]
    assert all(answer.endswith(b"\r\n\r\nbody") for answer in answers)
    assert behind == b""


def test_a_head_does_not_wait_for_a_body_that_is_late():
    async def ask() -> tuple[bytes, bytes]:
        async with Service() as service:
            head = await service.arrives("GET", "/late")
            service.may_go_on.set()
            async with asyncio.timeout(PATIENCE_SECONDS):
                return head, await service.reader.read(65_536)

    head, body = asyncio.run(ask())
    assert head.endswith(b"content-length: 4\r\n\r\n")
    assert body == b"body"


def test_a_head_that_nothing_follows_goes_out():
    async def ask() -> list[bytes]:
        async with Service() as service:
            return [await service.arrives("HEAD", "/"), await service.arrives("GET", "/")]

    alone, whole = asyncio.run(ask())
    assert alone.endswith(b"content-length: 4\r\n\r\n")
    assert whole.endswith(b"\r\n\r\nbody")
