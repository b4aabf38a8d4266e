"""Team-draft interleaving: two rankings in one list. Serving drafts; `experiments` reads from the clicks which ranking
the users prefer. That needs far fewer users than two variants do, and tells only which is preferred, not its worth.

Who put an item into the list is not logged: the request's id and the item's rank say it again.

Radlinski, Kurup and Joachims 2008, "How does clickthrough data reflect retrieval quality?"
"""

from collections.abc import Hashable, Sequence
from hashlib import blake2b
from typing import Literal, TypeVar

Team = Literal["a", "b"]
Item = TypeVar("Item", bound=Hashable)


def team_of(rank: int, key: str) -> Team:
    """Return who chose the item at this rank (from 1) of the list with this key: ranks 1 and 2 are the first round, and
    in each round a coin says who goes first."""
    turn, is_second = divmod(rank - 1, 2)
    coin = blake2b(b"%d" % turn, key=key.encode()[:64], digest_size=1).digest()[0] % 2
    return "a" if bool(coin) != bool(is_second) else "b"


def team_draft(a: Sequence[Item], b: Sequence[Item], length: int, key: str) -> list[Item]:
    """Return the list that two captains choose in turns: each takes the best item of its own ranking that is not taken
    yet. The draft ends, as the paper's does, when the captain whose turn it is has none left; two rankings that are as
    long as the wanted list always fill it.

    Args:
        length: of the wanted list.
        key: decides the coins, e.g. the request's id; the same key gives the same list.
    """
    rankings: dict[Team, Sequence[Item]] = {"a": a, "b": b}
    drafted: list[Item] = []
    taken: set[Item] = set()
    for rank in range(1, length + 1):
        choice = next((item for item in rankings[team_of(rank, key)] if item not in taken), None)
        if choice is None:
            break
        drafted.append(choice)
        taken.add(choice)
    return drafted
