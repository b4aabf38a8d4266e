"""Precomputed lists: every user's best items, through the same core that answers live.

The lists go to the warehouse and to files, a function of the data interval and of the deployed model; and to the online
store for the users whose live history there is exactly the one that was used.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import psycopg
from psycopg import sql
from redis import Redis
from redis.exceptions import RedisError

from recsys import user_state
from recsys.artifacts import (
    BATCH_BEGUN,
    FCT_INTERACTIONS,
    FEAT_USER_ACTIVITY,
    PRECOMPUTED_LISTS,
    PRECOMPUTED_LISTS_BEGUN,
)
from recsys.errors import ServiceUnavailable
from recsys.interval import Interval
from recsys.settings import Settings
from serving.cache import ALL_DOMAINS, TIME_TO_LIVE, CachedList, list_key
from serving.graph import graph_file, read_graph
from serving.model import ServedModel, load
from serving.recommend import PERSONALISED, Query, Ranking, recommend

SCORES_IN_MEMORY = 4_000_000
"""Scores of a block, users × items: 16 MB."""

HISTORIES = """
select user_id, array_agg(item_id order by millis, item_id collate "C"), max(millis)
from (
    select
        user_id collate "C" as user_id,
        item_id,
        floor(extract(epoch from max(occurred_at)) * 1000)::bigint as millis
    from {interactions}
    where occurred_at < %(end)s and user_id collate "C" > %(after)s
    group by 1, 2
) latest
group by user_id
order by user_id
"""

FEATURES = """
select distinct on (user_id) user_id, {names} from {activity}
where event_timestamp <= %(end)s order by user_id, event_timestamp desc
"""


class User(NamedTuple):
    """One user as the warehouse knows them at the end of the interval."""

    user_id: str
    history: list[str]
    """Oldest first, in the online store's own order."""
    latest_millis: int
    features: dict[str, float]


class Files(Protocol):
    """Where the lists go as files (serving/list_files.py)."""

    place: Any

    def begin_anew(self) -> None: ...
    def add(self, rows: Sequence[tuple[Any, ...]]) -> None: ...
    def keep(self) -> None: ...
    def put_in_place(self) -> int: ...


class Begun(NamedTuple):
    """How far a batch has come."""

    after_user: str = ""
    """The latest of the users, in ascending order of their ids, whose lists are there."""
    users: int = 0
    rows: int = 0
    cached_users: int = 0


def replace_lists(
    writing: psycopg.Connection,
    reading: psycopg.Connection,
    settings: Settings,
    interval: Interval,
    length: int,
    wanted: str,
    files: Files | None,
) -> dict[str, int]:
    """Replace the lists in the warehouse, those in the online store, and the files.

    Each block of users is committed beside the lists that are in force. So a run that dies leaves those as they are,
    and the next one of the same fingerprint goes on behind its last block. Putting the new ones in place is left to the
    caller's transaction.

    Args:
        wanted: fingerprint of all that the lists are made from.
        files: what writes the lists as Parquet, of the same fingerprint; None: nothing does.

    Returns:
        users with a list, rows written, users whose list may also answer from the online store, and parts of files.

    Raises:
        UnusableInput: the deployed folder is no bundle, or the serving graph cannot be used.
        ServiceUnavailable: the online store does not answer.
    """
    model = load(settings.served_model, settings.threads, read_graph(graph_file(settings)))
    # with one domain in the catalogue its list is the list of all
    domains: list[str | None] = [None, *model.domains] if len(model.domains) > 1 else [None]
    block_size = max(1, SCORES_IN_MEMORY // model.retriever.n_items)
    begun = _begun(writing, wanted)
    if files:
        _catch_up(writing, files, begun)
    into = sql.SQL("copy {} from stdin").format(_table(PRECOMPUTED_LISTS_BEGUN))
    with Redis.from_url(settings.redis_url, decode_responses=True, socket_timeout=10) as store:
        users = _users(reading, interval, _features_read(model), begun.after_user)
        for block in _blocks(users, block_size):
            lists = {domain: _lists(model, block, domain, length) for domain in domains}
            rows = [row for domain, rankings in lists.items() for row in _rows(model, block, rankings, domain)]
            with writing.cursor() as cursor, cursor.copy(into) as copy:
                for row in rows:
                    copy.write_row(row)
            cached = _cache(store, model, block, lists)
            begun = Begun(
                block[-1].user_id, begun.users + len(block), begun.rows + len(rows), begun.cached_users + cached
            )
            _keep(writing, wanted, begun)
            writing.commit()
            if files:
                files.add(rows)
                files.keep()
    _put_in_place(writing)
    parts = files.put_in_place() if files else 0
    return {"users": begun.users, "rows": begun.rows, "cached_users": begun.cached_users, "parts": parts}


def _catch_up(connection: psycopg.Connection, files: Files, begun: Begun) -> None:
    """Bring the files to where the table is: it is always ahead of them by less than a part."""
    if not begun.after_user:
        files.begin_anew()
        return
    query = sql.SQL('select * from {} where user_id collate "C" > %s order by user_id collate "C", domain, rank')
    rows = connection.execute(query.format(_table(PRECOMPUTED_LISTS_BEGUN)), (files.place.after_user,))
    files.add(rows.fetchall())
    files.keep()


def _table(name: str) -> sql.Identifier:
    return sql.Identifier(*name.split("."))


def _begun(connection: psycopg.Connection, wanted: str) -> Begun:
    """Return how far a batch of this fingerprint has come; what another one began is given up."""
    query = sql.SQL("select after_user, users, rows, cached_users from {} where fingerprint = %s")
    row = connection.execute(query.format(_table(BATCH_BEGUN)), (wanted,)).fetchone()
    if row is not None:
        return Begun(*row)
    _give_up(connection)
    return Begun()


def _keep(connection: psycopg.Connection, wanted: str, begun: Begun) -> None:
    connection.execute(
        sql.SQL(
            """
            insert into {} values (%s, %s, %s, %s, %s) on conflict (fingerprint) do update set
                after_user = excluded.after_user, users = excluded.users, rows = excluded.rows,
                cached_users = excluded.cached_users
            """
        ).format(_table(BATCH_BEGUN)),
        (wanted, *begun),
    )


def _put_in_place(connection: psycopg.Connection) -> None:
    lists, begun = _table(PRECOMPUTED_LISTS), _table(PRECOMPUTED_LISTS_BEGUN)
    connection.execute(sql.SQL("delete from {}").format(lists))
    connection.execute(sql.SQL("insert into {} select * from {}").format(lists, begun))
    _give_up(connection)


def _give_up(connection: psycopg.Connection) -> None:
    tables = sql.SQL(", ").join(map(_table, (PRECOMPUTED_LISTS_BEGUN, BATCH_BEGUN)))
    connection.execute(sql.SQL("truncate {}").format(tables))


def _features_read(model: ServedModel) -> tuple[str, ...]:
    """Return the user features that the model and its ranker read, each once."""
    ranker = model.plan.ranker
    return tuple(dict.fromkeys((*model.manifest.user_features, *(ranker.signature.user_features if ranker else ()))))


def _users(
    connection: psycopg.Connection, interval: Interval, feature_names: Sequence[str], after: str
) -> Iterator[User]:
    """Yield every user behind this one with an interaction before the end, by ascending id, streamed."""
    features = _features(connection, interval, feature_names)
    query = sql.SQL(HISTORIES).format(interactions=sql.Identifier(*FCT_INTERACTIONS.split(".")))
    with connection.cursor(name="histories", binary=True) as cursor:
        cursor.itersize = 1000
        cursor.execute(query, {"end": interval.end, "after": after})
        for user_id, history, latest_millis in cursor:
            yield User(user_id, history[-user_state.MAX_HISTORY :], latest_millis, features.get(user_id, {}))


def _features(connection: psycopg.Connection, interval: Interval, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the users' latest online features at the end of the interval; empty for a model that reads none."""
    if not names:
        return {}
    query = sql.SQL(FEATURES).format(
        names=sql.SQL(", ").join(map(sql.Identifier, names)),
        activity=sql.Identifier(*FEAT_USER_ACTIVITY.split(".")),
    )
    return {
        user_id: {name: float(value) for name, value in zip(names, values, strict=True) if value is not None}
        for user_id, *values in connection.execute(query, {"end": interval.end})
    }


def _blocks(users: Iterator[User], size: int) -> Iterator[list[User]]:
    while block := list(islice(users, size)):
        yield block


def _lists(model: ServedModel, block: Sequence[User], domain: str | None, length: int) -> list[Ranking]:
    return recommend(model, [Query(length, user.history, user.features, domain=domain) for user in block])


def _rows(
    model: ServedModel, block: Sequence[User], rankings: Sequence[Ranking], domain: str | None
) -> Iterator[tuple[Any, ...]]:
    item_id = model.retriever.catalogue.item_id
    for user, ranking in zip(block, rankings, strict=True):
        for rank, (item, score) in enumerate(zip(ranking.items, ranking.scores, strict=True), start=1):
            yield user.user_id, domain or ALL_DOMAINS, rank, item_id[item], score, model.version


def _cache(store: Redis, model: ServedModel, block: Sequence[User], lists: dict[str | None, list[Ranking]]) -> int:
    """Store the block's lists for the users whose live state is what was used here; return how many those are.

    The version is read together with the state that it stands for: an event that arrives later moves it on, and the
    list is stale before anybody reads it.

    Raises:
        ServiceUnavailable: the online store does not answer.
    """
    item_id, cached = model.retriever.catalogue.item_id, 0
    try:
        pipeline = store.pipeline(transaction=True)
        for user in block:
            key = user_state.history_key(user.user_id)
            pipeline.zcard(key)
            pipeline.zrange(key, -1, -1, withscores=True)
            pipeline.get(user_state.version_key(user.user_id))
        replies = iter(pipeline.execute())
        pipeline = store.pipeline(transaction=False)
        for row, (user, length, latest, version) in enumerate(zip(block, replies, replies, replies, strict=False)):
            if lists[None][row].rung != PERSONALISED or not _same_history(user, length, latest):
                continue  # nothing to save; or events since the interval's end, and the live answer is the fresher one
            cached += 1
            for domain, rankings in lists.items():
                items = [(item_id[i], s) for i, s in zip(rankings[row].items, rankings[row].scores, strict=True)]
                value = CachedList(
                    model_version=model.version, user_version=int(version or 0), items=items,
                    made_with=model.plan.version,
                )  # fmt: skip
                pipeline.set(list_key(user.user_id, domain), value.model_dump_json(), ex=TIME_TO_LIVE)
        pipeline.execute()
    except RedisError as error:
        raise ServiceUnavailable("online store", error, "Start the platform with `make up`") from error
    return cached


def _same_history(user: User, length: int, latest: Sequence[Any]) -> bool:
    """Whether the store holds this very history: as many items, the same latest one at the same instant.

    A millisecond's difference is one of rounding.
    """
    if length != len(user.history):
        return False
    ((item_id, millis),) = latest
    return item_id == user.history[-1] and abs(millis - user.latest_millis) <= 1
