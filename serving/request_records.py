"""Why these items, kept in Redis for some days; writing never makes an answer wait.

    request:<request_id>    JSON of `RequestRecord`, with a time to live

Records may have a store of their own (`Settings.record_store`): they are most of what is written, and nothing follows
from the loss of one.
"""

import logging
import threading
from queue import Empty, SimpleQueue
from typing import Any

from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from recsys.round_trip import send
from recsys.user_state import record_key as record_key
from serving.cache import ListLine, list_key
from serving.explanation import RequestRecord
from serving.left_behind import Decision
from serving.metrics import REDIS, Metrics
from serving.online_store import OnlineStore
from serving.outbox import Outbox

log = logging.getLogger(__name__)

RECORD_HEAD = b'{"request_id":"'
"""How the line of a record begins (serving/left_behind.py, serving/held.py)."""

RECORDS_WAITING = 1000
"""Records that may wait to be written, up to some 100 kB each; what comes on top is dropped and counted."""

GATHER_SECONDS = 0.05
"""How often the thread takes what waits."""

RECORDS_AT_ONCE = 100
WRITE_SECONDS = 1.0
"""How long one write may take before what it holds is dropped."""

DAY_SECONDS = 24 * 3600


class RedisRequestRecords:
    """Records on their way out by the outbox; reads go the way of all reads that somebody waits for."""

    def __init__(self, store: OnlineStore, outbox: Outbox):
        self._store, self._outbox = store, outbox

    def keep(self, decision: Decision) -> None:
        self._outbox.keep(decision)

    async def read(self, request_id: str) -> RequestRecord | None:
        key = record_key(request_id)
        kept = await self._store.ask(lambda pipeline: pipeline.get(key), lambda replies: replies[0])
        if kept is None:
            return None
        try:
            return RequestRecord.model_validate_json(kept)
        except ValidationError as error:  # of another version, or not ours: parsed, never executed
            log.warning("%s holds no record: %s", key, error)
            return None


class RecordWriter:
    """A thread of the carrier that writes records, or the lists that may answer again.

    While Redis is away records are dropped and counted: an explanation is worth less than the memory it would wait in.
    """

    def __init__(self, url: str, days: int, metrics: Metrics):
        self._writing = Redis.from_url(url, socket_connect_timeout=WRITE_SECONDS, socket_timeout=WRITE_SECONDS)
        self._metrics, self._keep_seconds = metrics, days * DAY_SECONDS
        self._waiting: SimpleQueue[tuple[bytes, type[RequestRecord] | type[ListLine]]] = SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-records", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write what waits, within a few seconds."""
        self._closing.set()
        self._thread.join(2 * WRITE_SECONDS)
        self._writing.close()

    def put(self, line: bytes, kind: type[RequestRecord] | type[ListLine]) -> None:
        """Take a record or a list as JSON; what finds no room is counted and dropped."""
        if self._waiting.qsize() < RECORDS_WAITING:
            self._waiting.put((line, kind))
        else:
            self._metrics.records_dropped.labels("no_room").inc()

    def _run(self) -> None:
        while not (self._closing.wait(GATHER_SECONDS) and self._waiting.empty()):
            while records := self._take():
                self._write(records)

    def _take(self) -> list[tuple[bytes, type[RequestRecord] | type[ListLine]]]:
        taken: list[tuple[bytes, type[RequestRecord] | type[ListLine]]] = []
        try:
            while len(taken) < RECORDS_AT_ONCE:
                taken.append(self._waiting.get_nowait())
        except Empty:
            return taken
        return taken

    def _write(self, lines: list[tuple[bytes, type[RequestRecord] | type[ListLine]]]) -> None:
        commands = [command for line, kind in lines if (command := self._command(line, kind)) is not None]
        written = sum(kind is RequestRecord for _, kind in lines)
        try:
            send(self._writing, commands)
        except (RedisError, OSError) as error:
            log.warning("%d request records are dropped: %s", written, error)
            self._metrics.dependency_errors.labels(REDIS).inc()
            self._metrics.records_dropped.labels("unavailable").inc(written)

    def _command(self, line: bytes, kind: type[RequestRecord] | type[ListLine]) -> tuple[Any, ...] | None:
        """Return what writes this line, or None: it holds no list."""
        if kind is RequestRecord:  # checked when it is read; here it only needs its key
            request_id, _, _ = line.removeprefix(RECORD_HEAD).partition(b'"')
            return "SET", record_key(request_id.decode()), line, "EX", self._keep_seconds
        try:
            kept = ListLine.model_validate_json(line)
        except ValidationError as error:
            log.error("an answer makes no valid list: %s", error)
            return None
        return "SET", list_key(kept.user_id, kept.domain), kept.list.model_dump_json(), "EX", kept.seconds
