"""The temporal split: no event after the cut is trained on, and every event of a test user is known or asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.temporal_split import temporal_split


@st.composite
def interactions(draw):
    n = draw(st.integers(1, 60))
    users = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    instants = draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))  # with many ties
    return np.array(users), np.array(instants), draw(st.sampled_from([0.1, 0.5, 0.8, 0.95]))


@settings(deadline=None)  # a busy machine is no property of the code
@given(interactions())
def test_no_future_in_the_training_part(world):
    users, instants, share = world
    split = temporal_split(users, instants, share)
    assert (instants[split.train] < split.cut_at).all()
    assert len(split.train) == (instants < split.cut_at).sum()
    assert len(split.train) <= share * len(users)
    assert (instants[split.target] >= split.cut_at).all()


@settings(deadline=None)  # a busy machine is no property of the code
@given(interactions())
def test_each_test_users_events_are_known_or_asked_for_and_never_both(world):
    users, instants, share = world
    split = temporal_split(users, instants, share)
    known_or_asked = np.concatenate([split.history, split.target])
    assert len(np.unique(known_or_asked)) == len(known_or_asked)
    tested = np.unique(users[split.target])
    assert sorted(known_or_asked) == np.flatnonzero(np.isin(users, tested)).tolist()


@settings(deadline=None)  # a busy machine is no property of the code
@given(interactions())
def test_what_is_known_came_before_what_is_asked_and_is_never_nothing(world):
    users, instants, share = world
    split = temporal_split(users, instants, share)
    for user in np.unique(users[split.target]):
        known = split.history[users[split.history] == user]
        asked = split.target[users[split.target] == user]
        later = known[instants[known] >= split.cut_at]
        assert len(later) in (len(asked), len(asked) - 1)
        assert instants[known].max() <= instants[asked].min()


@settings(deadline=None)  # a busy machine is no property of the code
@given(interactions())
def test_who_has_fewer_than_two_later_events_is_no_test_user(world):
    users, instants, share = world
    split = temporal_split(users, instants, share)
    later = np.bincount(users[instants >= split.cut_at], minlength=7)
    assert set(users[split.target].tolist()) == set(np.flatnonzero(later >= 2).tolist())


def test_counted_by_hand():
    users = np.array([0, 0, 1, 0, 1, 1, 1, 2])
    instants = np.array([1, 2, 3, 4, 5, 6, 7, 8])
    split = temporal_split(users, instants, 0.5)
    assert split.cut_at == 5
    assert split.train.tolist() == [0, 1, 2, 3]
    assert split.history.tolist() == [2, 4]  # user 1: one event before the cut, the first of three after it
    assert split.target.tolist() == [5, 6]


def test_the_rows_order_decides_between_equal_instants():
    split = temporal_split(np.zeros(6, int), np.array([0, 9, 9, 9, 9, 9]), 0.5)
    assert split.history.tolist() == [0, 1, 2]
    assert split.target.tolist() == [3, 4, 5]


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_share_outside_the_open_interval_is_refused(share):
    with pytest.raises(ValueError, match="train_share"):
        temporal_split(np.array([0]), np.array([0]), share)


def test_nothing_to_split_is_refused():
    with pytest.raises(ValueError, match="not empty"):
        temporal_split(np.array([]), np.array([]))
    with pytest.raises(ValueError, match="equally long"):
        temporal_split(np.array([1]), np.array([1, 2]))


@settings(deadline=None)  # a busy machine is no property of the code
@given(interactions(), st.integers(-1, 25))
def test_the_cut_lies_within_what_came_since_the_champion_knew(world, known_until):
    users, instants, share = world
    split, usual = temporal_split(users, instants, share, known_until), temporal_split(users, instants, share)
    since = np.sort(instants[instants >= known_until])
    assert split.cut_at >= usual.cut_at
    if len(since):
        assert split.cut_at == since[int(len(since) * share)]
    else:
        assert split.cut_at == usual.cut_at
