"""The events on the topics, as they must look at every door (schema version 1)."""

import hashlib
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

MAX_CLOCK_SKEW = timedelta(days=1)
MAX_RANK = 2**31 - 1
MAX_SHOWN = 100
"""Items of one message: with the longest ids it stays within what the consumer takes."""


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must hold printable characters only")
    return value


Identifier = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_printable)]
Domain = Literal["movies", "products", "books", "social"]
EventType = Literal["view", "click", "purchase", "rate", "share"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interaction(_Event):
    """A user did something to an item. `rating` is in [0, 5] and null for implicit feedback."""

    event_id: Identifier
    user_id: Identifier
    item_id: Identifier
    rating: float | None = Field(None, ge=0, le=5)
    occurred_at: AwareDatetime
    domain: Domain
    event_type: EventType
    context: dict[str, str] = Field(default_factory=dict, max_length=32)


class Impression(_Event):
    """An item was shown at a rank (from 1) of the answer `request_id`."""

    event_id: Identifier
    request_id: Identifier
    user_id: Identifier
    item_id: Identifier
    rank: int = Field(ge=1)
    score: float
    domain: Domain
    variant: Identifier
    model_version: Identifier
    propensity: float = Field(gt=0, le=1)
    rung: Identifier
    shown_at: AwareDatetime


class ShownItem(_Event):
    """One item of a list that was shown, at its rank from 1."""

    item_id: Identifier
    rank: int = Field(ge=1, le=MAX_RANK)
    score: float
    domain: Domain


class ShownList(_Event):
    """What one answer has shown: an impression for each of its items, in one message."""

    request_id: Identifier
    shown_at: AwareDatetime
    user_id: Identifier
    variant: Identifier
    model_version: Identifier
    rung: Identifier
    propensity: float = Field(gt=0, le=1)
    items: list[ShownItem] = Field(min_length=1, max_length=MAX_SHOWN)

    def impressions(self) -> list[Impression]:
        """Return one impression for each item; their ids follow from the request and the item."""
        return [
            Impression.model_construct(  # all of it was checked
                event_id=event_id(self.request_id, item.item_id),
                request_id=self.request_id,
                user_id=self.user_id,
                item_id=item.item_id,
                rank=item.rank,
                score=item.score,
                domain=item.domain,
                variant=self.variant,
                model_version=self.model_version,
                propensity=self.propensity,
                rung=self.rung,
                shown_at=self.shown_at,
            )
            for item in self.items
        ]


def event_id(*parts: object) -> str:
    """Return the deterministic id of an event, so that the same event may arrive twice and count once.

    Equal to Spark's `md5(concat_ws('|', …))`, which etl uses for whole columns. Not a security measure.
    """
    return hashlib.md5("|".join(str(part) for part in parts).encode(), usedforsecurity=False).hexdigest()


def refused_for_its_instant(occurred_at: datetime, received_at: datetime) -> str | None:
    """Return the reason to refuse an event whose instant is impossible, or None.

    A clock may run ahead by up to a day; beyond that the event is from the future.
    """
    if occurred_at > received_at + MAX_CLOCK_SKEW:
        return "occurred_at_in_the_future"
    return None
