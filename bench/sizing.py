"""How much of what an installation needs: Redis a user, measured; cores and memory, from the other scripts' results.

    python -m bench.sizing

Writes docs/results/sizing.md. The users' state is written into a real Valkey by the consumer's own code, histories of
several lengths, with Feast's keys beside it; a short history that is still a compact list and a long one that is not
cost differently. Cores and memory of serving come from docs/results/serving.json (`python -m bench.serving_load`).
"""

import json
import re
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import redis

from bench.results import FOLDER, publish
from bench.serving_world import ML_1M_ITEMS, ML_25M_ITEMS, names
from recsys.artifacts import USER_FEATURES
from streaming.activity import UserFeatures
from streaming.feature_push import FeaturePush
from streaming.state import replace
from tests.conftest import Services

USERS, BATCH, MILLION = 20_000, 1000, 1_000_000
HISTORIES = (10, 20, 50, 100, 165)
"""Items of a history; 165 is MovieLens 1M's mean."""
TYPICAL = 20
BUSY = 0.6
"""Share of a core that is planned with: beyond it, waiting grows fast."""
COMMAND = "python -m bench.sizing"
PLANS = (
    (10_000, ML_1M_ITEMS, 20),
    (100_000, ML_25M_ITEMS, 100),
    (1_000_000, ML_25M_ITEMS, 500),
    (10_000_000, MILLION, 2000),
)  # fmt: skip
"""Users, items, requests a second."""
WITH_CHILDREN = 3
"""Place of that median in a row that says median, least and largest of the process alone and then with its children."""


def footprint(client: redis.Redis, length: int) -> float:
    """Return the bytes that a user with so many items in their history takes, keys of Feast included."""
    client.execute_command("FLUSHALL", "SYNC")  # by default it frees later, and what is left would count as empty
    chance, catalogue = np.random.default_rng(4), names(ML_25M_ITEMS)
    start, push = datetime(2026, 1, 1, tzinfo=UTC), FeaturePush(client)
    empty = client.info("memory")["used_memory"]
    for first in range(0, USERS, BATCH):
        users = []
        for number in range(first, first + BATCH):
            items = chance.choice(ML_25M_ITEMS, length, replace=False)
            events = [(catalogue[item], start + timedelta(hours=place)) for place, item in enumerate(items)]
            values = dict(zip(USER_FEATURES, (length, 3, length, 3.7), strict=True))
            users.append((f"user:{number}", events, UserFeatures(start, values)))
        replace(client, users)
        push({user_id: features for user_id, _, features in users})
    client.script_flush("SYNC")  # what the writing scripts left for the collector is no user's, and counts as used
    return (client.info("memory")["used_memory"] - empty) / USERS


def numbers_of(rows: list[dict[str, str]], measure: str) -> list[float]:
    """Return the numbers that a published measure says.

    Raises:
        SystemExit: it was never published.
    """
    for row in rows:
        if row["measure"] == measure:
            return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", row["measured"])]
    raise SystemExit(f"{measure!r} is not in docs/results/serving.json: run `python -m bench.serving_load` first")


def between(items: int, small: float, large: float) -> float:
    """Return what the line through the two measured catalogues says of this one, at least the small one's."""
    share = (items - ML_1M_ITEMS) / (ML_25M_ITEMS - ML_1M_ITEMS)
    return max(small, small + share * (large - small))


def main() -> None:
    table: list[dict[str, str]] = []

    def row(measure: str, target: str, measured: str) -> None:
        table.append({"measure": measure, "target": target, "measured": measured, "command": COMMAND})
        print(measure, measured, file=sys.stderr, flush=True)

    bytes_a_user = {}
    with tempfile.TemporaryDirectory(prefix="recsys-sizing-") as folder:
        Path(folder).chmod(0o711)
        services = Services(Path(folder))
        try:
            services.start("redis")
            with redis.Redis.from_url(services.settings.redis_url) as client:
                for length in HISTORIES:
                    bytes_a_user[length] = footprint(client, length)
                    target = "≤ 1 GiB" if length == TYPICAL else "none"
                    measured = (
                        f"{bytes_a_user[length] * MILLION / 2**30:.2f} GiB ({bytes_a_user[length]:.0f} bytes a user)"
                    )
                    row(f"Redis for a million users with {length} items each", target, measured)
        finally:
            services.stop()
    publish("sizing", "Sizing", table, plans(bytes_a_user))


def plans(bytes_a_user: dict[int, float]) -> str:
    """Return the sizing table as text."""
    rows: list[dict[str, Any]] = json.loads((FOLDER / "serving.json").read_text())["rows"]
    cpu, memory = {}, {}
    for items in (ML_1M_ITEMS, ML_25M_ITEMS):
        an_answer = f"serving, {items} items: 16 connections, processor time of an answer"
        cpu[items] = numbers_of(rows, an_answer)[WITH_CHILDREN]
        memory[items] = sum(numbers_of(rows, f"serving, {items} items: resident memory"))
    lines = [
        f"{USERS:,} users were written for each length; a million is that times as many. Cores: processor time of a",
        "personalised, ranked answer with all that it leaves behind (docs/results/serving.md), cores planned to be",
        f"{BUSY:.0%} busy; stores and consumer come on top. Memory: of one serving process. Beyond",
        f"{ML_25M_ITEMS:,} items both follow the line through the two measured catalogues, which overstates the cores:",
        f"an approximate index stands in there. Redis: {TYPICAL} and {HISTORIES[-1]} items a user.",
        "",
        "| users | items | requests a second | cores of serving | memory a process | Redis |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for users, items, rate in PLANS:
        cores = rate * between(items, cpu[ML_1M_ITEMS], cpu[ML_25M_ITEMS]) / 1000 / BUSY
        resident = between(items, memory[ML_1M_ITEMS], memory[ML_25M_ITEMS])
        least, most = (bytes_a_user[length] * users / 2**30 for length in (TYPICAL, HISTORIES[-1]))
        lines.append(
            f"| {users:,} | {items:,} | {rate:,} | {cores:.1f} | {resident:,.0f} MiB | {least:.2f} to {most:.2f} GiB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
