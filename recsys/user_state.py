"""A user's live state in the online store, beside Feast's own keys: what one answer needs, in one round trip.

    history:<user_id>    sorted set item_id → instant of the latest event in ms: the history and the seen set
    features:<user_id>   hash feature → decimal text: the online features of the feature service `retrieval_v1`
    version:<user_id>    counter that each of the user's events moves: answers cached under an older one are stale

`CARRY` writes many users at once as the functions do one after the other: held by tests/streaming/test_batches.py.

Every write is idempotent except the counter, which only ever makes a cached answer stale. The functions take a
`redis.Redis` or a pipeline of one.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

MAX_HISTORY = 5000
EXACT = 2.0**53
"""Below it, whole numbers are exact as floats."""

CARRY = f"""
local place = 1
local function take()
    local first = place + 1
    place = first + tonumber(ARGV[first - 1])
    return first, place - 1
end
local function call(command, key, option, first, last)
    if last < first then return end
    if option then return redis.call(command, key, option, unpack(ARGV, first, last)) end
    return redis.call(command, key, unpack(ARGV, first, last))
end
for user = 1, #KEYS, 3 do
    if call('ZADD', KEYS[user], 'GT', take()) then
        redis.call('ZREMRANGEBYRANK', KEYS[user], 0, {-MAX_HISTORY - 1})
    end
    call('HSET', KEYS[user + 1], nil, take())
    call('HDEL', KEYS[user + 1], nil, take())
    redis.call('INCR', KEYS[user + 2])
end
"""
"""Keys: history, features and version of each user. Arguments: for each user three lists, each behind its length:
instant and item by turns, name and value by turns, names of features that have no value. One reply for all users."""
ITEMS_AT_ONCE, USERS_AT_ONCE = 1000, 100
"""What Lua can unpack, and what the store does in half a millisecond, in which it answers nobody else."""


class UserState(NamedTuple):
    """One user as the store knows them; empty for an unknown user."""

    history: list[str]
    """Item ids, oldest first."""
    features: dict[str, float]
    version: int


def history_key(user_id: str) -> str:
    return f"history:{user_id}"


def features_key(user_id: str) -> str:
    return f"features:{user_id}"


def version_key(user_id: str) -> str:
    return f"version:{user_id}"


def list_key(user_id: str, domain: str | None) -> str:
    """Key of a stored list, which serving writes and reads (serving/cache.py); None: of all domains."""
    return f"list:{user_id}:{domain or 'all'}"


def record_key(request_id: str) -> str:
    """Key of what an answer was made of, which serving writes and reads (serving/request_records.py)."""
    return f"request:{request_id}"


def add_events(client: Any, user_id: str, items: Iterable[tuple[str, datetime]]) -> None:
    """Add items with their instants to a user's history. An item's instant only ever moves forward, so the same events
    in any order, or twice, leave the same state."""
    if scores := _scores(items):
        client.zadd(history_key(user_id), scores, gt=True)
        client.zremrangebyrank(history_key(user_id), 0, -MAX_HISTORY - 1)


def _scores(items: Iterable[tuple[str, datetime]]) -> dict[str, int]:
    scores: dict[str, int] = {}
    for item_id, instant in items:
        millis = int(instant.timestamp() * 1000)
        scores[item_id] = max(millis, scores.get(item_id, millis))
    return scores


def set_features(client: Any, user_id: str, features: Mapping[str, float | None]) -> None:
    """Replace the named features of a user; a null one is removed."""
    present, absent = _told(features)
    if present:
        client.hset(features_key(user_id), mapping=present)
    if absent:
        client.hdel(features_key(user_id), *absent)


def _told(features: Mapping[str, float | None]) -> tuple[dict[str, str], list[str]]:
    present = {name: _decimal(float(value)) for name, value in features.items() if value is not None}
    return present, [name for name, value in features.items() if value is None]


def _decimal(value: float) -> str:
    """Return the shortest text that is read as this number; the store keeps that of a whole one as an integer."""
    return str(int(value)) if value.is_integer() and abs(value) < EXACT else repr(value)


def move_version(client: Any, user_id: str) -> None:
    """Make every cached answer of this user stale."""
    client.incr(version_key(user_id))


User = tuple[str, Iterable[tuple[str, datetime]], Mapping[str, float | None]]
"""Id, items with their instants to be added, features to be replaced."""


def carrying(users: Iterable[User]) -> Iterator[list[str | int]]:
    """Yield the commands that add to these users' histories, replace their features and move their versions."""
    keys: list[str | int] = []
    said: list[str | int] = []
    for user_id, items, features in users:
        pairs = list(itertools.chain.from_iterable((at, item) for item, at in _scores(items).items()))
        present, absent = _told(features)
        for start in range(0, max(len(pairs), 1), 2 * ITEMS_AT_ONCE):
            some = pairs[start : start + 2 * ITEMS_AT_ONCE]
            keys += (history_key(user_id), features_key(user_id), version_key(user_id))
            said += (len(some), *some, 2 * len(present), *itertools.chain.from_iterable(present.items()))
            said += (len(absent), *absent)
        if len(keys) >= 3 * USERS_AT_ONCE:
            yield ["EVAL", CARRY, len(keys), *keys, *said]
            keys, said = [], []
    if keys:
        yield ["EVAL", CARRY, len(keys), *keys, *said]


def queue_read(pipeline: Any, user_id: str) -> None:
    """Queue the three reads of one user on a pipeline; `decode` understands their replies.

    The version comes first, as it is written last: a list made from what is read here is never older than the version
    that it is kept under, whatever is written in between.
    """
    pipeline.get(version_key(user_id))
    pipeline.zrange(history_key(user_id), 0, -1)
    pipeline.hgetall(features_key(user_id))


def decode(replies: Sequence[Any]) -> UserState:
    """Return the state from the three replies of `queue_read`, of a client with `decode_responses=True`."""
    version, history, features = replies
    return UserState(list(history), {name: float(value) for name, value in features.items()}, int(version or 0))
