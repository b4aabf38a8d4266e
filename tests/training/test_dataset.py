"""The cut: conservation, no future in the training part, and windows that predict what comes next."""

from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import CheckFailed, MissingArtifact, UnusableInput
from recsys.interval import Interval
from tests.worlds import checkerboard as world
from training import dataset
from training.model import as_read, batches, filled, popularity, recency_shift, windows

INTERVAL = Interval(("movies",), date(2020, 6, 1))
SOME_ITEMS = {
    "item_id": ["i1", "i2", "i3"],
    "domain": ["movies"] * 3,
    "title": ["Alpha", "Beta (1999)", "Gamma"],
    "categories": [["Drama", "War"], [], []],
    "creators": [["Ann", "Bob", "Cid", "Dan"], [], []],
    "published_year": [2001, 1999, None],
}


def events(*rows: tuple[str, str, int]) -> pa.Table:
    users, items, instants = zip(*rows, strict=True)
    return pa.table({"user_id": users, "item_id": items, "instant": pa.array(instants, pa.int64())})


def items() -> pa.Table:
    lists = {name: pa.array(SOME_ITEMS[name], pa.list_(pa.string())) for name in ("categories", "creators")}
    return pa.table({**SOME_ITEMS, **lists})


EVENTS = events(
    ("a", "i1", 1), ("a", "i2", 2), ("a", "gone", 3), ("a", "i3", 90), ("a", "i1", 95), ("b", "i1", 10),
    ("b", "i2", 20), ("b", "i3", 30), ("c", "i1", 40), ("c", "i2", 50),
)  # fmt: skip


@pytest.fixture
def cut(tmp_path) -> dataset.Cut:
    dataset.write_cut(tmp_path / "cut", EVENTS, items(), cut_id="cut", interval=INTERVAL, seed=1)
    return dataset.Cut(tmp_path / "cut")


def test_every_event_is_kept_or_counted(cut):
    manifest = cut.manifest
    assert manifest.interactions_read == manifest.interactions_kept + manifest.interactions_without_item == 10
    assert manifest.interactions_without_item == 1
    assert (manifest.users, manifest.items, manifest.test_users) == (3, 3, 1)


def test_nothing_after_the_cut_is_trained_on(cut):
    data = cut.training_data()
    assert len(data.items) == cut.manifest.train == 7
    assert (data.instants < data.cut_at).all()


def test_a_request_knows_what_came_before_and_asks_for_what_is_new(cut):
    requests = cut.requests()
    ids = np.array(cut.catalogue.item_id)
    assert cut.user_ids()[requests.users].tolist() == ["a"]
    assert ids[requests.histories[0]].tolist() == ["i1", "i2", "i3"]
    assert requests.targets[0].tolist() == []  # i1 comes back: it is known already
    assert requests.instants.tolist() == [90]


def test_texts_hold_what_is_known_of_an_item(cut):
    assert cut.texts == ("Alpha. Drama, War. Ann, Bob, Cid. 2001", "Beta (1999)", "Gamma")


def test_a_cut_that_was_not_finished_is_none(cut):
    (cut.folder / dataset.MANIFEST).unlink()
    with pytest.raises(MissingArtifact, match="training cut"):
        dataset.Cut(cut.folder)


def test_test_users_are_a_seeded_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "MAX_TEST_USERS", 5)
    days = enumerate(["i1", "i2", "i3"])
    rows = [(f"u{user:02d}", item, 1000 * user + day) for day, item in days for user in range(40)]
    rows.sort(key=lambda row: row[2])

    def sample(seed: int) -> list[int]:
        folder = tmp_path / str(seed)
        manifest = dataset.write_cut(folder, events(*rows), items(), cut_id="c", interval=INTERVAL, seed=seed)
        assert (manifest.test_users, manifest.seed) == (5, seed)
        assert manifest.test_users_before_sampling > 5
        return dataset.Cut(folder).split["test_users"].tolist()

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "gone", 1)], "none of 1"),
        ([("a", "i1", 1)], "0 events before"),
        ([("a", "i1", 1), ("b", "i1", 2)], "test"),
    ],
)
def test_too_little_to_learn_from_is_one_sentence(tmp_path, rows, message):
    with pytest.raises(UnusableInput, match=message):
        dataset.write_cut(tmp_path / "cut", events(*rows), items(), cut_id="c", interval=INTERVAL, seed=1)
    assert not (tmp_path / "cut").exists()


def test_a_published_folder_replaces_the_old_one_whole(tmp_path):
    folder = tmp_path / "model"
    for content in ("first", "second"):
        draft = dataset.begin_folder(folder)
        (draft / content).touch()
        dataset.publish_folder(draft, folder)
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


sequences = st.lists(st.integers(1, 40), min_size=1, max_size=5).filter(lambda lengths: max(lengths) > 1)


@settings(deadline=None)  # a busy machine is no property of the code
@given(sequences, st.integers(1, 12), st.integers(1, 4), st.integers(0, 5))
def test_windows_predict_each_event_but_the_first_from_what_came_before(lengths, length, horizon, seed):
    starts = np.cumsum([0, *lengths])
    rows = [np.arange(start, stop) for start, stop in pairwise(starts)]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    inputs, targets = windows(rows, length, np.random.default_rng(seed), horizon)
    assert inputs.shape == targets.shape == (len(inputs), length)
    there = inputs >= 0
    assert ((targets >= 0) == there).all()
    assert there[:, -1].all(), "right-aligned: the latest place is never empty"
    assert (np.diff(there.astype(int), axis=1) >= 0).all()
    assert (owner[inputs[there]] == owner[targets[there]]).all()
    ahead = targets[there] - inputs[there]
    assert (ahead >= 1).all()
    assert (ahead <= horizon).all()
    expected = [row for user in rows for row in user[:-1]]  # each but the last is an input, once
    assert sorted(inputs[there].tolist()) == expected


@settings(deadline=None)
@given(sequences, st.integers(1, 12), st.integers(1, 6), st.integers(0, 5))
def test_batches_deal_every_window_once_and_hold_little_padding(lengths, length, size, seed):
    starts = np.cumsum([0, *lengths])
    rng = np.random.default_rng(seed)
    inputs, targets = windows([np.arange(start, stop) for start, stop in pairwise(starts)], length, rng)
    dealt = batches(inputs, size, rng)
    assert sorted(np.concatenate(dealt).tolist()) == list(range(len(inputs)))
    for batch in dealt:
        read, wanted = filled(inputs, targets, batch)
        assert (read[read >= 0] == inputs[batch][inputs[batch] >= 0]).all()  # nothing but padding is cut off
        assert ((wanted >= 0) == (read >= 0)).all()
        assert (read >= 0).any(axis=0).all(), "a column of padding alone"
        assert (read >= 0).sum() < (size + 1) * length, "one window more than fits, at most"


def test_an_order_that_means_nothing_is_another_one_in_each_epoch():
    rows, rng = [np.arange(30), np.arange(30, 50)], np.random.default_rng(1)
    first, second = (as_read(rows, False, rng) for _ in range(2))
    for own, one, other in zip(rows, first, second, strict=True):
        assert sorted(one) == sorted(other) == own.tolist()
        assert len({tuple(own), tuple(one), tuple(other)}) == 3
    assert as_read(rows, True, rng) is rows


def test_windows_of_users_with_one_event_are_refused():
    with pytest.raises(CheckFailed, match="No user has two events"):
        windows([np.array([0]), np.array([1])], 5, np.random.default_rng(0))


def test_popularity_halves_with_its_half_life():
    data = world.training_data()
    once = popularity(data, np.inf)
    assert once.tolist() == np.bincount(data.items, minlength=world.ITEMS).tolist()
    one_day = popularity(data, 1.0)
    by_hand = sum(0.5 ** ((data.cut_at - at) / world.DAY_MS) for at in data.instants[data.items == 6])
    assert one_day[6] == pytest.approx(by_hand, rel=1e-5)


def test_the_shift_favours_what_is_used_lately():
    data = world.training_data()
    years_ago = np.where(data.items < 12, data.instants - 3000 * world.DAY_MS, data.instants)
    aged = dataset.TrainingData(data.users, data.items, years_ago, data.cut_at, data.catalogue, data.texts)
    shift = recency_shift(aged)
    assert shift[:12].max() < 0 < shift[12:].min()
    assert np.abs(recency_shift(data)).max() < 0.1


def test_a_retraining_learns_most_of_what_came_since_and_is_judged_on_the_rest_of_it(tmp_path):
    """400 users of before, 300 of whom did ten more things since."""
    before = [(f"u{number:03}", "i1", number) for number in range(400)]
    since = [(f"u{number:03}", "i2", 1_000_000 + place) for number in range(300) for place in range(10)]

    def written(rows: list[tuple[str, str, int]], known_until: datetime | None) -> dataset.Cut:
        table = events(*sorted(rows))
        dataset.write_cut(
            tmp_path / "cut", table, items(), cut_id="cut", interval=INTERVAL, seed=1, known_until=known_until
        )
        return dataset.Cut(tmp_path / "cut")

    until = datetime.fromtimestamp(1000, UTC)
    cut = written(before + since, until)
    assert cut.manifest.known_until == until.isoformat()
    assert (cut.instants[cut.split["target"]] >= 1_000_000).all()
    assert (cut.training_data().instants >= 1_000_000).sum() == 0.8 * len(since)

    few = written(before + since[: 10 * (dataset.MIN_TEST_USERS - 1)], until)
    assert few.manifest.known_until is None
    assert few.manifest == written(before + since[: 10 * (dataset.MIN_TEST_USERS - 1)], None).manifest
