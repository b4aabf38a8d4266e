"""The point-in-time join: each event gets what was known at its day's first event, and no feature knows the future."""

import numpy as np
import pyarrow as pa
import pytest

from recsys.artifacts import FEATURE_SERVICE_RETRIEVAL, USER_FEATURES
from recsys.settings import Settings
from tests.worlds import checkerboard as world
from training import dataset, point_in_time
from training.tasks import Interval

DAY = world.DAY_MS


@pytest.fixture
def cut(tmp_path) -> dataset.Cut:
    rows = sorted((user, int(at.timestamp() * 1000), event, item) for event, user, item, at in world.events())
    users, instants, _, items = zip(*rows, strict=True)
    shown = world.catalogue().model_dump()
    table = pa.table({**shown, "creators": pa.array([[]] * world.ITEMS, pa.list_(pa.string()))})
    events = pa.table({"user_id": users, "item_id": items, "instant": pa.array(instants, pa.int64())})
    interval = Interval(("movies",), world.AS_OF)
    dataset.write_cut(tmp_path / "cut", events, table, cut_id="cut", interval=interval, seed=1)
    return dataset.Cut(tmp_path / "cut")


@pytest.fixture
def asked(monkeypatch) -> list[pa.Table]:
    """What the join asked for. Answered by the definition: events strictly before the midnight that begins the day."""
    questions: list[pa.Table] = []
    by_user: dict[str, list[int]] = {}
    for _, user, _, at in world.events():
        by_user.setdefault(user, []).append(int(at.timestamp() * 1000))

    def answer(settings: Settings, table: pa.Table, service: str) -> np.ndarray:
        assert service == FEATURE_SERVICE_RETRIEVAL
        questions.append(table)
        users, instants = table["user_id"].to_pylist(), table["event_timestamp"].cast(pa.int64()).to_pylist()
        counts = [
            sum(at < instant // DAY * DAY for at in by_user[user])
            for user, instant in zip(users, instants, strict=True)
        ]
        return np.repeat(np.array(counts, np.float32)[:, None], len(USER_FEATURES), axis=1)

    monkeypatch.setattr(point_in_time, "look_up", answer)
    return questions


def test_each_event_knows_exactly_the_days_before_it(cut, asked):
    train, _ = point_in_time.user_features(Settings(_env_file=None), cut)
    data = cut.training_data(train)
    assert len(data.items) > 100
    for user in np.unique(data.users):
        own = data.users == user
        days = data.instants[own] // DAY
        np.testing.assert_array_equal(data.user_features[own, 0], np.searchsorted(days, days))


def test_each_request_knows_exactly_the_days_before_it(cut, asked):
    _, test = point_in_time.user_features(Settings(_env_file=None), cut)
    known = [len(history) for history in cut.requests().histories]
    assert len(known) > 10
    np.testing.assert_array_equal(test[:, 0], np.array(known) - 1)  # one a day: all but the day of the latest


def test_one_look_up_a_user_and_day_bounded_by_a_sample(cut, asked, monkeypatch):
    monkeypatch.setattr(point_in_time, "MAX_TRAINING_REQUESTS", 50)
    train, test = point_in_time.user_features(Settings(_env_file=None), cut)
    assert len(asked[0]) == 50 + len(test)
    assert np.isfinite(train).all(1).sum() == 50  # one event a day here
    assert np.isnan(train).all(1).sum() == len(train) - 50
    assert np.isfinite(test).all()


def test_it_is_joined_once_for_a_cut(cut, asked):
    assert point_in_time.test_features(cut) is None
    first = point_in_time.user_features(Settings(_env_file=None), cut)
    again = point_in_time.user_features(Settings(_env_file=None), cut)
    assert len(asked) == 1
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(point_in_time.test_features(cut), first[1])
