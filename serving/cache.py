"""Lists in the online store that may answer again: `serving batch` writes them ahead, and answers leave them behind.

    list:<user_id>:<domain or all>    JSON of `CachedList`, with a time to live

A list counts only under the model version, the plan (graph, ranker, items' facts) and the user version that it was
computed with: a new deployment or rule makes all of them stale at once, a user's event makes that user's stale at once,
and neither has to find a key.
"""

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from recsys.schemas import Identifier
from recsys.user_state import list_key as list_key

ALL_DOMAINS = "all"
TIME_TO_LIVE = 2 * 24 * 3600
"""Seconds; the batch runs daily."""


class CachedList(BaseModel):
    """A ranked list, best first. Anything else under the key is refused: values are parsed, never executed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    model_version: Identifier
    user_version: Annotated[int, Field(ge=0)]
    items: list[tuple[str, float]]
    """Item ids with their scores."""
    made_at: AwareDatetime | None = None
    """When an answer computed it; None: the batch did."""
    made_with: str = ""
    """Version of the serving graph, its ranker and the items' facts (`Plan.version`)."""
    computed_by: Identifier | None = None
    """The request that computed it."""


class ListLine(BaseModel):
    """A list that an answer leaves behind, as it comes down the pipe to the carrier."""

    user_id: Identifier
    domain: Identifier | None
    seconds: Annotated[int, Field(gt=0)]
    list: CachedList


CACHED_LENGTH = 50
"""Items of a list that is left behind; a longer one than was asked for costs nothing, and serves a longer wish too."""

QUIET_SHARE = 0.1
"""Life of the list of a user without an event in the last 30 days, who is not likely to come back soon."""


def life_seconds(longest: int, interactions_30d: float) -> int:
    """Return how long a computed list of a user of this activity may stay; at least a second.

    An event of the user ends it at once (the version); this bounds the memory that it takes, no more.
    """
    return max(1, longest if interactions_30d > 0 else int(longest * QUIET_SHARE))
