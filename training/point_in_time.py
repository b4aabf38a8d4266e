"""User features as they were known at an instant, through Feast's point-in-time join.

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
from recsys.artifacts import FEATURE_SERVICE_RETRIEVAL, USER_FEATURES
from recsys.errors import MissingArtifact
from recsys.settings import HOME, Settings
from training.dataset import Cut

FEATURE_REPO = HOME / "feature_repo"
MAX_TRAINING_REQUESTS = 40_000
DAY_MS = 86_400_000


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
    answered = _feast(settings, asked, cut.folder)  # (R, F)
    of_user_day = np.full((len(firsts), len(USER_FEATURES)), np.nan, np.float32)
    of_user_day[sampled] = answered[: len(sampled)]
    return of_user_day[user_day], answered[len(sampled) :]


def _feast(settings: Settings, asked: pa.Table, folder: Path) -> np.ndarray:
    questions, answers = folder / ".feature_requests.parquet", folder / ".feature_answers.parquet"
    pq.write_table(asked, questions)
    command = [sys.executable, "-m", "training", "join", "--requests", str(questions), "--answers", str(answers)]
    environment = {**settings.child_environment(), "PYTHONOPTIMIZE": "1"}  # halves the time of Feast's imports
    done = subprocess.run(command, cwd=HOME, env=environment, stdout=sys.stderr)
    if done.returncode:
        raise MissingArtifact(
            f"point-in-time join with `{FEATURE_SERVICE_RETRIEVAL}`",
            f"exit code {done.returncode}",
            "Its log is above; apply the feature repository first (`feast apply`)",
        )
    table = pq.read_table(answers)
    questions.unlink()
    answers.unlink()
    return np.column_stack([table[name].to_numpy() for name in USER_FEATURES]).astype(np.float32)


def join(requests: Path, answers: Path) -> int:
    """Answer a Parquet file of user_id and event_timestamp with the features, in its order. Returns the rows.

    Runs with libpq's and Feast's variables in the environment (`Settings.child_environment`).
    """
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(FEATURE_REPO))
    asked = pq.read_table(requests).to_pandas()
    service = store.get_feature_service(FEATURE_SERVICE_RETRIEVAL)
    found: pd.DataFrame = store.get_historical_features(entity_df=asked, features=service).to_df()
    key = [columns.USER_ID, columns.EVENT_TIMESTAMP]
    for frame in (asked, found):
        frame[columns.EVENT_TIMESTAMP] = pd.to_datetime(frame[columns.EVENT_TIMESTAMP], utc=True).astype(
            "datetime64[ms, UTC]"
        )
    answered = asked.merge(found.drop_duplicates(key), on=key, how="left", validate="many_to_one")
    values = {name: answered[name].to_numpy(np.float64, na_value=np.nan) for name in USER_FEATURES}
    pq.write_table(pa.table(values), answers)
    return len(answered)
