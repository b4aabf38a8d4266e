"""GraphQL over the same core: the same lists as REST, the same refusals, and bounds on what a query may cost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from serving.graphql_door import MAX_ALIASES, MAX_DEPTH, MAX_LISTS, MAX_QUERY, SCHEMA
from tests.serving.ports import Parts, assemble
from tests.worlds.served import EVEN, FILMS, ODD, write_world

LIST = "query ($user: ID!, $k: Int = 3, $domain: String, $items: [ID!]) { recommendations(userId: $user, k: $k, "
LIST += "domain: $domain, items: $items) { requestId variant rung model modelVersion userId items "
LIST += "{ rank itemId title domain score categories } } }"
EVENT = {"userId": "u", "itemId": FILMS[0], "domain": "movies", "eventType": "click"}
REPORT = "mutation ($event: EventInput!) { reportEvent(event: $event) { eventId } }"


@pytest.fixture
def parts(tmp_path) -> Parts:
    return assemble(write_world(tmp_path, version="3"))


@pytest.fixture
def client(parts) -> TestClient:
    return TestClient(parts.app, raise_server_exceptions=False)


def ask(client: TestClient, query: str, **variables: object) -> dict:
    answer = client.post("/graphql", json={"query": query, "variables": variables})
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client: TestClient, query: str, **variables: object) -> tuple[str, str]:
    (fault,) = ask(client, query, **variables)["errors"]
    return fault["extensions"]["code"], fault["message"]


def test_a_list_is_the_one_that_rest_gives(client, parts):
    parts.users.know("u", [EVEN[0]])
    mine = ask(client, LIST, user="u", k=4, domain="movies", items=[EVEN[2]])["data"]["recommendations"]
    theirs = client.get("/v1/users/u/recommendations", params={"k": 4, "domain": "movies", "items": EVEN[2]}).json()
    assert [item["itemId"] for item in mine["items"]] == [item["item_id"] for item in theirs["items"]]
    assert [item["score"] for item in mine["items"]] == [item["score"] for item in theirs["items"]]
    assert (mine["rung"], mine["modelVersion"], mine["variant"]) == ("personalised", "3", "champion")
    assert [shown.answer.request_id for shown in parts.records.shown] == [mine["requestId"], theirs["request_id"]]


def test_a_session_similar_items_and_the_reasons(client, parts):
    query = (
        'query ($i: [ID!]) { sessionRecommendations(sessionId: "s", items: $i, k: 2) { userId rung items { itemId } '
    )
    query += "explanation } }"
    answer = ask(client, query, i=[ODD[0]])["data"]["sessionRecommendations"]
    assert (answer["userId"], answer["rung"]) == ("session:s", "session")
    assert [item["itemId"] for item in answer["items"]] == ODD[1:3]
    assert answer["explanation"]["history"]["latest_items"] == [ODD[0]]
    alike = ask(client, "query ($i: ID!) { similar(itemId: $i, k: 2) { modelVersion items { itemId } } }", i=EVEN[0])
    assert [item["itemId"] for item in alike["data"]["similar"]["items"]] == EVEN[1:3]
    assert ask(client, '{ explanation(requestId: "gone") }') == {"data": {"explanation": None}}


def test_one_query_may_ask_for_what_is_like_each_item(client, parts):
    parts.users.know("u", [EVEN[0]])
    query = '{ recommendations(userId: "u", k: 2) { items { itemId similar(k: 1) { items { itemId } } } } }'
    items = ask(client, query)["data"]["recommendations"]["items"]
    assert [item["similar"]["items"][0]["itemId"] for item in items] == [EVEN[0], EVEN[0]]


def test_an_event_reaches_the_log(client, parts):
    told = ask(client, REPORT, event=EVENT | {"rating": 4.5, "occurredAt": "2026-11-22T09:00:00Z", "eventId": "e1"})
    assert told == {"data": {"reportEvent": {"eventId": "e1"}}}
    (event,) = parts.log.interactions
    assert (event.user_id, event.item_id, event.rating) == ("u", FILMS[0], 4.5)
    parts.log.down = True
    assert refused(client, REPORT, event=EVENT)[0] == "unavailable"


BAD = {
    "k of 0": (LIST, {"user": "u", "k": 0}, "k: "),
    "k of 10 000": (LIST, {"user": "u", "k": 10_000}, "k: "),
    "k beyond an integer": (LIST, {"user": "u", "k": 2**40}, "32-bit"),
    "k of text": (LIST, {"user": "u", "k": "ten"}, "$k"),
    "an unknown domain": (LIST, {"user": "u", "domain": "films"}, "domain: "),
    "a control character in an id": (LIST, {"user": "a\u0000b"}, "user_id: "),
    "an id that is too long": (LIST, {"user": "u" * 257}, "user_id: "),
    "a missing variable": (LIST, {}, "$user"),
    "an unknown field": ('{ recommendations(userId: "u") { price } }', {}, "price"),
    "no GraphQL": ("SELECT * FROM users", {}, "Syntax Error"),
    "an unknown operation": ("{ users { id } }", {}, "users"),
    "an event of another kind": (REPORT, {"event": EVENT | {"eventType": "look"}}, "event_type: "),
    "an event in three days": (REPORT, {"event": EVENT | {"occurredAt": "2026-11-25T10:00:00Z"}}, "occurred_at"),
    "an instant without an offset": (REPORT, {"event": EVENT | {"occurredAt": "2026-11-22T10:00:00"}}, "occurred_at"),
    "a field that events have not": (REPORT, {"event": EVENT | {"price": 3}}, "price"),
}  # fmt: skip


@pytest.mark.parametrize(("query", "variables", "word"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_by_name(client, query, variables, word):
    code, message = refused(client, query, **variables)
    assert (code, word in message) == ("invalid_request", True), message


def test_an_unknown_item_and_no_model_have_their_codes(client, parts):
    similar = '{ similar(itemId: "gone:1") { items { itemId } } }'
    assert refused(client, similar)[0] == "unknown_item"
    parts.models.current = None
    assert refused(client, similar)[0] == "unavailable"


@pytest.mark.parametrize("body", [
    {}, {"query": ""}, {"query": "{ a }", "more": 1}, {"query": 5}, {"query": "{ a }", "variables": []},
    {"query": "#" * (MAX_QUERY + 1)}, [],
], ids=str)  # fmt: skip
def test_what_is_no_request_is_refused_in_the_shape_of_every_error(client, body):
    answer = client.post("/graphql", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("name", ["", "another"])
def test_an_operation_that_is_not_there_is_refused(client, name):
    answer = client.post("/graphql", json={"query": "query a { __typename }", "operationName": name})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert client.post("/graphql", json={"query": "query a { __typename }", "operationName": "a"}).status_code == 200


def nested(depth: int) -> str:
    inner = "itemId"
    for _ in range(depth):
        inner = f"similar(k: 1) {{ items {{ {inner} }} }}"
    return f'{{ recommendations(userId: "u", k: 1) {{ items {{ {inner} }} }} }}'


def test_a_query_that_is_too_deep_does_not_run(client, parts):
    fits = (MAX_DEPTH - 2) // 2
    assert "data" in ask(client, nested(fits))
    shown = len(parts.records.shown)
    code, message = refused(client, nested(fits + 1))
    assert (code, "maximum operation depth" in message) == ("invalid_request", True)
    assert refused(client, nested(60))[0] == "invalid_request"
    assert len(parts.records.shown) == shown


def test_a_circle_of_fragments_does_not_run(client):
    query = "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }"
    assert all(fault["extensions"]["code"] == "invalid_request" for fault in ask(client, query)["errors"])


def test_many_aliases_and_many_tokens_do_not_run(client, parts):
    lists = " ".join(f'l{n}: recommendations(userId: "u") {{ rung }}' for n in range(MAX_ALIASES + 1))
    assert "aliases" in refused(client, f"{{ {lists} }}")[1]
    assert "tokens" in refused(client, "{ " + "rung " * 1500 + "}")[1]
    assert parts.records.shown == []


def test_a_query_makes_at_most_a_hundred_lists(client, parts):
    lists = " ".join(
        f'l{n}: recommendations(userId: "u", k: 12) {{ items {{ similar(k: 1) {{ model }} }} }}' for n in range(10)
    )
    told = ask(client, f"{{ {lists} }}")
    assert told.get("data") is None
    assert {fault["extensions"]["code"] for fault in told["errors"]} == {"invalid_request"}
    assert any(str(MAX_LISTS) in fault["message"] for fault in told["errors"])


def test_the_schema_tells_itself(client):
    told = ask(client, "{ __schema { queryType { fields { name } } mutationType { fields { name } } } }")
    names = {field["name"] for field in told["data"]["__schema"]["queryType"]["fields"]}
    assert names == {"recommendations", "sessionRecommendations", "similar", "explanation"}
    assert "reportEvent(event: EventInput!): Accepted!" in SCHEMA.as_str()


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_gets_an_answer(tmp_path_factory, text):
    client = TestClient(assemble(None).app, raise_server_exceptions=False)
    answer = client.post("/graphql", json={"query": text})
    assert answer.status_code in {200, 422}
    assert answer.status_code == 422 or answer.json()["errors"]
