"""Users and items. All arrays of users are (U,), those of items (D, I) with the domains in the order of `DOMAINS`."""

from dataclasses import dataclass, field
from datetime import date

import numpy as np

from recsys.columns import DOMAINS
from recsys.errors import RecsysError

CATEGORIES = 8  # of each domain; the first is the one that drifts, the next ones are the segments' favourites
SEGMENTS = ("collectors", "browsers", "bargain_hunters", "critics")


@dataclass(frozen=True)
class World:
    """What is planted. Shares and probabilities lie in [0, 1].

    Attributes:
        events: interactions apart from clicks on impressions.
        users, items: sizes; items of each domain. None: 40 events a user, an item for five users.
        first_day, days: events lie from the first day on, over so many days.
        segment_shares: of the users, in the order of `SEGMENTS`.
        cross_domain_share: of the users, those who act in a second domain too.
        transfer: probability that such a user's favourite category has the same number in both domains.
        loyalty: share of a user's events that go to the favourite category.
        drift_day: from this day on (counted from 0) the first category's share of the other events is `drift_to`.
        lift: relative difference of the treatment's click rate to the control's, `click_rate`.
        popularity_exponent: within a category, the item of rank r is chosen with a weight of r to the minus this.
        cold_users, cold_items: shares that come late and have at most two, or three, events.
    """

    seed: int
    events: int = 100_000
    users: int | None = None
    items: int | None = None
    first_day: date = date(2025, 1, 1)
    days: int = 180
    segment_shares: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    cross_domain_share: float = 0.3
    transfer: float = 0.8
    loyalty: float = 0.6
    drift_day: int = 120
    drift_to: float = 0.5
    click_rate: float = 0.08
    lift: float = 0.25
    popularity_exponent: float = 1.0
    cold_users: float = 0.1
    cold_items: float = 0.1
    session_events: float = 5.0
    peak_hour: int = 20
    weekend_factor: float = 1.6
    domain_shares: tuple[float, ...] = field(default=(0.4, 0.3, 0.2, 0.1))

    def __post_init__(self) -> None:
        if self.events < 1_000 or not 0 < self.drift_day < self.days:
            told = f"{self.events} events, {self.days} days, drift on day {self.drift_day}"
            raise RecsysError("synthetic world", told, "It needs 1000 events at least and a drift inside its days")

    @property
    def user_count(self) -> int:
        return self.users or max(50, self.events // 40)

    @property
    def item_count(self) -> int:
        return self.items or max(5 * CATEGORIES, self.user_count // 5)


@dataclass(frozen=True)
class Population:
    """Who there is; what the tastes are is known to nobody but the truths."""

    segment: np.ndarray  # (U,) place in SEGMENTS
    home: np.ndarray  # (U,) place in DOMAINS
    second: np.ndarray  # (U,) place in DOMAINS, -1 without
    favourite: np.ndarray  # (U,) category at home
    second_favourite: np.ndarray  # (U,) category in the second domain
    weight: np.ndarray  # (U,) activity; cold users have none
    cold_users: np.ndarray  # users, ascending
    category: np.ndarray  # (D, I)
    price: np.ndarray  # (D, I) euros; NaN where nothing is sold
    published_year: np.ndarray  # (D, I)
    members: np.ndarray  # (D, C, M) items of each category by popularity; -1 fills up
    cold_items: np.ndarray  # (D, K) items


def populate(world: World, rng: np.random.Generator) -> Population:
    """Draw the users and items of a world."""
    users, items, domains = world.user_count, world.item_count, len(DOMAINS)
    segment = rng.choice(len(SEGMENTS), users, p=world.segment_shares)
    home = rng.choice(domains, users, p=world.domain_shares)
    second = np.where(
        rng.random(users) < world.cross_domain_share, (home + rng.integers(1, domains, users)) % domains, -1
    )
    favourite = 1 + segment
    other = 1 + (favourite - 1 + rng.integers(1, len(SEGMENTS), users)) % len(SEGMENTS)
    carried = rng.random(users) < world.transfer
    weight = rng.lognormal(0.0, 1.0, users)
    cold_users = np.sort(rng.choice(users, round(users * world.cold_users), replace=False))
    weight[cold_users] = 0.0

    category = np.tile(np.arange(items) % CATEGORIES, (domains, 1))
    cold = round(items * world.cold_items)
    cold_items = np.tile(np.arange(items - cold, items), (domains, 1))
    price = np.round(rng.lognormal(np.array([1.5, 3.0, 2.5, 0.0])[:, None], 0.6, (domains, items)) + 0.5, 2)
    price[DOMAINS.index("social")] = np.nan
    return Population(
        segment=segment,
        home=home,
        second=second,
        favourite=favourite,
        second_favourite=np.where(carried, favourite, other),
        weight=weight,
        cold_users=cold_users,
        category=category,
        price=price,
        published_year=world.first_day.year - rng.geometric(0.15, (domains, items)),
        members=_members(rng, category, items - cold),
        cold_items=cold_items,
    )


def _members(rng: np.random.Generator, category: np.ndarray, warm: int) -> np.ndarray:
    """Return the warm items of each category in a random order of popularity. (D, C, M)"""
    domains = len(category)
    members = np.full((domains, CATEGORIES, -(-warm // CATEGORIES)), -1)
    for domain in range(domains):
        for number in range(CATEGORIES):
            of_category = rng.permutation(np.flatnonzero(category[domain, :warm] == number))
            members[domain, number, : len(of_category)] = of_category
    return members
