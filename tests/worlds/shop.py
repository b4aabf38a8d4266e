"""Three months of two small shops at random, with what real logs bring: copies, early and late clicks, odd prices."""

import json
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

FIRST = datetime(2020, 1, 20, tzinfo=UTC)
AS_OF = date(2020, 4, 16)
DAYS = (AS_OF - FIRST.date()).days
KINDS = ("view", "click", "purchase", "rate", "share")
CONTEXTS: tuple[dict[str, Any], ...] = (
    {}, {}, {"quantity": "3"}, {"price": "7.50"}, {"quantity": "2", "price": "4"}, {"revenue": "99.9"},
    {"price": "-3"}, {"price": "free", "quantity": "many"},
)  # fmt: skip
VARIANTS = ("champion", "popular", "new")
RUNS = [
    ("recsys_pipeline", f"run {back}", AS_OF - timedelta(days=back), "failed" if back % 17 == 3 else "success", 60.0)
    for back in range(2, 50)
]
OUTCOMES = [
    (station, AS_OF - timedelta(days=back), "check", str(back), "1", "1", "fail" if back % 23 == 5 else "warn", "{}")
    for station in ("expectations", "monitoring", "experiments")
    for back in range(1, 40)
]


def items(random: Random, count: int = 30) -> list[dict[str, Any]]:
    """Films have no price; every tenth item has no category; some categories are shared."""
    return [
        {
            "item_id": f"i:{number:02}",
            "domain": "books" if number % 3 else "movies",
            "title": f"Title {number}",
            "categories": random.sample(["A", "B", "C", "D"], random.randint(1, 3)) if number % 10 else [],
            "price": round(random.uniform(1, 30), 2) if number % 3 and number % 4 else None,
        }
        for number in range(count)
    ]


def happened(random: Random, catalogue: list[dict[str, Any]], users: int = 45) -> tuple[list[dict], list[dict]]:
    """Return interactions and impressions. Users come in bursts; an answer shows four items of one domain."""
    interactions: list[dict[str, Any]] = []
    impressions: list[dict[str, Any]] = []

    def log(user: str, item: dict[str, Any], kind: str, at: datetime, context: dict[str, Any]) -> None:
        rating = float(random.randint(1, 5)) if kind == "rate" else None
        interactions.append(
            {
                "event_id": f"e{len(interactions):05}", "user_id": user, "item_id": item["item_id"], "rating": rating,
                "occurred_at": at, "domain": item["domain"], "event_type": kind, "context": json.dumps(context),
            }
        )  # fmt: skip

    for number in range(users):
        user, joined = f"u:{number:02}", random.random() ** 2 * DAYS
        for burst in range(random.randint(1, 8)):
            at = FIRST + timedelta(days=joined + random.random() * (DAYS - joined), seconds=burst)
            domain = random.choice(["books", "movies"])
            own = [item for item in catalogue if item["domain"] == domain]
            variant = random.choices(VARIANTS, [6, 3, 1])[0] if number % 9 == 0 else VARIANTS[number % 3]
            shown = random.sample(own, 4)
            for rank, item in enumerate(shown, 1):
                impressions.append(
                    {
                        "event_id": f"s{len(impressions):05}", "request_id": f"r{number:02}-{burst}", "user_id": user,
                        "item_id": item["item_id"], "rank": rank, "score": 1 / rank, "domain": domain,
                        "variant": variant, "model_version": "1", "propensity": 0.9,
                        "rung": "popular" if variant == "popular" else "personalised", "shown_at": at,
                    }
                )  # fmt: skip
            for item in random.sample(shown, random.randint(0, 2)):
                clicked = at + timedelta(minutes=random.choice([-5, 0, 1, 20]))
                log(user, item, "click", clicked, {"request_id": f"r{number:02}-{burst}"})
                if random.random() < 0.6:
                    after = random.choice([timedelta(0), timedelta(days=2), timedelta(days=7), timedelta(days=8)])
                    log(user, item, random.choice(["purchase", "rate", "share"]), clicked + after, {})
            for step in range(random.randint(0, 4)):
                later = at + timedelta(minutes=step * random.choice([10, 30, 31]))
                log(user, random.choice(own), random.choice(KINDS), later, random.choice(CONTEXTS))
    return interactions, impressions


def copies(random: Random, interactions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows as landed: most from files, some from the stream, some from both, with another rating there."""
    landed = []
    for event in interactions:
        where = random.choices(["files", "stream", "both"], [7, 2, 1])[0]
        if where != "stream":
            landed.append(event | {"source": "files", "landed_partition": "history"})
        if where != "files":
            rating = event["rating"] if where == "stream" or event["rating"] is None else 6 - event["rating"]
            landed.append(event | {"rating": rating, "source": "stream", "landed_partition": "stream"})
    return landed
