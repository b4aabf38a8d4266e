"""Team-draft interleaving: two rankings in one list, and the clicks say which of them the user prefers. It needs far
fewer users than two variants do, and it answers only which ranking is preferred, not what it is worth.

Radlinski, Kurup and Joachims 2008, "How does clickthrough data reflect retrieval quality?"
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from scipy import stats

Team = Literal["a", "b"]


@dataclass(frozen=True)
class Interleaved:
    """One list, best first, and who put each item there."""

    items: tuple[str, ...]
    teams: tuple[Team, ...]


def team_draft(a: Sequence[str], b: Sequence[str], length: int, key: str) -> Interleaved:
    """Return the list that two captains choose in turns: in each round a coin says who goes first, then each takes the
    best item of its own ranking that is not taken yet.

    Args:
        length: of the wanted list; it is shorter where both rankings are exhausted.
        key: decides the coins, e.g. the request's id; the same key gives the same list.
    """
    ranked: dict[Team, list[str]] = {"a": list(a), "b": list(b)}
    items: list[str] = []
    teams: list[Team] = []
    turn = 0
    while len(items) < length:
        coin = blake2b(b"%d" % turn, key=key.encode()[:64], digest_size=1).digest()[0] % 2
        order: tuple[Team, Team] = ("a", "b") if coin else ("b", "a")
        drafted = 0
        for team in order:
            choice = next((item for item in ranked[team] if item not in items), None)
            if choice is not None and len(items) < length:
                items.append(choice)
                teams.append(team)
                drafted += 1
        if not drafted:
            break
        turn += 1
    return Interleaved(tuple(items), tuple(teams))


def credit(shown: Interleaved, clicked: Collection[str]) -> int:
    """Return the clicks on items of a, less those on items of b."""
    return sum(
        (1 if team == "a" else -1) for item, team in zip(shown.items, shown.teams, strict=True) if item in clicked
    )


@dataclass(frozen=True)
class Preference:
    """How many users prefer which ranking."""

    a: int
    b: int
    p_value: float

    @property
    def share_of_a(self) -> float | None:
        return self.a / (self.a + self.b) if self.a + self.b else None


def preference(credit_by_user: dict[str, int]) -> Preference:
    """Return the sign test over users, each with one vote: the sign of the credit over all of the user's lists. A user
    without a preference has none."""
    a, b = (sum(value * sign > 0 for value in credit_by_user.values()) for sign in (1, -1))
    return Preference(a, b, float(stats.binomtest(a, a + b).pvalue) if a + b else 1.0)
