"""Precomputed lists in the online store: what `serving batch` writes and an answer may use.

    list:<user_id>:<domain or all>    JSON of `CachedList`, with a time to live

A list counts only under the model version and the user version that it was computed with: a new deployment makes all of
them stale at once, a user's event makes that user's stale at once, and neither has to find a key.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from recsys.schemas import Identifier

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


def list_key(user_id: str, domain: str | None) -> str:
    return f"list:{user_id}:{domain or ALL_DOMAINS}"
