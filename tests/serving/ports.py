"""Ports without their services, for tests whose subject is not the service."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fastapi import FastAPI

from recsys.errors import ServiceUnavailable
from recsys.schemas import Impression, Interaction, ShownList
from recsys.split import Split
from recsys.user_state import UserState
from serving.answering import Answering
from serving.app import create_app
from serving.explanation import RequestRecord, explain
from serving.graph import Graph
from serving.left_behind import Decision, facts, shown
from serving.metrics import Metrics
from serving.model import ServedModel, load
from serving.ports import Glimpse
from serving.rollout import Candidate
from serving.shadow import ShadowLine
from serving.shelf import Shelf
from serving.storefront import Storefront

INSTANT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
DOWN = ServiceUnavailable("service", "does not answer", "Wait for it")


@dataclass
class Models:
    current: ServedModel | None


@dataclass
class Users:
    states: dict[str, UserState] = field(default_factory=dict)
    lists: dict[tuple[str, str | None], str] = field(default_factory=dict)
    down: bool = False
    round_trips: int = 0

    async def read(self, users: Sequence[tuple[str, str | None]]) -> list[tuple[UserState, str | None]]:
        if self.down:
            raise DOWN
        self.round_trips += 1
        return [(self.states.get(user[0], UserState([], {}, 0)), self.lists.get(user)) for user in users]

    async def some(self, limit: int) -> list[Glimpse]:
        if self.down:
            raise DOWN
        known = sorted(self.states.items())[:limit]
        return [Glimpse(user_id, len(state.history), state.history) for user_id, state in known]

    def know(self, user_id: str, history: list[str], version: int = 1) -> None:
        self.states[user_id] = UserState(history, {}, version)

    def precompute(self, user_id: str, domain: str | None, **content: object) -> None:
        """Store a list, made with the default graph unless it says otherwise."""
        self.lists[user_id, domain] = json.dumps({"made_with": f"{Graph().digest}..", **content})


@dataclass
class Candidates:
    current: Candidate | None = None


@dataclass
class Copies:
    lines: list[ShadowLine] = field(default_factory=list)

    def copy(self, line: ShadowLine) -> None:
        self.lines.append(line)


class Splits:
    """One experiment over everybody, with these shares."""

    def __init__(self, weights: dict[str, float]):
        self.current = Split.by_weights(weights)


@dataclass
class Log:
    interactions: list[Interaction] = field(default_factory=list)
    down: bool = False

    async def publish(self, interaction: Interaction) -> None:
        if self.down:
            raise DOWN
        self.interactions.append(interaction)


@dataclass
class Records:
    """Records are made at once, and kept as the JSON that the store would hold."""

    kept: dict[str, str] = field(default_factory=dict)
    shown: list[Decision] = field(default_factory=list)
    """Those whose impressions are logged."""

    def keep(self, decision: Decision) -> None:
        if decision.propensity is not None:
            self.shown.append(decision)
        self.kept[decision.answer.request_id] = explain(decision).model_dump_json()

    async def read(self, request_id: str) -> RequestRecord | None:
        kept = self.kept.get(request_id)
        return kept and RequestRecord.model_validate_json(kept)


@dataclass
class Parts:
    """An application and what stands behind it."""

    models: Models
    users: Users
    log: Log
    records: Records
    metrics: Metrics
    app: FastAPI
    candidates: Candidates
    copies: Copies

    def count(self, name: str, **labels: str) -> float:
        """Return a counter's value, zero where it never moved."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def assemble(folder: Path | None, weights: dict[str, float] | None = None, **routes: str) -> Parts:
    """Return an application that serves the bundle in this folder (None: nothing deployed), everybody in `champion`."""
    models, users, log, records, metrics = (
        Models(load(folder) if folder else None),
        Users(),
        Log(),
        Records(),
        Metrics(),
    )
    splits = Splits(weights or {"champion": 1.0})
    candidates, copies = Candidates(), Copies()
    answering = Answering(models, users, records, splits, metrics, candidates=candidates, shadow=copies)
    shelf = Shelf(answering, folder.parent / "beside" if folder else Path("nowhere"))
    visits = Storefront(answering, users, users, splits, lambda: INSTANT, shelf)
    app = create_app(answering, log, metrics, lambda: INSTANT, visits=visits, **routes)
    return Parts(models, users, log, records, metrics, app, candidates, copies)


def impressions_of(decision: Decision) -> list[Impression]:
    """Return what the consumer makes of a list that was shown."""
    return ShownList.model_validate_json(shown(facts(decision)) or b"").impressions()
