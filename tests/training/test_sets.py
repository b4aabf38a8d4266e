"""What a two-tower reads and is asked for, where the order of events means nothing."""

import numpy as np
import pytest

from recsys.errors import CheckFailed
from tests.worlds import checkerboard as world
from training.candidates import draw
from training.sets import Sets


@pytest.fixture
def epoch():
    return list(Sets(world.training_data(), 0.5).epoch(7, np.random.default_rng(1)))


def test_every_item_of_every_user_is_read_or_asked_for_once(epoch):
    dealt = []
    for batch in epoch:
        for user in range(batch.users):
            read, asked = batch.read[batch.reader == user], batch.targets[batch.asked == user]
            assert len(read) >= 1
            assert len(asked) >= 1
            dealt.append(tuple(sorted([*read.tolist(), *asked.tolist()])))
    assert sorted(dealt) == sorted(tuple(sorted(history.tolist())) for history in world.histories())


def test_rows_hold_what_is_read_and_weights_add_up_to_one(epoch):
    for batch in epoch:
        items, mask = batch.padded()
        assert [items[user][mask[user] > 0].tolist() for user in range(batch.users)] == [
            batch.read[batch.reader == user].tolist() for user in range(batch.users)
        ]
        assert batch.weight.sum() == pytest.approx(1)


def test_another_epoch_deals_otherwise_and_the_same_seed_alike():
    sets = Sets(world.training_data(), 0.5)
    rng = np.random.default_rng(1)
    one, other = (next(sets.epoch(40, rng)).read.tolist() for _ in range(2))
    again = next(sets.epoch(40, np.random.default_rng(1))).read.tolist()
    assert one == again != other


def test_users_of_one_item_teach_nothing():
    data = world.training_data()
    first = np.flatnonzero(np.diff(data.users, prepend=-1))
    with pytest.raises(CheckFailed, match="land more history"):
        Sets(type(data)(**{**vars(data), **{k: getattr(data, k)[first] for k in ("users", "items", "instants")}}), 0.5)


def test_a_sample_tells_how_often_an_item_is_in_it():
    share, targets, rng = np.array([0.5, 0.3, 0.2, 0, 0, 0, 0, 0]), np.array([0, 0, 1]), np.random.default_rng(0)
    times = np.zeros(8)
    for _ in range(2000):
        drawn = rng.choice(8, 3, p=share)
        items, wanted, log_probability = draw(drawn, share, 2, rng)
        assert (items[wanted] == drawn).all()
        times[items] += np.exp(-log_probability)
    np.testing.assert_allclose(times / 2000, 1, atol=0.1)  # each stands for as many as there are of it
    items, wanted, log_probability = draw(targets, share, 8, rng)
    assert (items.tolist(), wanted.tolist(), log_probability.any()) == (list(range(8)), [0, 0, 1], False)
