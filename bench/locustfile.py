"""Users as they come, for Locust: who looks, clicks, asks why; who is nobody in particular; who fetches for many.

    make load HOST=http://127.0.0.1:18080 USERS=50 SECONDS=60

Needs a platform that serves (`make up`, or any address of the API), and Locust's own environment, which `make load`
installs. Without `--headless` Locust shows its page; several machines join by its `--worker`. Locust waits for answers
before it asks again, so its latencies leave out what a queue would have cost: figures that are published come from
bench/load_generator.py, an open loop.

Whom to be is asked of the API (`GET /v1/users`); where it knows nobody, visitors are strangers.
"""

import random
from collections.abc import Sequence
from itertools import count
from typing import Any

from locust import HttpUser, between, events, tag, task

KNOWN = 50
"""Users that the API names at once."""
MANY = 20
"""Lists in one request of a caller."""
SEED = 7
NUMBERS = count()


@events.init_command_line_parser.add_listener
def _arguments(parser: Any) -> None:
    parser.add_argument("--key", default="", help="API key, where the API asks for one", is_secret=True)


class Caller(HttpUser):
    """What all of them share: a key, people to be, and an eye on what comes back."""

    abstract = True

    def on_start(self) -> None:
        if key := self.environment.parsed_options.key:
            self.client.headers["Authorization"] = f"Bearer {key}"
        self.chance = random.Random(f"{SEED}-{next(NUMBERS)}")
        known = self.client.get("/v1/users", params={"k": KNOWN}, name="who is known")
        people = [one["user_id"] for one in known.json()["users"]] if known.ok else []
        self.people: Sequence[str] = people or [f"stranger:{number}" for number in range(KNOWN)]

    def lists(self, method: str, path: str, name: str, wanted: int = 1, **how: Any) -> list[dict[str, Any]]:
        """Ask, and return the answers that hold a list; fewer than are wanted, or an empty one, count as a failure."""
        with self.client.request(method, path, name=name, catch_response=True, **how) as answer:
            if not answer.ok:
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")
                return []
            said = answer.json()
            found = said.get("answers", [said])
            if len(found) != wanted or not all(one["items"] and one["rung"] for one in found):
                answer.failure(f"{len(found)} answers for {wanted}, or one without items or without its rung")
            return found


class Visitor(Caller):
    """A known user: looks at a list, clicks, looks at what is like it, wants to know why."""

    weight = 8
    wait_time = between(0.5, 3)

    def on_start(self) -> None:
        super().on_start()
        self.me = self.chance.choice(self.people)
        self.shown: dict[str, Any] | None = None

    @task(10)
    def look(self) -> None:
        path = f"/v1/users/{self.me}/recommendations"
        for answer in self.lists("GET", path, "a user's list", params={"k": 10}):
            self.shown = answer

    @tag("writes")
    @task(3)
    def click(self) -> None:
        if self.shown is None:
            return self.look()
        item = self.chance.choice(self.shown["items"])
        click = {"user_id": self.me, "item_id": item["item_id"], "domain": item["domain"], "event_type": "click"}
        self.client.post("/v1/events", json=click | {"request_id": self.shown["request_id"]}, name="a click")

    @task(2)
    def look_around(self) -> None:
        if self.shown is not None:
            item_id = self.shown["items"][0]["item_id"]
            self.client.get(f"/v1/items/{item_id}/similar", params={"k": 10}, name="items like one")

    @task(1)
    def ask_why(self) -> None:
        """The record follows its answer by some tenths of a second."""
        if self.shown is not None:
            path = f"/v1/requests/{self.shown['request_id']}"
            with self.client.get(path, name="why these items", catch_response=True) as answer:
                if answer.status_code == 404:
                    answer.success()


class Stranger(Caller):
    """Nobody in particular: a session of some items, and everybody's list."""

    weight = 3
    wait_time = between(1, 4)

    @task(2)
    def popular(self) -> None:
        path = f"/v1/users/stranger:{self.chance.randrange(10**6)}/recommendations"
        for answer in self.lists("GET", path, "a stranger's list", params={"k": 10}):
            self.looked_at = [item["item_id"] for item in answer["items"][:3]]

    @task(2)
    def session(self) -> None:
        body = {"items": getattr(self, "looked_at", []), "k": 10}
        if body["items"]:
            self.lists("POST", "/v1/sessions/recommendations", "a session's list", json=body)


class Fetcher(Caller):
    """A program that fetches many lists at once, for a mail."""

    weight = 1
    wait_time = between(2, 6)

    @task
    def many(self) -> None:
        wanted = [{"user_id": self.chance.choice(self.people), "k": 10} for _ in range(MANY)]
        self.lists("POST", "/v1/recommendations:batch", f"{MANY} lists", MANY, json={"requests": wanted})
