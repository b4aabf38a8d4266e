"""Answers held in the process: what was given to a user and would be given again, ready to be sent.

Only what a stored list already answered is held, so that who asks once costs nothing here. Of such an answer the text
stays, without its request id; a request then costs one look at the user's version, and what it leaves behind is written
from the same text. An event of the user, another model, graph, variant or rollout ends it.
"""

import json
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from recsys.errors import ServiceUnavailable
from recsys.split import Assignment
from serving.contracts import Wanted
from serving.left_behind import Decision, facts, record, shown_tail
from serving.metrics import Metrics
from serving.model import ServedModel

MOST = 5000
"""Answers that are held, some 5 kB each."""

Key = tuple[str, int, str | None, str]
"""User, length, domain, context."""


class Versions(Protocol):
    """The users' versions alone."""

    async def version(self, user_id: str) -> int:
        """Return the user's version, 0 for an unknown user.

        Raises:
            ServiceUnavailable: the store does not answer in time, or did not lately.
        """
        ...


class Again(Protocol):
    """Where an answer that is given again leaves its impressions and its record."""

    def again(self, shown: bytes, record: bytes, items: int) -> None:
        """Take what was shown and its record, as text. Never waits, never raises."""
        ...


@dataclass(frozen=True)
class Held:
    """An answer without its request id."""

    model: ServedModel
    assignment: Assignment
    user_version: int
    rung: str
    items: int
    answer: bytes
    """Text behind the request id."""
    record: bytes
    """Text behind request id and instant."""
    shown: bytes
    """As `record`, of what goes to the log."""


@dataclass(frozen=True)
class Given:
    """An answer as text, with what the metrics ask."""

    body: bytes
    rung: str
    variant: str


class HeldAnswers:
    """The answers of one process, the least lately asked given up first. For one event loop."""

    def __init__(self, versions: Versions, again: Again, metrics: Metrics, most: int = MOST):
        self._versions, self._again, self._most = versions, again, most
        self._given = metrics.cached.labels("held")
        self._held: OrderedDict[Key, Held] = OrderedDict()

    def hold(self, wanted: Wanted, assignment: Assignment, user_version: int, decision: Decision) -> None:
        """Hold an answer that a stored list gave."""
        answer = decision.answer
        text = answer.text()
        told = facts(decision)
        kept = record(told)
        kept.pop("request_id"), kept.pop("answered_at")
        self._held[answer.user_id, wanted.k, wanted.domain, answer.model.context] = Held(
            answer.model, assignment, user_version, answer.rung, len(answer.items),
            text[len(_head(answer.request_id)) :], json.dumps(kept, separators=(",", ":")).encode()[1:],
            shown_tail(told, assignment.propensity),
        )  # fmt: skip
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    def has(self, user_id: str, wanted: Wanted, context: str = "") -> bool:
        """Whether an answer to this is held, be it still right or not."""
        return not wanted.items and (user_id, wanted.k, wanted.domain, context) in self._held

    async def give(
        self,
        user_id: str,
        wanted: Wanted,
        model: ServedModel,
        assignment: Assignment,
        request_id: str,
        instant: datetime,
    ) -> Given | None:
        """Return the answer if one is held that holds now, and leave its impressions and its record behind.

        While the store is away nobody can say whether the user did something since; what is held is given then too.
        """
        key = user_id, wanted.k, wanted.domain, model.context
        held = self._held.get(key)
        if held is None:
            return None
        try:
            version = await self._versions.version(user_id)
        except ServiceUnavailable:
            version = held.user_version
        if model is not held.model or (version, assignment) != (held.user_version, held.assignment):
            self._held.pop(key, None)
            return None
        if key in self._held:
            self._held.move_to_end(key)
        body = _head(request_id) + held.answer
        at = instant.isoformat().encode()
        record = b'%s"answered_at":"%s",%s' % (_head(request_id), at, held.record)
        self._again.again(b'%s"shown_at":"%s",%s' % (_head(request_id), at, held.shown), record, held.items)
        self._given.inc()
        return Given(body, held.rung, assignment.variant)


def _head(request_id: str) -> bytes:
    return b'{"request_id":"%s",' % request_id.encode()
