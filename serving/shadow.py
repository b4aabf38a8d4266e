"""A version in the shadow: it answers copies of real requests, in the carrier, and nobody sees its answers.

It can never slow the champion: copies are few (a rate), they are the first to be dropped, they wait in a short queue of
another process, and only what they count comes back.
"""

import logging
import threading
from queue import Empty, Full, Queue
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from serving.metrics import Metrics
from serving.model import ServedModel, answer_faults
from serving.recommend import Query, recommend

log = logging.getLogger(__name__)

COPIES_A_SECOND = 20
WAITING = 64
"""Copies that may wait in the carrier."""
LOOK_SECONDS = 0.5


class ShadowLine(BaseModel):
    """A request that the champion answered, and the items that it gave."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model_version: str
    k: int
    history: list[str]
    features: dict[str, float]
    session: list[str]
    domain: str | None
    given: list[str]

    def query(self) -> Query:
        return Query(self.k, self.history, self.features, self.session, self.domain)


class Rate:
    """At most so many a second, without a burst beyond one second's worth."""

    def __init__(self, a_second: float):
        self._a_second, self._free, self._at = a_second, float(a_second), 0.0

    def take(self, now: float) -> bool:
        """Take one if there is one at this instant (seconds of any clock that only rises)."""
        self._free = min(self._a_second, self._free + max(0.0, now - self._at) * self._a_second)
        self._at = now
        if self._free < 1:
            return False
        self._free -= 1
        return True


class _Shadowed(Protocol):
    @property
    def model(self) -> ServedModel: ...


class Source(Protocol):
    """Where the version in the shadow comes from (serving/rollout.py)."""

    @property
    def current(self) -> _Shadowed | None: ...

    def refresh(self) -> None: ...


class ShadowAnswers:
    """One thread that answers copies; a queue that drops what it cannot hold."""

    def __init__(self, source: Source, metrics: Metrics):
        self._source, self._metrics = source, metrics
        self._waiting: Queue[ShadowLine] = Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Take a copy. Never waits."""
        copy = ShadowLine.model_validate_json(line)
        try:
            self._waiting.put_nowait(copy)
        except Full:
            self._count(copy, "dropped")

    def _run(self) -> None:
        while True:
            try:
                self.answer(self._waiting.get(timeout=LOOK_SECONDS))
            except Empty:
                continue

    def answer(self, copy: ShadowLine) -> None:
        """Answer one copy and count what came of it; one of another version than the loaded one is dropped."""
        self._source.refresh()
        candidate = self._source.current
        if candidate is None or candidate.model.version != copy.model_version:
            self._count(copy, "dropped")
            return
        try:
            (ranking,) = recommend(candidate.model, [copy.query()])
        except answer_faults():
            log.exception("version %s failed to answer a copy", copy.model_version)
            self._count(copy, "failed")
            return
        if copy.given and not ranking.items:
            self._count(copy, "failed")
            return
        names = candidate.model.retriever.catalogue.item_id
        shared = len({names[item] for item in ranking.items} & set(copy.given))
        self._metrics.shadow_items.labels(copy.model_version, "shared").inc(shared)
        self._metrics.shadow_items.labels(copy.model_version, "other").inc(len(ranking.items) - shared)
        self._count(copy, "answered")

    def _count(self, copy: ShadowLine, outcome: str) -> None:
        self._metrics.shadow_answers.labels(copy.model_version, outcome).inc()
