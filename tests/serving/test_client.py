"""The typed client against the real application; only the services behind it are imitated."""

import httpx
import pytest
from starlette.testclient import TestClient

from serving.client import ApiError, Client
from serving.contracts import NewEvent, WantedFor, WantedForSession
from tests.serving.ports import Parts, assemble
from tests.worlds.served import EVEN, FILMS, ODD, write_world


@pytest.fixture
def parts(tmp_path) -> Parts:
    parts = assemble(write_world(tmp_path, version="3"))
    parts.users.know("a/b é", EVEN[:2])
    return parts


@pytest.fixture
def client(parts) -> Client:
    return Client("http://testserver", http=TestClient(parts.app, raise_server_exceptions=False))


def test_it_asks_for_lists_of_each_kind(client):
    answer = client.recommend("a/b é", k=2)
    assert (answer.user_id, answer.rung, [item.item_id for item in answer.items]) == (
        "a/b é", "personalised", EVEN[2:4],
    )  # fmt: skip
    session = client.recommend("new", k=2, domain="movies", items=ODD[:2])
    assert (session.rung, {item.domain for item in session.items}) == ("session", {"movies"})
    many = client.recommend_many([WantedFor(user_id="new", k=1), WantedFor(user_id="a/b é", k=1)])
    assert [one.rung for one in many] == ["popular", "personalised"]
    assert client.recommend_session(WantedForSession(items=[ODD[0]], k=1)).items[0].item_id == ODD[1]
    assert client.similar(EVEN[0], k=1).items[0].item_id == EVEN[1]
    assert client.explain(answer.request_id).rung == "personalised"


def test_an_event_has_an_id_before_it_is_sent(client, parts):
    event_id = client.report(NewEvent(user_id="u", item_id=FILMS[0], domain="movies", event_type="click"))
    assert [sent.event_id for sent in parts.log.interactions] == [event_id]
    assert len(event_id) == 32


def test_a_refusal_tells_its_code_and_a_page_of_something_else_that_it_is_none(client, parts):
    with pytest.raises(ApiError, match="422 invalid_request: k: ") as refused:
        client.recommend("u", k=0)
    assert refused.value.fault.code == "invalid_request"
    with pytest.raises(ApiError, match="unknown_item"):
        client.similar("nothing")
    parts.log.down = True
    with pytest.raises(ApiError, match="503 unavailable"):
        client.report(NewEvent(user_id="u", item_id=FILMS[0], domain="movies", event_type="click"))
    elsewhere = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(502, text="<html>")))
    with pytest.raises(ApiError, match="502 unreadable"):
        Client("http://elsewhere", http=elsewhere).recommend("u")


def test_a_key_is_sent(parts):
    asked: list[httpx.Request] = []

    def hear(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(401, json={"error": {"code": "unauthenticated", "message": "m"}})

    with (
        Client("http://elsewhere", key="rsi_x", http=httpx.Client(transport=httpx.MockTransport(hear))) as client,
        pytest.raises(ApiError, match="unauthenticated"),
    ):
        client.recommend("u")
    assert asked[0].headers["authorization"] == "Bearer rsi_x"
