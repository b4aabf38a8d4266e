"""Features as they were known at an instant, through Feast's point-in-time join.

The join runs in a process of its own (`python -m training join`): Feast reads its connection from the environment, and
its 600 MB need not stay beside the training framework.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import columns
from recsys.artifacts import (
    FEATURE_SERVICE_RANKING,
    FEATURE_SERVICE_RANKING_WINDOWS,
    FEATURE_SERVICE_RETRIEVAL,
    ITEM_FEATURES,
    ITEM_WINDOW_FEATURES,
    USER_FEATURES,
    USER_WINDOW_FEATURES,
)
from recsys.errors import MissingArtifact
from recsys.settings import HOME, Settings
from training.dataset import Cut

FEATURE_REPO = HOME / "feature_repo"
MAX_TRAINING_REQUESTS = 40_000
DAY_MS = 86_400_000
SIDES = {
    FEATURE_SERVICE_RANKING: (USER_FEATURES, ITEM_FEATURES),
    FEATURE_SERVICE_RANKING_WINDOWS: ((*USER_FEATURES, *USER_WINDOW_FEATURES), (*ITEM_FEATURES, *ITEM_WINDOW_FEATURES)),
}
"""Feature service of pairs → features of the user, features of the item."""
SERVICES = {
    FEATURE_SERVICE_RETRIEVAL: ((columns.USER_ID,), USER_FEATURES),
    **{name: ((columns.USER_ID, columns.ITEM_ID), (*user, *item)) for name, (user, item) in SIDES.items()},
}
"""Feature service → whom it is asked about, and what it answers."""


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
    answered = look_up(settings, asked, cut.folder, FEATURE_SERVICE_RETRIEVAL)  # (R, F)
    of_user_day = np.full((len(firsts), len(USER_FEATURES)), np.nan, np.float32)
    of_user_day[sampled] = answered[: len(sampled)]
    return of_user_day[user_day], answered[len(sampled) :]


def look_up(settings: Settings, asked: pa.Table, folder: Path, service: str) -> np.ndarray:
    """Return a service's features for each row of entities and `event_timestamp`, NaN where unknown. float32 (R, F)

    Args:
        folder: where the questions and answers may lie for a while.

    Raises:
        MissingArtifact: Feast does not know the service.
    """
    questions, answers = folder / ".feature_requests.parquet", folder / ".feature_answers.parquet"
    pq.write_table(asked, questions)
    command = [sys.executable, "-m", "training", "join", "--service", service]
    command += ["--requests", str(questions), "--answers", str(answers)]
    environment = {**settings.child_environment(), "PYTHONOPTIMIZE": "1"}  # halves the time of Feast's imports
    done = subprocess.run(command, cwd=HOME, env=environment, stdout=sys.stderr)
    if done.returncode:
        raise MissingArtifact(
            f"point-in-time join with `{service}`",
            f"exit code {done.returncode}",
            "Its log is above; apply the feature repository first (`feast apply`)",
        )
    table = pq.read_table(answers)
    questions.unlink()
    answers.unlink()
    return np.column_stack([table[name].to_numpy() for name in SERVICES[service][1]]).astype(np.float32)


def join(requests: Path, answers: Path, service: str) -> int:
    """Answer a Parquet file of entities and event_timestamp with the features, in its order. Returns the rows.

    Runs with libpq's and Feast's variables in the environment (`Settings.child_environment`).
    """
    from feast import FeatureStore

    entities, features = SERVICES[service]
    store = FeatureStore(repo_path=str(FEATURE_REPO))
    asked = pq.read_table(requests).to_pandas()
    offered = store.get_feature_service(service)
    found: pd.DataFrame = store.get_historical_features(entity_df=asked.drop_duplicates(), features=offered).to_df()
    key = [*entities, columns.EVENT_TIMESTAMP]
    for frame in (asked, found):
        frame[columns.EVENT_TIMESTAMP] = pd.to_datetime(frame[columns.EVENT_TIMESTAMP], utc=True).astype(
            "datetime64[ms, UTC]"
        )
    answered = asked.merge(found.drop_duplicates(key), on=key, how="left", validate="many_to_one")
    values = {name: answered[name].to_numpy(np.float64, na_value=np.nan) for name in features}
    pq.write_table(pa.table(values), answers)
    return len(answered)
