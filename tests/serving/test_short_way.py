"""The short way gives what the long way gives, and says no to nothing itself."""

import asyncio
import json

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.types import Scope

from serving.short_way import ShortWay
from tests.serving.ports import assemble
from tests.worlds.served import EVEN, ITEMS, ODD, write_world

LIST = "/v1/users/{}/recommendations"
VALUES = {
    "k": ["1", "3", "1000", "0", "1001", "", "ten", "1.5", " 2", "２"],
    "domain": ["movies", "books", "social", "", "Movies"],
    "items": [EVEN[0], f"{ODD[0]},{ODD[1]}", "", ",", "gone:1", "a%00b", "%ff"],
    "other": ["1", ""],
}
QUERIES = st.lists(
    st.sampled_from([f"{name}={value}" for name, values in VALUES.items() for value in values] + ["k", "=", ";"]),
    max_size=3,
).map("&".join)
USERS = st.sampled_from(["known", "new", "a%2Fb", "%00", "%20", "é", "u" * 256, "u" * 257, "x/recommendations"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("model"), version="3")


def without_id(answer: httpx.Response) -> tuple[int, str, dict]:
    body = answer.json()
    body.pop("request_id", None)
    return answer.status_code, answer.headers["content-type"], body


@pytest.fixture(scope="module")
def asked(folder) -> TestClient:
    parts = assemble(folder)
    parts.users.know("known", EVEN[:2])
    return TestClient(parts.app, raise_server_exceptions=False)


@settings(max_examples=60, deadline=None)
@given(user=USERS, query=QUERIES)
def test_both_ways_answer_alike(asked, user, query):
    understood, ways, taken = ShortWay._understood, [], []

    def watched(way: ShortWay, scope: Scope) -> object:
        taken.append(understood(way, scope))
        return taken[-1]

    for find in (watched, lambda *_: None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ShortWay, "_understood", find)
            ways.append(without_id(asked.get(f"{LIST.format(user)}?{query}")))
    assert ways[0] == ways[1]
    if taken[0] is not None:
        assert ways[0][0] == 200


def test_plain_requests_take_it(folder, monkeypatch):
    parts = assemble(folder)
    scopes = []
    understood = ShortWay._understood
    monkeypatch.setattr(
        ShortWay, "_understood", lambda self, scope: scopes.append(understood(self, scope)) or scopes[-1]
    )
    answer = TestClient(parts.app).get(LIST.format("u"), params={"k": 2, "items": [ODD[0], ODD[1]]})
    assert answer.status_code == 200
    assert [(user, wanted.k, wanted.items) for user, wanted in scopes] == [("u", 2, [ODD[0], ODD[1]])]


def test_requests_of_one_moment_share_a_round_trip_and_keep_to_themselves(folder):
    """One that breaks, breaks alone."""
    parts = assemble(folder)
    for n in range(12):
        parts.users.know(f"u{n}", [ITEMS[n]])
    parts.users.know("broken", None)  # type: ignore[arg-type]

    async def ask_all() -> list[httpx.Response]:
        transport = httpx.ASGITransport(parts.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as asking:
            users = [*(f"u{n}" for n in range(12)), "broken"]
            return await asyncio.gather(*(asking.get(LIST.format(user), params={"k": 16}) for user in users))

    *answers, broken = asyncio.run(ask_all())
    assert broken.status_code == 500
    for n, answer in enumerate(answers):
        body = json.loads(answer.text)
        assert (body["user_id"], body["rung"]) == (f"u{n}", "personalised")
        assert ITEMS[n] not in {item["item_id"] for item in body["items"]}
    assert parts.users.round_trips < len(answers)
