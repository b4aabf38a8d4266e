"""What the users do: bursts of sessions by the hours of the day and the days of the week, and events in them."""

from dataclasses import dataclass

import numpy as np

from etl.synthetic.population import CATEGORIES, Population, World
from recsys.columns import DOMAINS, EVENT_TYPES

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
SESSIONS_A_BURST = 1.8
HOURS_BETWEEN_SESSIONS = 1.5
SECONDS_BETWEEN_EVENTS = 60.0  # median
SHOWN = 10  # items of an answer
DEVICES = ("mobile", "desktop", "tablet")
# rows: segments; columns: EVENT_TYPES (view, click, purchase, rate, share)
EVENT_MIX = np.array(
    [
        [0.45, 0.20, 0.20, 0.10, 0.05],
        [0.70, 0.20, 0.02, 0.05, 0.03],
        [0.40, 0.25, 0.30, 0.03, 0.02],
        [0.35, 0.10, 0.05, 0.45, 0.05],
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Events:
    """Interactions, in order of time; all arrays are (N,)."""

    user: np.ndarray
    domain: np.ndarray
    item: np.ndarray
    kind: np.ndarray  # place in EVENT_TYPES
    occurred_ms: np.ndarray
    rating: np.ndarray  # NaN without
    session: np.ndarray
    device: np.ndarray  # place in DEVICES
    quantity: np.ndarray  # 0 unless bought
    request: np.ndarray  # answer that was clicked, -1 without

    def sorted(self) -> "Events":
        order = np.argsort(self.occurred_ms, kind="stable")
        return Events(**{name: values[order] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Answers:
    """What a recommender showed: R answers of `SHOWN` items, drawn evenly from the domain, each to one user."""

    user: np.ndarray  # (R,)
    domain: np.ndarray  # (R,)
    shown_ms: np.ndarray  # (R,)
    items: np.ndarray  # (R, SHOWN)
    clicked: np.ndarray  # (R, SHOWN)


def _start_ms(world: World) -> int:
    return int(np.datetime64(world.first_day, "ms").astype(np.int64))


def hours_of_day(world: World) -> np.ndarray:
    """Return the share of each hour (UTC): one broad evening peak. (24,)"""
    distance = np.abs((np.arange(24) - world.peak_hour + 12) % 24 - 12)
    share = 0.15 + np.exp(-((distance / 4.0) ** 2))
    return share / share.sum()


def _moments(world: World, rng: np.random.Generator, count: int, first_day: int = 0) -> np.ndarray:
    """Return instants of the world's days, by day of the week and hour of the day. (count,) milliseconds"""
    days = np.arange(first_day, world.days)
    weekday = (days + world.first_day.weekday()) % 7
    weight = np.where(weekday >= 5, world.weekend_factor, 1.0)
    day = rng.choice(days, count, p=weight / weight.sum())
    hour = rng.choice(24, count, p=hours_of_day(world))
    return _start_ms(world) + day * DAY_MS + hour * HOUR_MS + rng.integers(0, HOUR_MS, count)


def act(world: World, population: Population, rng: np.random.Generator) -> Events:
    """Draw the events, exactly `world.events` of them."""
    cold_user, cold_user_at = _cold_user_events(world, population, rng)
    user, at, session = _sessions(world, population, rng, world.events - len(cold_user))
    user, at = np.concatenate([user, cold_user]), np.concatenate([at, cold_user_at])
    session = np.concatenate([session, session.max() + 1 + np.arange(len(cold_user))])
    count = len(user)

    # A session stays in one domain: mostly at home.
    away = rng.random(session.max() + 1)[session] < 0.35
    is_second = away & (population.second[user] >= 0)
    domain = np.where(is_second, population.second[user], population.home[user])
    favourite = np.where(is_second, population.second_favourite[user], population.favourite[user])
    is_loyal = rng.random(count) < world.loyalty
    category = np.where(is_loyal, favourite, _other_category(world, rng, at))
    item = _items(world, population, rng, domain, category)
    item = _with_cold_items(world, population, rng, domain, item, at)

    kind = _rows_of(rng, EVENT_MIX, population.segment[user])
    is_sold = ~np.isnan(population.price[domain, item])
    kind = np.where((kind == EVENT_TYPES.index("purchase")) & ~is_sold, EVENT_TYPES.index("share"), kind)
    liking = 3.0 + 1.0 * is_loyal + rng.normal(0.0, 0.8, count)
    stars = np.clip(np.round(liking * 2) / 2, 0.5, 5.0)
    return Events(
        user=user,
        domain=domain,
        item=item,
        kind=kind,
        occurred_ms=at,
        rating=np.where(kind == EVENT_TYPES.index("rate"), stars, np.nan),
        session=session,
        device=rng.choice(len(DEVICES), session.max() + 1, p=(0.6, 0.3, 0.1))[session],
        quantity=np.where(kind == EVENT_TYPES.index("purchase"), 1 + rng.poisson(0.2, count), 0),
        request=np.full(count, -1),
    ).sorted()


def _sessions(
    world: World, population: Population, rng: np.random.Generator, events: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return user, instant and session of `events` events. Bursts hold sessions, sessions hold events."""
    bursts = int(1.3 * events / (world.session_events * SESSIONS_A_BURST)) + 50
    sessions_of = 1 + rng.poisson(SESSIONS_A_BURST - 1, bursts)
    burst = np.repeat(np.arange(bursts), sessions_of)  # (S,)
    owner = rng.choice(len(population.weight), bursts, p=population.weight / population.weight.sum())[burst]
    pause = rng.exponential(HOURS_BETWEEN_SESSIONS * HOUR_MS, len(burst))
    began = _moments(world, rng, bursts)[burst] + _sums_within(pause, burst)

    length = rng.geometric(1.0 / world.session_events, len(burst))
    session = np.repeat(np.arange(len(burst)), length)  # (N,)
    gap = rng.lognormal(np.log(SECONDS_BETWEEN_EVENTS * 1000), 0.8, len(session))
    at = began[session] + _sums_within(gap, session)
    at = at.astype(np.int64)
    inside = np.flatnonzero(at < _start_ms(world) + world.days * DAY_MS)
    whole = inside[:events]
    return owner[session][whole], at[whole], session[whole]


def _sums_within(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return for each value the sum of those before it in its group, itself included, but the group's first counts 0.

    `group` is ascending.
    """
    first = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    total = np.cumsum(values)
    return total - np.repeat(total[first], np.diff(np.r_[first, len(group)]))


def _cold_user_events(world: World, population: Population, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return user and instant of the one or two events of each cold user, in the last tenth of the days."""
    user = np.repeat(population.cold_users, rng.integers(1, 3, len(population.cold_users)))
    return user, _moments(world, rng, len(user), first_day=world.days - max(1, world.days // 10))


def _other_category(world: World, rng: np.random.Generator, at: np.ndarray) -> np.ndarray:
    """Return categories that are nobody's choice: even ones before the drift, the first category's after it."""
    has_drifted = at >= _start_ms(world) + world.drift_day * DAY_MS
    category = rng.integers(0, CATEGORIES, len(at))
    other = rng.integers(1, CATEGORIES, len(at))
    drifted = np.where(rng.random(len(at)) < world.drift_to, 0, other)
    return np.where(has_drifted, drifted, category)


def _items(
    world: World, population: Population, rng: np.random.Generator, domain: np.ndarray, category: np.ndarray
) -> np.ndarray:
    """Return an item of each category, by the popularity tail."""
    width = population.members.shape[2]
    sizes = (population.members >= 0).sum(axis=2)  # (D, C)
    mass = np.cumsum(np.arange(1, width + 1, dtype=float) ** -world.popularity_exponent)
    aim = rng.random(len(domain)) * mass[sizes[domain, category] - 1]
    return population.members[domain, category, np.searchsorted(mass, aim, side="right")]


def _with_cold_items(
    world: World, population: Population, rng: np.random.Generator, domain: np.ndarray, item: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """Return the items with one to three late events of each domain given to each cold item."""
    item = item.copy()
    late = at >= _start_ms(world) + (world.days - max(1, world.days // 10)) * DAY_MS
    for number in range(len(DOMAINS)):
        cold = population.cold_items[number]
        wanted = np.repeat(cold, rng.integers(1, 4, len(cold)))
        places = rng.permutation(np.flatnonzero(late & (domain == number)))[: len(wanted)]
        item[places] = rng.permutation(wanted)[: len(places)]
    return item


def _rows_of(rng: np.random.Generator, table: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return a column for each row number, drawn by that row's shares."""
    return (rng.random(len(row))[:, None] > np.cumsum(table, axis=1)[row]).sum(axis=1)


def answer(
    world: World, population: Population, rng: np.random.Generator, is_treated: np.ndarray, answers: int
) -> Answers:
    """Draw what a recommender showed and what was clicked.

    Args:
        is_treated: (U,) whether the user's variant is the treatment.
        answers: how many.
    """
    user = rng.choice(len(population.weight), answers, p=population.weight / population.weight.sum())
    domain = population.home[user]
    items = rng.integers(0, world.item_count, (answers, SHOWN))
    at_rank = 1.0 / np.log2(np.arange(SHOWN) + 2)
    rate = world.click_rate * at_rank / at_rank.mean()  # (SHOWN,); the mean over the ranks is the click rate
    chance = rate * np.where(is_treated[user], 1.0 + world.lift, 1.0)[:, None]
    clicked = rng.random((answers, SHOWN)) < np.minimum(chance, 1.0)
    first_of_item = np.zeros_like(clicked)
    for rank in range(SHOWN):  # an item that is shown twice in an answer would be clicked twice
        first_of_item[:, rank] = (items[:, :rank] != items[:, rank : rank + 1]).all(axis=1)
    return Answers(user, domain, _moments(world, rng, answers), items, clicked & first_of_item)


def clicks_of(answers: Answers) -> Events:
    """Return the clicks on these answers as events, a few seconds after they were shown."""
    request, rank = np.nonzero(answers.clicked)
    count = len(request)
    return Events(
        user=answers.user[request],
        domain=answers.domain[request],
        item=answers.items[request, rank],
        kind=np.full(count, EVENT_TYPES.index("click")),
        occurred_ms=answers.shown_ms[request] + 2_000 * (rank + 1),
        rating=np.full(count, np.nan),
        session=np.full(count, -1),
        device=np.zeros(count, np.int64),
        quantity=np.zeros(count, np.int64),
        request=request,
    )
