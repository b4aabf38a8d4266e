"""Commands to Redis or Valkey in one round trip: a pipeline without its bookkeeping, which costs several times what the
commands do. For a `redis.Redis`, whose connections and time-outs it uses."""

from collections.abc import Iterable, Sequence
from typing import Any

import hiredis


def send(client: Any, commands: Iterable[Sequence[Any]]) -> list[Any]:
    """Send commands and return their replies, bytes and numbers as they come.

    Raises:
        redis.ResponseError: the first reply that is one; all commands were carried out or refused.
        redis.ConnectionError, redis.TimeoutError: no reply; nobody knows what was carried out.
    """
    return exchange(client, [hiredis.pack_command(tuple(command)) for command in commands])


def exchange(client: Any, packed: Sequence[bytes]) -> list[Any]:
    """Do what `send` does, of commands that are packed."""
    if client.connection is not None:  # a client with one connection for itself: nothing is taken and given back
        with client.single_connection_lock:
            return _exchanged(client.connection, packed)
    connection = client.connection_pool.get_connection()
    try:
        return _exchanged(connection, packed)
    finally:
        client.connection_pool.release(connection)


def _exchanged(connection: Any, packed: Sequence[bytes]) -> list[Any]:
    try:
        connection.send_packed_command([b"".join(packed)])
        # of its parser at once: the connection itself looks at clocks and listeners for every single reply
        reply_of = connection._parser.read_response
        replies = [reply_of(disable_decoding=True) for _ in packed]
    except BaseException as error:
        connection.disconnect()  # replies that nobody reads would be the next one's
        from redis.exceptions import ConnectionError as RedisConnectionError
        from redis.exceptions import TimeoutError as RedisTimeoutError

        if isinstance(error, TimeoutError):  # the parser says it in Python's own words, the connection in the client's
            raise RedisTimeoutError("no reply in time") from error
        if isinstance(error, OSError):
            raise RedisConnectionError(str(error)) from error
        raise
    for reply in replies:
        if isinstance(reply, Exception):  # the client's `ResponseError`
            raise reply
    return replies
