"""What the storefront's page asks: the catalogue, users, one user, other variants; nothing of it leaves a trace."""

import asyncio
import json
import shutil
from datetime import timedelta
from types import SimpleNamespace

import pytest
import redis
from starlette.testclient import TestClient

from recsys import user_state
from recsys.promotion import Rollout, Stage
from recsys.settings import Settings
from serving.contracts import ErrorAnswer
from serving.keys import digest
from serving.model import ServedModel
from serving.process import build
from serving.rollout import Candidate
from serving.shelf import Shelf
from tests.ports import free_port
from tests.serving.ports import INSTANT, Parts, assemble
from tests.worlds.served import BOOKS, EVEN, FILMS, ITEMS, ODD, POPULAR, write_world

WEIGHTS = {"champion": 0.9, "popular": 0.1}
PATHS = (
    "/v1/catalogue",
    "/v1/items",
    "/v1/users",
    "/v1/users/u/state",
    "/v1/users/u/preview?variant=champion",
    "/v1/users/u/preview?model_version=3",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_world(tmp_path_factory.mktemp("model"), version="3")
    items = json.loads((folder / "items.json").read_text())
    items["title"][ITEMS.index(FILMS[5])] = "Amélie, the Fabulous Destiny"
    items["published_year"] = [None if item in BOOKS else 1990 + int(item[-2:]) % 5 for item in ITEMS]
    (folder / "items.json").write_text(json.dumps(items))
    deployment = json.loads((folder / "deployment.json").read_text())
    (folder / "deployment.json").write_text(json.dumps(deployment | {"unavailable_items": [FILMS[11]]}))
    return folder


@pytest.fixture
def parts(folder) -> Parts:
    return assemble(folder, WEIGHTS)


@pytest.fixture
def client(parts) -> TestClient:
    return TestClient(parts.app, raise_server_exceptions=False)


def items(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


def test_the_overview_counts_what_can_be_shown(client):
    overview = client.get("/v1/catalogue").json()
    assert (overview["model"], overview["model_version"], overview["items"]) == ("even_mean", "3", len(ITEMS))
    assert overview["variants"] == WEIGHTS
    assert overview["domains"] == [
        {"domain": "books", "items": 4, "categories": [{"category": name, "items": 2} for name in ("Even", "Odd")]},
        {
            "domain": "movies",
            "items": 11,
            "categories": [{"category": "Even", "items": 6}, {"category": "Odd", "items": 5}],
        },
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [item for item in POPULAR if item != FILMS[11]]),
        ({"domain": "books"}, BOOKS[::-1]),
        ({"category": "Odd", "domain": "movies"}, [item for item in FILMS[:11][::-1] if item in ODD]),
        ({"category": "odd"}, []),
        ({"text": "AMELIE destiny"}, [FILMS[5]]),
        ({"text": "title goodbooks"}, BOOKS[::-1]),
        ({"text": "no such words"}, []),
        ({"item_ids": f"{BOOKS[1]},unknown,{FILMS[0]},{BOOKS[1]}"}, [BOOKS[1], FILMS[0]]),
        ({"item_ids": FILMS[11]}, []),
        ({"order": "title", "k": 2}, [FILMS[5], BOOKS[0]]),
        ({"order": "newest", "k": 3}, [FILMS[9], FILMS[4], FILMS[8]]),
        ({"domain": "books", "k": 2, "offset": 3}, [BOOKS[0]]),
        ({"domain": "social"}, []),
    ],
)
def test_items_are_found(client, query, expected):
    found = client.get("/v1/items", params=query | ({} if "k" in query else {"k": 100}))
    assert items(found) == expected


def test_a_page_tells_how_many_there_are(client):
    assert client.get("/v1/items", params={"domain": "movies", "k": 1}).json()["total"] == 11


def test_users_are_found_by_what_most_of_their_history_is_about(client, parts):
    parts.users.know("reader", [FILMS[0], *BOOKS[:2], "gone"])
    parts.users.know("viewer", FILMS[:3])
    parts.users.know("stranger", ["gone"])
    assert client.get("/v1/users").json()["users"] == [
        {"user_id": "reader", "history_items": 4, "domains": ["books", "movies"]},
        {"user_id": "viewer", "history_items": 3, "domains": ["movies"]},
    ]
    assert [user["user_id"] for user in client.get("/v1/users?domain=movies").json()["users"]] == ["viewer"]
    assert len(client.get("/v1/users?k=1").json()["users"]) == 1


def test_an_empty_store_knows_nobody(client):
    assert client.get("/v1/users").json() == {"users": []}


def test_a_user_is_told_as_an_answer_would_see_them(client, parts):
    parts.users.know("u", [EVEN[0], "gone", EVEN[1]], version=7)
    state = client.get("/v1/users/u/state").json()
    assert [item["item_id"] for item in state.pop("latest_items")] == [EVEN[1], EVEN[0]]
    assert state == {"user_id": "u", "variant": "champion", "version": 7, "history_items": 3, "features": {}}
    assert client.get("/v1/users/nobody/state").json()["history_items"] == 0


def test_a_preview_is_what_the_variant_would_answer(client, parts):
    parts.users.know("u", EVEN[:2])
    listed = client.get("/v1/users/u/recommendations", params={"k": 3, "domain": "movies"}).json()
    same = client.get("/v1/users/u/preview", params={"k": 3, "domain": "movies", "variant": listed["variant"]}).json()
    other = client.get("/v1/users/u/preview", params={"k": 3, "domain": "movies", "variant": "popular"}).json()
    assert (same["items"], same["rung"]) == (listed["items"], "personalised")
    assert ([item["item_id"] for item in other["items"]], other["rung"]) == (FILMS[10:7:-1], "segment_popular")
    assert (other["variant"], other["model_version"]) == ("popular", "3")


def test_an_unknown_variant_is_named(client):
    refused = client.get("/v1/users/u/preview?variant=best")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_variant")
    assert "champion, popular" in refused.json()["error"]["message"]


@pytest.fixture
def beside(folder):
    """Two more models of this machine, one of them backwards, and what is no model."""
    home = folder.parent / "beside"
    write_world(home / "v7", version="7", backwards=True)
    write_world(home / "v10", "popularity", version="10")
    for name, text in (("v8", "{"), ("v9", '{"model_version": "9"}')):
        (home / name).mkdir()
        (home / name / "deployment.json").write_text(text)
    yield home
    shutil.rmtree(home)


def test_the_overview_names_the_models_that_can_be_compared(client, beside):
    told = client.get("/v1/catalogue").json()["models"]
    assert [(one["model_version"], one["model"], one["kind"], one["role"]) for one in told] == [
        ("3", "even_mean", "mean", "champion"),
        ("7", "even_mean", "mean", "beside"),
        ("10", "even_popularity", "popularity", "beside"),
    ]


def test_the_candidate_can_be_compared_before_anybody_gets_it(client, parts, tmp_path):
    model = assemble(write_world(tmp_path / "candidate", version="4", backwards=True)).models.current
    parts.candidates.current = Candidate(model, Rollout(version="4", stage=Stage.SHADOW, share=0))
    parts.users.know("u", ["gone"])
    offered = client.get("/v1/catalogue").json()["models"]
    assert [(one["model_version"], one["role"]) for one in offered] == [("3", "champion"), ("4", "candidate")]
    asked = {"k": 2, "domain": "movies", "model_version": "4"}
    told = client.get("/v1/users/u/preview", params=asked).json()
    assert ([item["item_id"] for item in told["items"]], told["model_version"]) == (FILMS[:2], "4")


def test_a_preview_is_what_another_model_would_answer(client, parts, beside):
    parts.users.know("u", EVEN[:2])

    def look(**asked: str) -> dict:
        return client.get("/v1/users/u/preview", params={"k": 3, "domain": "movies", **asked}).json()

    own, same = look(), look(model_version="3")
    assert own == same
    assert (own["variant"], own["model_version"], own["rung"]) == ("champion", "3", "personalised")
    other = look(model_version="10")
    assert (other["model"], other["model_version"], other["variant"]) == ("even_popularity", "10", "champion")
    assert [item["item_id"] for item in other["items"]] == FILMS[:8:-1]
    both = look(model_version="7", variant="popular")
    assert ([item["item_id"] for item in both["items"]], both["rung"]) == (FILMS[:3], "segment_popular")
    assert both["variant"] == "popular"


@pytest.mark.parametrize("version", ["9", "8", "best", "../v7", ""])
def test_a_model_that_is_not_there_or_broken_is_named(client, beside, version):
    refused = client.get("/v1/users/u/preview", params={"model_version": version})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_model")
    assert repr(version) in refused.json()["error"]["message"]


def test_only_a_few_models_stay_loaded_and_one_that_is_gone_is_forgotten(parts, beside):
    async def ask(shelf: Shelf, *versions: str) -> list[ServedModel | None]:
        return [await shelf.model(version) for version in versions]

    write_world(beside / "v11", version="11")
    candidates = SimpleNamespace(model=lambda: parts.models.current, candidate=None)
    shelf = Shelf(candidates, beside)
    first, again, *_, third = asyncio.run(ask(shelf, "7", "7", "10", "11", "7"))
    assert first is again
    assert third is not first  # two others came between: it was given up
    shutil.rmtree(beside / "v7")
    assert asyncio.run(ask(shelf, "7")) == [None]


def test_looking_around_leaves_no_trace(client, parts):
    parts.users.know("u", EVEN[:2])
    assert {client.get(path).status_code for path in PATHS} == {200}
    assert (parts.records.shown, parts.log.interactions, parts.records.kept) == ([], [], {})


@pytest.mark.parametrize("path", PATHS)
def test_before_the_first_deploy_it_is_a_503(path):
    answer = TestClient(assemble(None, WEIGHTS).app, raise_server_exceptions=False).get(path)
    assert (answer.status_code, ErrorAnswer.model_validate_json(answer.content).error.code) == (503, "unavailable")


@pytest.mark.parametrize("path", PATHS[2:])
def test_without_the_store_what_tells_of_users_is_a_503(client, parts, path):
    parts.users.down = True
    assert client.get(path).status_code == 503


def test_a_new_model_is_browsed_at_once(client, parts, tmp_path):
    other = assemble(write_world(tmp_path / "other", version="4", backwards=True))
    assert items(client.get("/v1/items?k=1")) == [FILMS[10]]
    parts.models.current = other.models.current
    assert items(client.get("/v1/items?k=1")) == [ITEMS[0]]
    assert client.get("/v1/catalogue").json()["model_version"] == "4"


@pytest.fixture(scope="module")
def guarded(world, folder, tmp_path_factory) -> Settings:
    """A real online store that knows 30 users, and an API that asks for keys."""
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    scopes = {"web": ["recommend"], "help": ["recommend", "explain"], "admin": ["admin"]}
    entries = [
        {"name": name, "sha256": digest(name), "scopes": given, "requests_per_second": 1000}
        for name, given in scopes.items()
    ]
    keys.write_text(json.dumps({"keys": entries}))
    changes = {"kafka_bootstrap": f"127.0.0.1:{free_port()}", "api_keys": str(keys), "model_dir": folder}
    settings = world("redis").model_copy(update=changes)
    with redis.Redis.from_url(settings.redis_url) as store:
        for number in range(30):
            seen = [(FILMS[0], INSTANT), (FILMS[2], INSTANT + timedelta(seconds=1))]
            user_state.add_events(store, f"u:{number:02}", seen)
            store.set(f"other:{number}", "no history")
    return settings


@pytest.mark.services
def test_a_real_store_is_sampled_and_a_key_needs_the_scope(guarded):
    with TestClient(build(guarded, lambda: INSTANT)) as client:

        def status(path: str, key: str) -> int:
            return client.get(path, headers={"Authorization": f"Bearer {key}"}).status_code

        assert client.get("/v1/users").status_code == 401
        assert [status("/v1/users", key) for key in ("web", "help", "admin")] == [403, 403, 200]
        assert [status("/v1/users/u:01/state", key) for key in ("web", "help", "admin")] == [403, 200, 200]
        assert status("/v1/users/u:01/preview?variant=champion", "web") == 200
        answer = client.get("/v1/users?k=20", headers={"Authorization": "Bearer admin"}).json()
        assert [user["user_id"] for user in answer["users"]] == [f"u:{number:02}" for number in range(20)]
        assert {user["history_items"] for user in answer["users"]} == {2}
        assert client.get("/demo/").status_code == 200  # the page itself tells nothing
        assert client.get("/demonstration").status_code == 401
