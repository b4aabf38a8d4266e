"""The right to be forgotten: who was erased, and what therefore never comes back.

A tombstone holds a digest of the id and an instant, not the id. What the user did up to that instant is refused
wherever it comes in again (a replayed topic, a reloaded file); what comes later under the same id is a new beginning.
"""

import hashlib
from collections.abc import Collection
from datetime import datetime
from typing import Any

from recsys.artifacts import ERASED_USERS, RAW_INTERACTIONS, RAW_USERS, REMOVED_INTERACTIONS

FORGET_LOADED = (
    f"""
    delete from {RAW_INTERACTIONS} as events using {ERASED_USERS} as erased
    where exists (select 1 from {ERASED_USERS})
      and erased.user_digest = encode(sha256(convert_to(events.user_id, 'UTF8')), 'hex')
      and events.occurred_at <= erased.erased_at
    """,
    f"""
    delete from {RAW_USERS} as users using {ERASED_USERS} as erased
    where exists (select 1 from {ERASED_USERS})
      and erased.user_digest = encode(sha256(convert_to(users.user_id, 'UTF8')), 'hex')
    """,
    f"""
    update {REMOVED_INTERACTIONS} as removed set user_id = null from {ERASED_USERS} as erased
    where exists (select 1 from {ERASED_USERS})
      and erased.user_digest = encode(sha256(convert_to(removed.user_id, 'UTF8')), 'hex')
    """,
)
"""Takes erased users out of what was just loaded; costs nothing while nobody was erased."""


def digest(user_id: str) -> str:
    return hashlib.sha256(user_id.encode()).hexdigest()


def erased_at(connection: Any, user_ids: Collection[str]) -> dict[str, datetime]:
    """Return those of these users who were erased, and when."""
    by_digest = {digest(user_id): user_id for user_id in user_ids}
    found = connection.execute(
        f"select user_digest, erased_at from {ERASED_USERS} where user_digest = any(%s::text[])",
        (f"{{{','.join(by_digest)}}}",),  # as PostgreSQL spells an array: digests need no quoting
    )
    return {by_digest[one]: instant for one, instant in found}
