"""Features as they were known at an instant: those of Feast's services, joined by `asof.py` from the same tables.

That it answers what Feast's historical look-up answers is held by tests/feature_repo/test_features.py.
"""

import adbc_driver_postgresql.dbapi as adbc
import numpy as np
import pyarrow as pa

from recsys import columns
from recsys.artifacts import (
    FEAT_ITEM_POPULARITY,
    FEAT_ITEM_WINDOWS,
    FEAT_USER_ACTIVITY,
    FEAT_USER_WINDOWS,
    FEATURE_SERVICE_RANKING,
    FEATURE_SERVICE_RANKING_WINDOWS,
    FEATURE_SERVICE_RETRIEVAL,
    ITEM_FEATURES,
    ITEM_WINDOW_FEATURES,
    USER_FEATURES,
    USER_WINDOW_FEATURES,
)
from recsys.errors import MissingArtifact
from recsys.settings import Settings
from training.asof import View, known_at
from training.dataset import Cut

MAX_TRAINING_REQUESTS = 1_000_000
DAY_MS = 86_400_000
ACTIVITY = View(FEAT_USER_ACTIVITY, columns.USER_ID, USER_FEATURES)
POPULARITY = View(FEAT_ITEM_POPULARITY, columns.ITEM_ID, ITEM_FEATURES)
USER_WINDOWS = View(FEAT_USER_WINDOWS, columns.USER_ID, USER_WINDOW_FEATURES)
ITEM_WINDOWS = View(FEAT_ITEM_WINDOWS, columns.ITEM_ID, ITEM_WINDOW_FEATURES)
VIEWS = {
    FEATURE_SERVICE_RETRIEVAL: (ACTIVITY,),
    FEATURE_SERVICE_RANKING: (ACTIVITY, POPULARITY),
    FEATURE_SERVICE_RANKING_WINDOWS: (ACTIVITY, USER_WINDOWS, POPULARITY, ITEM_WINDOWS),
}
"""Feature service → its views, in the order of its answers: the user's first."""


def _of(service: str, entity: str) -> tuple[str, ...]:
    return tuple(name for view in VIEWS[service] if view.entity == entity for name in view.features)


SIDES = {
    service: (_of(service, columns.USER_ID), _of(service, columns.ITEM_ID))
    for service in (FEATURE_SERVICE_RANKING, FEATURE_SERVICE_RANKING_WINDOWS)
}
"""Feature service of pairs → features of the user, features of the item."""


def user_features(settings: Settings, cut: Cut) -> tuple[np.ndarray, np.ndarray]:
    """Return the features at each training event (n, F) and at each test request (B, F), NaN where unknown; float32.

    The features move at midnight, so all of a user's events of one day share one look-up, at the first of them. Of more
    than `MAX_TRAINING_REQUESTS` user-days a seeded sample is looked up; the others count as unknown, as do users of
    whom the online store knows nothing. Joined once for a cut.
    """
    kept = cut.folder / "user_features.npz"
    if not kept.is_file():
        train, test = _join(settings, cut)
        draft = kept.with_suffix(".draft.npz")
        np.savez(draft, train=train, test=test)
        draft.replace(kept)
    stored = np.load(kept, allow_pickle=False)
    return stored["train"], stored["test"]


def test_features(cut: Cut) -> np.ndarray | None:
    """Return the features of the test requests (B, F), or None while no model of this cut has needed them."""
    kept = cut.folder / "user_features.npz"
    return np.load(kept, allow_pickle=False)["test"] if kept.is_file() else None


def _join(settings: Settings, cut: Cut) -> tuple[np.ndarray, np.ndarray]:
    rows, requests = cut.split["train"], cut.requests()
    users, instants = cut.users[rows], cut.instants[rows]  # by user, then by time
    is_first = np.diff(users, prepend=-1).astype(bool) | np.diff(instants // DAY_MS, prepend=-1).astype(bool)
    user_day = np.cumsum(is_first) - 1  # (n,)
    firsts = np.flatnonzero(is_first)
    rng = np.random.default_rng(cut.manifest.seed)
    sampled = np.sort(rng.choice(len(firsts), min(MAX_TRAINING_REQUESTS, len(firsts)), replace=False))

    asked = pa.table(
        {
            columns.USER_ID: cut.user_ids()[np.concatenate([users[firsts[sampled]], requests.users])],
            columns.EVENT_TIMESTAMP: pa.array(
                np.concatenate([instants[firsts[sampled]], requests.instants]), pa.timestamp("ms", tz="UTC")
            ),
        }
    )
    answered = look_up(settings, asked, FEATURE_SERVICE_RETRIEVAL)  # (R, F)
    of_user_day = np.full((len(firsts), len(USER_FEATURES)), np.nan, np.float32)
    of_user_day[sampled] = answered[: len(sampled)]
    return of_user_day[user_day], answered[len(sampled) :]


def look_up(settings: Settings, asked: pa.Table, service: str) -> np.ndarray:
    """Return a service's features for each row of entities and `event_timestamp`, NaN where unknown. float32 (R, F)

    Raises:
        MissingArtifact: a table of features is not there.
    """
    try:
        return known_at(settings, asked, VIEWS[service])
    except adbc.ProgrammingError as error:
        raise MissingArtifact(
            f"features of `{service}`", str(error).splitlines()[0], "Build the marts first (`dbt build`)"
        ) from error
