"""What the core leans on, as protocols; `adapters.py` and `eventlog.py` hold the real ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from recsys.schemas import Interaction
from recsys.split import Split
from recsys.user_state import UserState
from serving.cache import ListLine
from serving.explanation import RequestRecord
from serving.left_behind import Decision
from serving.model import ServedModel
from serving.rollout import Candidate
from serving.shadow import ShadowLine


class ModelSource(Protocol):
    """Where the model comes from; it may change between two requests, never within one."""

    @property
    def current(self) -> ServedModel | None: ...


class Candidates(Protocol):
    """Which version stands beside the champion; it may change between two requests, never within one."""

    @property
    def current(self) -> Candidate | None: ...


class Shadow(Protocol):
    """Where copies of requests go that a version in the shadow answers for nobody."""

    def copy(self, line: ShadowLine) -> None:
        """Take a copy. Never waits, never raises; what is too much is dropped."""
        ...


class Splits(Protocol):
    """Who gets what; it may change between two requests, never within one."""

    @property
    def current(self) -> Split: ...


class UserStateStore(Protocol):
    """What is known of users now."""

    async def read(self, users: Sequence[tuple[str, str | None]]) -> list[tuple[UserState, str | None]]:
        """Return each user's state and their precomputed list, unparsed.

        Args:
            users: id and the domain of the wanted list (None: all domains); at least one.

        Raises:
            ServiceUnavailable: the store does not answer in time, or did not lately.
        """
        ...


@dataclass(frozen=True)
class Glimpse:
    """A user, as a look at the end of their history shows them."""

    user_id: str
    history_items: int
    latest_items: Sequence[str]
    """Oldest first."""


class UserDirectory(Protocol):
    """Which users the online store knows."""

    async def some(self, limit: int) -> list[Glimpse]:
        """Return at most so many users with a history, by their ids. A sample: a store of millions is not searched
        through, and long histories are not read.

        Raises:
            ServiceUnavailable: the store does not answer in time, or did not lately.
        """
        ...


class EventLog(Protocol):
    """The log of events."""

    async def publish(self, interaction: Interaction) -> None:
        """Return once the log holds the event.

        Raises:
            ServiceUnavailable: no acknowledgement in time. The event may still arrive; sending it again is safe.
        """
        ...


class Lists(Protocol):
    """Computed lists that may answer again."""

    def remember(self, line: ListLine) -> None:
        """Take a list, to be written soon. Never waits, never raises; what finds no room or no store is dropped."""
        ...


class RequestRecords(Protocol):
    """What was shown, for good, and why, for a while."""

    def keep(self, decision: Decision) -> None:
        """Take an answer, for its impressions in the log and its record in the store, both written soon. Never waits,
        never raises; what finds no room or no store is counted and dropped."""
        ...

    async def read(self, request_id: str) -> RequestRecord | None:
        """Return the record of an answer, or None: there never was one, it is too old, or it was dropped.

        Raises:
            ServiceUnavailable: the store does not answer in time, or did not lately.
        """
        ...
