"""A round trip that fails says so in the client library's own words: whoever waits for a store knows them."""

import socket
import threading

import pytest
import redis

from recsys.round_trip import send
from streaming.consumer import will_pass


@pytest.fixture(params=[False, True], ids=["pool", "one connection"])
def alone(request) -> bool:
    """Whether the client keeps one connection for itself."""
    return request.param


def answered(alone, how) -> BaseException:
    """Return what a round trip raises against a server that does this with its connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                how(connection)

        thread = threading.Thread(target=take)
        thread.start()
        address = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        with redis.Redis.from_url(address, socket_timeout=0.2, driver_info=None, retry=None) as client:
            client.connection_pool.connection_kwargs["lib_name"] = None
            if alone:
                client.connection = client.connection_pool.get_connection()
            with pytest.raises(redis.RedisError) as caught:
                send(client, [("GET", "a"), ("GET", "b")])
        thread.join()
    return caught.value


def test_a_store_that_is_silent_will_answer_later(alone):
    released = threading.Event()
    error = answered(alone, lambda connection: released.wait(1.0))
    assert isinstance(error, redis.TimeoutError)
    assert will_pass(error)


def test_a_store_that_hangs_up_will_answer_later(alone):
    error = answered(alone, lambda connection: None)
    assert isinstance(error, redis.ConnectionError)
    assert will_pass(error)


def test_a_reply_that_is_an_error_is_raised_behind_the_others(alone):
    error = answered(alone, lambda connection: connection.sendall(b"-WRONGTYPE of another kind\r\n$1\r\nb\r\n"))
    assert isinstance(error, redis.ResponseError)
    assert not will_pass(error)
