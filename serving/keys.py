"""API keys: who may call, what for, how often, and for whom. Only a key's digest is ever stored."""

import hashlib
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recsys.errors import UnusableInput
from recsys.schemas import Identifier
from serving.answering import SESSION_USER

Scope = Literal["recommend", "events", "explain", "admin"]
SCOPES: tuple[str, ...] = get_args(Scope)
ADMIN = "admin"
"""May do whatever a key can do, for everybody."""

KEY_BYTES = 32
"""Of chance in a key: with so many, one round of SHA-256 is as good as a slow digest is for a password."""

KEY_PREFIX = "rsi_"
"""So that a key that lies where it should not is recognised."""


class ApiKey(BaseModel):
    """One entry of the key file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Identifier
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    requests_per_second: Annotated[float, Field(gt=0, le=1_000_000)]
    user_prefix: Identifier | None = None
    """The key may speak for users whose id begins so, and for sessions whose id does; None: for everybody."""

    @property
    def burst(self) -> float:
        """Requests that may come at once: those of a second, at least one."""
        return max(1.0, self.requests_per_second)

    def may(self, scope: str) -> bool:
        return scope in self.scopes or ADMIN in self.scopes

    def speaks_for(self, user_id: str) -> bool:
        if self.user_prefix is None or ADMIN in self.scopes:
            return True
        return user_id.removeprefix(SESSION_USER.format("")).startswith(self.user_prefix)


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: list[ApiKey] = Field(min_length=1)


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def new_key(
    name: str, scopes: Collection[str], requests_per_second: float, user_prefix: str | None
) -> tuple[str, ApiKey]:
    """Return a new key, to be told once, and its entry, to be stored.

    Raises:
        pydantic.ValidationError: a scope is unknown, or the rate is no positive number.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    entry = {"scopes": tuple(scopes), "requests_per_second": requests_per_second, "user_prefix": user_prefix}
    return key, ApiKey(name=name, sha256=digest(key), **entry)


def read_keys(path: Path) -> Mapping[str, ApiKey]:
    """Return the keys of a file by their digests.

    Raises:
        UnusableInput: the file cannot be read, is no key file, or has a name or a digest twice.
    """
    try:
        keys = _KeyFile.model_validate_json(path.read_bytes()).keys
    except (OSError, ValidationError) as error:
        raise UnusableInput("API keys", path, f"They cannot be read ({error})") from error
    for field in ("name", "sha256"):
        if len({getattr(key, field) for key in keys}) < len(keys):
            raise UnusableInput("API keys", path, f"Two keys have the same {field}; remove one")
    return {key.sha256: key for key in keys}
