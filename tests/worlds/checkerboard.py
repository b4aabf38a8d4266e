"""Even users like even items, odd users odd ones; so the right answer for everybody is known by construction.

40 users, 24 items. Everybody uses all but HELD_BACK items of their own colour, in an order of their own, one a day; for
each user others of the colour have used what this one has not. Titles and genres tell the colours apart as well.
"""

from datetime import UTC, date, datetime, timedelta

import numpy as np

from recsys.bundle import Catalogue
from training.dataset import TrainingData

USERS, ITEMS, HELD_BACK = 40, 24, 3
FIRST_DAY = datetime(2020, 1, 1, tzinfo=UTC)
AS_OF = date(2020, 6, 1)
DAY_MS = 86_400_000
TITLES = ("A tender love letter", "Robots conquer the galaxy")
GENRES = (["Romance", "Drama"], ["Science Fiction", "War"])


def item_ids() -> list[str]:
    return [f"toy:{item:03d}" for item in range(ITEMS)]


def catalogue() -> Catalogue:
    return Catalogue(
        item_id=item_ids(),
        domain=["movies"] * ITEMS,
        title=[f"{TITLES[item % 2]} {item}" for item in range(ITEMS)],
        categories=[GENRES[item % 2] for item in range(ITEMS)],
        published_year=[1990 + item for item in range(ITEMS)],
    )


def texts() -> tuple[str, ...]:
    shown = catalogue()
    return tuple(f"{title}. {', '.join(genres)}" for title, genres in zip(shown.title, shown.categories, strict=True))


def histories() -> list[np.ndarray]:
    """Return each user's items, oldest first. (USERS,) of (ITEMS / 2 - HELD_BACK,)"""
    rng = np.random.default_rng(7)
    own = ITEMS // 2
    kept = [rng.permutation(own)[: own - HELD_BACK] for _ in range(USERS)]
    return [2 * items + user % 2 for user, items in enumerate(kept)]


def held_back(user: int) -> set[int]:
    """Return the items of the user's own colour that the user has not used."""
    return set(range(user % 2, ITEMS, 2)) - set(histories()[user].tolist())


def training_data(user_features: np.ndarray | None = None) -> TrainingData:
    """Return the whole world as training data; one event a day a user."""
    used = histories()
    users = np.repeat(np.arange(USERS), [len(items) for items in used]).astype(np.int32)
    items = np.concatenate(used).astype(np.int32)
    day = np.concatenate([np.arange(len(items)) for items in used])
    start = int(FIRST_DAY.timestamp() * 1000)
    instants = start + day * DAY_MS + users  # no two at one instant
    return TrainingData(
        users, items, instants, int(instants.max()) + DAY_MS, catalogue(), texts(), user_features=user_features
    )


def events() -> list[tuple[str, str, str, datetime]]:
    """Return event_id, user_id, item_id, occurred_at: one event a day, the users starting 0 to 7 days apart."""
    return [
        (f"e{user:02d}{day:02d}", f"u:{user:02d}", item_ids()[item], FIRST_DAY + timedelta(days=day + user % 8))
        for user, items in enumerate(histories())
        for day, item in enumerate(items.tolist())
    ]


MARTS_SQL = """
    create table marts.fct_interactions (
        event_id text, user_id text, item_id text, domain text, event_type text, rating double precision,
        occurred_at timestamptz, occurred_date date, source text
    );
    create table marts.dim_items (
        item_id text, domain text, title text, text text, categories text[], creators text[], price double precision,
        published_year integer, interaction_count bigint, is_available boolean
    );
    create table marts.feat_user_activity (
        user_id text, event_timestamp timestamptz, user_interactions_total bigint, user_interactions_30d bigint,
        user_distinct_items bigint, user_mean_rating double precision
    );
    create table marts.feat_item_popularity (
        item_id text, event_timestamp timestamptz, item_interactions_total bigint, item_interactions_90d bigint,
        item_mean_rating double precision
    );
"""


def write_marts(connection) -> None:
    """Create the marts as dbt leaves them, with this world in them. One film is not available: nobody may get it."""
    connection.execute(MARTS_SQL)
    shown = catalogue()
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into marts.fct_interactions values (%s, %s, %s, 'movies', 'rate', 4.0, %s, %s, 'toy')",
            [(event, user, item, instant, instant.date()) for event, user, item, instant in events()],
        )
        cursor.executemany(
            "insert into marts.dim_items values (%s, 'movies', %s, null, %s, '{}', null, %s, 0, %s)",
            [
                *zip(shown.item_id, shown.title, shown.categories, shown.published_year, [True] * ITEMS, strict=True),
                ("toy:999", "toy:999", [], None, False),
            ],
        )
    connection.execute(
        """
        insert into marts.feat_user_activity
        select user_id, occurred_date + 1, count(*) over before, count(*) over before, count(*) over before, 4.0
        from marts.fct_interactions window before as (partition by user_id order by occurred_date)
        """
    )
