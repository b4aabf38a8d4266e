"""What answers leave behind, handed to a process of its own, so that it takes no answer's time.

An answer leaves up to a thousand impressions for the log and a record for the store. Written from a thread of the
serving process they would cost the answers more than the scoring does: all of it is Python, and holds the interpreter.
So lines go down a pipe to a child (`carrier.py`), some at a time, and its counters come back up another one.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Literal

from pydantic_core import to_json

from recsys.settings import HOME
from serving.cache import ListLine
from serving.left_behind import Decision, facts
from serving.metrics import Metrics
from serving.shadow import COPIES_A_SECOND, Rate, ShadowLine

log = logging.getLogger(__name__)

Line = Literal[b"D", b"S", b"R", b"L", b"C"]
DECISION: Line = b"D"
"""A line that begins so holds JSON of `Facts`, from which impressions and record are made."""
SHOWN: Line = b"S"
"""Of an answer that is given again: a line that begins so holds JSON of `ShownList`, however long; one that begins with
`RECORD` that of a `RequestRecord`."""
RECORD: Line = b"R"
LIST: Line = b"L"
"""A line that begins so holds JSON of `ListLine`."""
COPY: Line = b"C"
"""A line that begins so holds JSON of `ShadowLine`."""

GATHER_SECONDS = 0.02
"""How long lines are gathered: one write an answer would cost a switch of processes an answer."""

TOLD_AT_ONCE = 64
"""Decisions whose facts are gathered together at most: some milliseconds, in which nobody is answered."""

MAX_BYTES_WAITING = 32_000_000
"""Lines that may wait for a child that is starting or stuck; what comes on top is dropped and counted."""

RETRY_SECONDS = 1.0
CLOSE_SECONDS = 15.0

COMMAND = (sys.executable, "-m", "serving", "carry")
REPORTED = (
    "published", "impressions_dropped", "records_dropped", "dependency_errors", "shadow_answers", "shadow_items",
)  # fmt: skip
"""The counters of `Metrics` that the child moves."""


class Outbox:
    """One child, started again when it ends. For use in one event loop; before `start` lines wait."""

    def __init__(self, environment: dict[str, str], metrics: Metrics, command: Sequence[str] = COMMAND):
        self._environment, self._metrics, self._command = environment, metrics, command
        self._lines: list[bytes] = []
        self._to_tell: list[Decision] = []
        self._bytes = self._under_way = 0  # bytes that wait; shown items whose fate the child has not told
        self._child: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._closing = False
        self._copies = Rate(COPIES_A_SECOND)

    def start(self) -> None:
        """Start the child soon; returns at once."""
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Hand over what waits; return when the child has carried it, or after `CLOSE_SECONDS`."""
        self._closing = True
        self._flush()
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()
        if self._watching is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._watching, CLOSE_SECONDS)
        if self._child is not None and self._child.returncode is None:
            self._child.kill()

    def keep(self, decision: Decision) -> None:
        """Take an answer, for its impressions and its record. Never waits, never raises.

        Its facts are gathered at the next flush: the answer goes out first, and several at once take less time.
        """
        self._flush_soon()
        self._to_tell.append(decision)
        if self._child is None or len(self._to_tell) >= TOLD_AT_ONCE:
            self._tell()

    def _tell(self) -> None:
        to_tell, self._to_tell = self._to_tell, []
        for decision in to_tell:
            shown = 0 if decision.propensity is None else len(decision.answer.items)
            told = self._put(DECISION, to_json(facts(decision)))
            self._count(told, shown, records=1)

    def again(self, shown: bytes, record: bytes, items: int) -> None:
        """Take what was shown and its record as they go out, as text. Never waits, never raises."""
        self._flush_soon()
        if items:
            self._count(self._put(SHOWN, shown), items, records=0)
        self._count(self._put(RECORD, record), 0, records=1)

    def _count(self, is_under_way: bool, shown: int, records: int) -> None:
        """Count shown items as under way, or them and their records as dropped."""
        if is_under_way:
            self._under_way += shown
            return
        if shown:
            self._metrics.impressions_dropped.labels("no_room").inc(shown)
        if records:
            self._metrics.records_dropped.labels("no_room").inc(records)

    def remember(self, line: ListLine) -> None:
        """Take a list that may answer again. Never waits, never raises."""
        self._flush_soon()
        self._put(LIST, line.model_dump_json().encode())

    def copy(self, line: ShadowLine) -> None:
        """Take a copy of a request for the version in the shadow. Never waits, never raises; never before others."""
        if self._bytes > MAX_BYTES_WAITING // 2 or not self._copies.take(perf_counter()):
            return
        self._flush_soon()
        self._put(COPY, line.model_dump_json().encode())

    def _put(self, kind: Line, content: bytes) -> bool:
        if self._bytes + len(content) > MAX_BYTES_WAITING:
            return False
        self._lines.append(b"%s%s\n" % (kind, content))
        self._bytes += len(content)
        return True

    def _flush_soon(self) -> None:
        if not self._lines and not self._to_tell and self._child is not None:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush)

    def _flush(self) -> None:
        """Write what waits, unless the child is behind by as much as may wait: then it waits on."""
        self._tell()
        pipe = self._child.stdin if self._child is not None else None
        if not self._lines or pipe is None or pipe.is_closing():
            return
        if pipe.transport.get_write_buffer_size() > MAX_BYTES_WAITING:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush)
            return
        pipe.write(b"".join(self._lines))
        self._lines.clear()
        self._bytes = 0

    async def _watch(self) -> None:
        while True:
            try:
                self._child = await asyncio.create_subprocess_exec(
                    *self._command,
                    cwd=HOME,
                    env=self._environment,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
            except OSError as error:
                log.error("the carrier cannot be started: %s", error)
            else:
                self._flush()
                if self._closing and self._child.stdin is not None:
                    self._child.stdin.close()
                await self._listen(self._child)
            if self._closing:
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self, child: asyncio.subprocess.Process) -> None:
        """Apply the child's counters until it ends; what it took with it is counted as lost."""
        async for line in child.stdout or ():
            for name, labels, moved in json.loads(line):
                getattr(self._metrics, name).labels(*labels).inc(moved)
                if name == "impressions_dropped" or (name == "published" and labels[1] == "acknowledged"):
                    self._under_way -= moved
        status, self._child = await child.wait(), None
        if self._under_way > 0 and (status or not self._closing):
            self._metrics.impressions_dropped.labels("undelivered").inc(self._under_way)
        self._under_way = 0
        if status or not self._closing:
            log.error("the carrier ended with %s and is started again", status)
