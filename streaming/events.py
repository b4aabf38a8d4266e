"""The pure core: messages in, effects out. No I/O, no clock.

Every message ends in exactly one place: `interactions`, `impressions` or `refused`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from recsys.artifacts import TOPIC_IMPRESSIONS, TOPIC_INTERACTIONS
from recsys.schemas import MAX_RANK, Impression, Interaction, ShownList, refused_for_its_instant

SCHEMAS: dict[str, type[BaseModel]] = {TOPIC_INTERACTIONS: Interaction, TOPIC_IMPRESSIONS: Impression}
MAX_MESSAGE_BYTES = 65_536
"""Longer messages are refused, and only this much of them is kept: a dead letter must fit into its topic."""
TOO_LARGE = "too_large"
MAX_FAULTS = 5
_ITEMS = re.compile(rb'[{,]\s*"items"\s*:')
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


class Message(NamedTuple):
    """One message as it lies in the log."""

    topic: str
    """Without the installation's prefix."""
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    sent_at: datetime


class Refused(NamedTuple):
    """A message for the dead-letter topic."""

    message: Message
    reason: str
    """One word for counting, e.g. `occurred_at_in_the_future`."""
    detail: str
    """What exactly was wrong, for a person."""


@dataclass
class Effects:
    """What one batch of messages does to the world."""

    interactions: list[Interaction] = field(default_factory=list)
    impressions: list[Impression] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


def plan(messages: Iterable[Message], received_at: datetime) -> Effects:
    """Return the effects of a batch; the order of the messages is kept, repeated events are not removed.

    Args:
        messages: of the topics in `SCHEMAS`.
        received_at: the instant against which impossible clocks are judged.
    """
    effects = Effects()
    for message in messages:
        outcome = judge(message, received_at)
        if isinstance(outcome, Interaction):
            effects.interactions.append(outcome)
        elif isinstance(outcome, ShownList):
            effects.impressions.extend(outcome.impressions())
        elif isinstance(outcome, Impression):
            effects.impressions.append(outcome)
        else:
            effects.refused.append(outcome)
    return effects


def judge(message: Message, received_at: datetime) -> Interaction | Impression | ShownList | Refused:
    """Return the event, or the list of impressions, that a message carries, or why it carries none."""
    if message.value is None:
        return Refused(message, "empty", "the message has no value")
    if len(message.value) > MAX_MESSAGE_BYTES:
        size = len(message.value)
        cut = message._replace(value=message.value[:MAX_MESSAGE_BYTES])
        return Refused(cut, TOO_LARGE, f"{size} bytes, at most {MAX_MESSAGE_BYTES}; cut to that length here")
    try:
        event: Any = _schema(message.topic, message.value).model_validate_json(message.value)
    except ValidationError as error:
        return Refused(message, *_explained(error))
    instant = event.occurred_at if isinstance(event, Interaction) else event.shown_at
    if reason := refused_for_its_instant(instant, received_at):
        return Refused(message, reason, f"{instant.isoformat()}, received at {received_at.isoformat()}")
    if instant < EARLIEST:
        return Refused(message, "occurred_at_before_1970", instant.isoformat())
    if isinstance(event, Impression) and event.rank > MAX_RANK:
        return Refused(message, "schema", f"rank: {event.rank} is above {MAX_RANK}")
    if isinstance(event, Interaction) and any("\0" in text for pair in event.context.items() for text in pair):
        return Refused(message, "schema", "context: holds a NUL character, which no text in the warehouse may")
    return event


def _schema(topic: str, value: bytes) -> type[BaseModel]:
    """Return what a message of this topic has to be: impressions come one by one or as the list of an answer. An
    unescaped quote ends a string, so this is found in a key alone."""
    return ShownList if topic == TOPIC_IMPRESSIONS and _ITEMS.search(value) else SCHEMAS[topic]


def _explained(error: ValidationError) -> tuple[str, str]:
    """Return the reason and the first few faults."""
    faults = error.errors(include_url=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return "not_json", faults[0]["msg"]
    told = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:MAX_FAULTS]]
    return "schema", "; ".join(told)
