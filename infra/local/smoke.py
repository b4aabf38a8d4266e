"""Asks the live API what a user, a stranger and three clouds would ask, and checks each answer."""

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import redis

from infra.local.deploy import DEPLOYMENT
from recsys import user_state
from recsys.artifacts import DIM_USERS
from recsys.bundle import read_catalogue, read_manifest
from recsys.errors import CheckFailed, MissingArtifact, ServiceUnavailable
from recsys.settings import Settings
from recsys.warehouse import connect

K = 10
LARGEST_K = 1000
STRANGER = "smoke:stranger"
CHAMPION_VARIANT = "champion"


def ask(url: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """Return status and decoded JSON of a GET, or of a POST when there is a body.

    Raises:
        ServiceUnavailable: nothing answers, or not in JSON.
    """
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except (OSError, ValueError) as error:
        raise ServiceUnavailable("serving", f"{url}: {error}", "See `make status` and serving's log") from error


class Smoke:
    """The checks, each named; the faults are collected, so that one run tells all of them."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.passed: list[str] = []
        self.faults: list[str] = []
        folder = settings.served_model
        if not (folder / DEPLOYMENT).exists():
            raise MissingArtifact("served model", folder, "Deploy first: python -m infra.local deploy")
        self.version = json.loads((folder / DEPLOYMENT).read_text())["model_version"]
        self.kind = read_manifest(folder).kind
        self.domain_of = dict(
            zip(*(read_catalogue(folder).model_dump()[c] for c in ("item_id", "domain")), strict=True)
        )

    def expect(self, name: str, is_so: bool, observed: object) -> None:
        """Note one check."""
        if is_so:
            self.passed.append(name)
        else:
            self.faults.append(f"{name}: {str(observed)[:300]}")

    def url(self, path: str, **query: object) -> str:
        return f"{self.settings.serving_url}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")

    def list_for(self, user_id: str, **query: object) -> tuple[int, Any]:
        return ask(self.url(f"/v1/users/{urllib.parse.quote(user_id, safe='')}/recommendations", **query))

    def expect_list(self, name: str, status: int, answer: Any, length: int) -> None:
        """Check what holds for every list: length, ranks from 1, known and distinct items, the deployed version."""
        items = answer.get("items", []) if status == 200 else []
        ids = [item["item_id"] for item in items]
        self.expect(f"{name}: 200", status == 200, answer)
        self.expect(f"{name}: {length} items", len(items) == length, len(items))
        self.expect(f"{name}: ranks", [item["rank"] for item in items] == list(range(1, len(items) + 1)), items[:3])
        self.expect(f"{name}: distinct", len(set(ids)) == len(ids), ids)
        self.expect(f"{name}: in the catalogue", self.domain_of.keys() >= set(ids), ids)
        self.expect(f"{name}: version", answer.get("model_version") == self.version, answer.get("model_version"))

    def known_user(self, user_id: str, history: list[str]) -> None:
        status, answer = self.list_for(user_id, k=K)
        unseen = len(self.domain_of.keys() - set(history))
        self.expect_list("known user", status, answer, min(K, unseen))
        shown = {item["item_id"] for item in answer.get("items", [])}
        self.expect("known user: nothing seen", not shown & set(history), sorted(shown & set(history)))
        is_personal = answer.get("variant") == CHAMPION_VARIANT and self.kind != "popularity"
        if is_personal:
            self.expect("known user: personalised", answer.get("rung") == "personalised", answer.get("rung"))

    def stranger(self) -> None:
        status, answer = self.list_for(STRANGER, k=K)
        self.expect_list("unknown user", status, answer, min(K, len(self.domain_of)))
        self.expect("unknown user: rung", answer.get("rung") in ("segment_popular", "popular"), answer.get("rung"))
        for domain in sorted(set(self.domain_of.values())):
            status, answer = self.list_for(STRANGER, k=K, domain=domain)
            domains = {item["domain"] for item in answer.get("items", [])}
            self.expect(f"unknown user: only {domain}", status == 200 and domains == {domain}, answer)

    def edges(self) -> None:
        status, answer = self.list_for(STRANGER, k=LARGEST_K)
        self.expect_list("k beyond the catalogue", status, answer, min(LARGEST_K, len(self.domain_of)))
        for name, (status, answer) in {
            "k of zero": self.list_for(STRANGER, k=0),
            "unknown domain": self.list_for(STRANGER, domain="weather"),
            "no such page": ask(self.url("/v1/nothing")),
            "event without user": ask(self.url("/v1/events"), {"item_id": "x"}),
        }.items():
            is_shaped = 400 <= status < 500 and set(answer.get("error", {})) == {"code", "message"}
            self.expect(f"{name}: refused in the error shape", is_shaped, (status, answer))

    def clouds(self, user_id: str) -> None:
        for path in ("/healthz", "/readyz", "/ping", self.settings.vertex_health_route):
            status, answer = ask(self.url(path))
            self.expect(f"{path}: 200", status == 200, answer)
        wanted = {"user_id": user_id, "k": 3}
        for name, path in (("SageMaker", "/invocations"), ("Azure ML", "/score")):
            status, answer = ask(self.url(path), wanted)
            self.expect_list(f"{name} {path}", status, answer, min(3, len(self.domain_of)))
        status, answer = ask(self.url(self.settings.vertex_predict_route), {"instances": [wanted, wanted]})
        predictions = answer.get("predictions", [])
        self.expect("Vertex AI: a prediction for each instance", status == 200 and len(predictions) == 2, answer)
        for prediction in predictions:
            self.expect_list("Vertex AI", status, prediction, min(3, len(self.domain_of)))


def smoke(settings: Settings) -> dict[str, Any]:
    """Ask, check, and return what was checked.

    Raises:
        MissingArtifact: nothing is deployed, or the marts hold no user.
        ServiceUnavailable: serving, PostgreSQL or Redis does not answer.
        CheckFailed: an answer is not as it should be; the sentence names each.
    """
    checks = Smoke(settings)
    with connect(settings) as connection:
        row = connection.execute(
            f"select user_id from {DIM_USERS} order by interaction_count desc, user_id limit 1"
        ).fetchone()
    if row is None:
        raise MissingArtifact(DIM_USERS, "no rows", "Run the pipeline first; `make demo` runs all in order")
    user_id = row[0]
    try:
        with redis.Redis.from_url(settings.redis_url, decode_responses=True, socket_timeout=10) as client:
            history = client.zrange(user_state.history_key(user_id), 0, -1)
    except redis.RedisError as error:
        raise ServiceUnavailable("Redis", error, "Start the platform with `make up`") from error
    checks.expect("known user: has a history online", bool(history), user_id)
    checks.known_user(user_id, history)
    checks.stranger()
    checks.edges()
    checks.clouds(user_id)
    if checks.faults:
        raise CheckFailed("smoke test", "; ".join(checks.faults), "See serving's log and `make status`")
    return {
        "unchanged": False,
        "model_version": checks.version,
        "user_id": user_id,
        "checks": len(checks.passed),
    }
