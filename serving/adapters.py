"""The real ports: the model from a folder, the user from Redis. The log has `eventlog.py`."""

import asyncio
import gc
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from recsys import user_state
from recsys.artifacts import RANKER_FILES
from recsys.errors import UnusableInput
from recsys.user_state import UserState
from serving.cache import list_key
from serving.graph import DEFAULT_FILE, graph_state, read_graph
from serving.metrics import Metrics
from serving.model import ServedModel, load
from serving.online_store import OnlineStore
from serving.ports import Glimpse
from serving.recommend import warm

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often the model's folder is looked at."""

GLIMPSED = 20
"""Latest items of a history that tell what a user is about."""

SCANS, KEYS_A_SCAN = 20, 1000
"""How much of the store is walked over to find some users: at most so many keys, a millisecond each thousand."""


class RedisUserStates:
    """Users from Redis or Valkey: one round trip, however many users."""

    def __init__(self, store: OnlineStore):
        self._store = store

    async def read(self, users: Sequence[tuple[str, str | None]]) -> list[tuple[UserState, str | None]]:
        def queue(pipeline: Any) -> None:
            for user_id, list_domain in users:
                user_state.queue_read(pipeline, user_id)
                pipeline.get(list_key(user_id, list_domain))

        def decode(replies: list[Any]) -> list[tuple[UserState, str | None]]:
            size = len(replies) // len(users)
            blocks = (replies[start : start + size] for start in range(0, len(replies), size))
            return [(user_state.decode(state), cached) for *state, cached in blocks]

        return await self._store.ask(queue, decode)

    async def version(self, user_id: str) -> int:
        """Return the user's version, 0 for an unknown user."""
        key = user_state.version_key(user_id)
        return await self._store.ask(lambda pipeline: pipeline.get(key), lambda replies: int(replies[0] or 0))

    async def some(self, limit: int) -> list[Glimpse]:
        prefix = user_state.history_key("")
        found: set[str] = set()
        cursor = 0
        for _ in range(SCANS):
            cursor, keys = await self._store.ask(partial(_queue_scan, cursor), lambda replies: replies[0])
            found.update(key.removeprefix(prefix) for key in keys)
            if len(found) >= limit or cursor == 0:
                break
        return await self._glimpses(sorted(found)[:limit])

    async def _glimpses(self, users: Sequence[str]) -> list[Glimpse]:
        def queue(pipeline: Any) -> None:
            for user_id in users:
                pipeline.zcard(user_state.history_key(user_id))
                pipeline.zrange(user_state.history_key(user_id), -GLIMPSED, -1)

        def decode(replies: list[Any]) -> list[Glimpse]:
            found = zip(users, replies[::2], replies[1::2], strict=True)
            return [Glimpse(user_id, items, latest) for user_id, items, latest in found if items]

        return await self._store.ask(queue, decode) if users else []


def _queue_scan(cursor: int, pipeline: Any) -> None:
    pipeline.scan(cursor, match=user_state.history_key("*"), count=KEYS_A_SCAN)


class FolderModels:
    """The model in a folder, usually a link that each deployment moves; a new one is picked up without a pause."""

    def __init__(self, folder: Path, metrics: Metrics, threads: int = 1, graph_file: Path = DEFAULT_FILE):
        """Read the serving graph; the model is loaded by `refresh`.

        Raises:
            UnusableInput: the graph cannot be used: a process that does not know its rules does not start.
        """
        self._folder, self._metrics, self._threads, self._graph_file = folder, metrics, threads, graph_file
        self._graph = read_graph(graph_file)
        self._current: ServedModel | None = None
        self._seen: object = None
        self._seen_graph = graph_state(graph_file)

    @property
    def current(self) -> ServedModel | None:
        return self._current

    def refresh(self) -> None:
        """Load the folder's model, or take the graph, if it differs from what was last looked at.

        What cannot be loaded, or cannot answer, is logged and counted, and the earlier one stays.
        """
        self._refresh_graph()
        look = self._look()
        if look is None or look == self._seen:
            return
        self._seen = look
        try:
            model = load(self._folder, self._threads, self._graph)
            warm(model)
        except UnusableInput as error:
            log.error("the deployed model is not taken: %s", error)
            self._metrics.reloads.labels("broken").inc()
            return
        if model.ranker is None and (self._folder / RANKER_FILES[1]).exists():
            self._metrics.reloads.labels("without_its_ranker").inc()
        self._current = model
        gc.freeze()  # the catalogue lives as long as the model: the collector need not walk it
        self._metrics.reloads.labels("loaded").inc()
        self._metrics.show_model(model.manifest, model.version)
        log.info("serving model %s version %s, %d items", model.manifest.model, model.version, model.retriever.n_items)

    def _refresh_graph(self) -> None:
        state = graph_state(self._graph_file)
        if state == self._seen_graph:
            return
        self._seen_graph = state
        try:
            graph = read_graph(self._graph_file)
            if self._current is not None:
                changed = self._current.under(graph)
                warm(changed)
                self._current = changed
        except UnusableInput as error:
            log.error("the changed serving graph is not taken: %s", error)
            self._metrics.reloads.labels("broken_graph").inc()
            return
        self._graph = graph
        self._metrics.reloads.labels("graph").inc()
        log.info("serving graph %s", graph.digest)

    async def watch(self) -> None:
        """Refresh for ever, in a thread, so that answers go on meanwhile."""
        while True:
            await asyncio.to_thread(self.refresh)
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self) -> object:
        """Return what tells one state of the folder from another, or None while there is none."""
        try:
            folder = self._folder.resolve(strict=True)
            return folder, sorted(
                (path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in folder.iterdir()
            )
        except OSError:  # not deployed yet, or being replaced at this moment
            return None
