"""The online store as an answer sees it, when it is frozen: connections are taken, and nothing ever comes back."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from recsys.errors import ServiceUnavailable
from serving.breaker import CircuitBreaker
from serving.metrics import Metrics
from serving.online_store import OnlineStore


async def frozen(asked: int) -> tuple[int, list[str], str]:
    """Ask a frozen store so often at once, and once more; return its connections, what was said, and said last."""
    connections = 0

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(ConnectionError):
            while await reader.read(65536):
                pass
        writer.close()

    def get(commands: Any) -> None:
        commands.get("version:u")

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = OnlineStore(f"redis://127.0.0.1:{port}/0", Metrics(), CircuitBreaker(threshold=3, cool_down=60))
    said = await asyncio.gather(*(store.ask(get, list) for _ in range(asked)), return_exceptions=True)
    with pytest.raises(ServiceUnavailable) as last:
        await store.ask(get, list)
    await store.close()
    server.close()
    assert all(isinstance(one, ServiceUnavailable) for one in said), said
    return connections, [str(one) for one in said], str(last.value)


def test_those_who_wait_on_a_frozen_store_do_not_ask_it_again():
    connections, said, last = asyncio.run(frozen(20))
    assert len(said) == 20
    assert connections == 1  # none of them came back with a connection of its own
    assert all("no reply in time" in one for one in said)
    assert "left alone" in last
