"""What the clicks on interleaved lists say: which of the two rankings do the users prefer? (recsys/interleaving.py)"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import psycopg
from scipy import stats

from recsys import columns as c
from recsys.artifacts import FCT_IMPRESSIONS
from recsys.interleaving import team_of
from recsys.interval import Interval

A, B = "the champion's list", "everybody's list"
"""The captains of the policy `interleaved`."""


@dataclass(frozen=True)
class Preference:
    """How many users prefer which ranking."""

    a: int
    b: int
    p_value: float

    @property
    def share_of_a(self) -> float | None:
        return self.a / (self.a + self.b) if self.a + self.b else None

    @property
    def sentence(self) -> str:
        if self.share_of_a is None:
            return "nobody has clicked in one of the interleaved lists yet"
        told = f"{self.a} users prefer {A}, {self.b} {B} (p = {self.p_value:.2g} at a single look)"
        return told if self.p_value < 0.05 else f"no preference is shown: {told}"


def credits(clicks: Iterable[tuple[str, str, int]]) -> dict[str, int]:
    """Return each user's clicks on items that a chose, less those on items that b chose.

    Args:
        clicks: user, request and rank of each clicked item.
    """
    found: Counter[str] = Counter()
    for user, request, rank in clicks:
        found[user] += 1 if team_of(rank, request) == "a" else -1
    return dict(found)


def preference(credit_by_user: dict[str, int]) -> Preference:
    """Return the sign test over users, each with one vote: the sign of the credit over all of the user's lists. A user
    without a preference has none."""
    a, b = (sum(value * sign > 0 for value in credit_by_user.values()) for sign in (1, -1))
    return Preference(a, b, float(stats.binomtest(a, a + b).pvalue) if a + b else 1.0)


def read_preference(
    connection: psycopg.Connection, interval: Interval, variant: str, users: frozenset[str]
) -> Preference:
    """Return what these users' clicks in this variant's lists say, before the interval's end."""
    rows = connection.execute(
        f"""
        select {c.USER_ID}, {c.REQUEST_ID}, {c.RANK} from {FCT_IMPRESSIONS}
        where {c.VARIANT} = %s and {c.SHOWN_AT} < %s and {c.DOMAIN} = any(%s) and is_clicked
        """,
        (variant, interval.end, list(interval.domains)),
    ).fetchall()
    return preference(credits(row for row in rows if row[0] in users))
