"""The smaller methods, each against a hand computation or a public implementation."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from experiments import planning
from experiments.allocation import thompson_shares
from experiments.estimates import Effect
from experiments.heavy_tails import tail_index, tame
from experiments.interleaving import credits, preference
from experiments.multiplicity import benjamini_hochberg, holm
from experiments.off_policy import Logged, dr, ips, snips
from experiments.randomised import judge
from experiments.segments import shrink
from recsys.interleaving import team_draft, team_of

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@settings(max_examples=20)
@given(P_VALUES)
def test_adjusted_p_values_are_those_of_statsmodels(values):
    named = {str(number): value for number, value in enumerate(values)}
    for ours, method in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        assert list(ours(named).values()) == pytest.approx(multipletests(values, method=method)[1], abs=1e-12)
        assert list(ours(named)) == list(named)


def test_no_question_has_no_answer():
    assert holm({}) == benjamini_hochberg({}) == {}


# Off-policy evaluation. Two users, four decisions between arms 0 and 1; the judged policy always takes arm 1.
REWARD, CHOSEN = np.array([1.0, 0.0, 1.0, 0.0]), np.array([1, 0, 1, 1])
PROPENSITY = np.array([0.5, 0.5, 0.25, 0.8])
LOG = Logged(REWARD, PROPENSITY, (CHOSEN == 1).astype(float), np.array(["u", "u", "v", "v"]))


def test_off_policy_estimates_of_a_bandit_by_hand():
    weights = [1 / 0.5, 0, 1 / 0.25, 1 / 0.8]
    assert LOG.weights() == pytest.approx(weights)
    assert ips(LOG).value == pytest.approx((2 + 4) / 4, abs=1e-9)
    assert snips(LOG).value == pytest.approx(6 / 7.25, abs=1e-9)
    assert snips(LOG, cap=2).value == pytest.approx(4 / 5.25, abs=1e-9)
    chosen, target = np.array([0.6, 0.2, 0.6, 0.6]), np.full(4, 0.6)
    by_hand = 0.6 + (2 * 0.4 + 0 + 4 * 0.4 + 1.25 * -0.6) / 4
    assert dr(LOG, chosen, target).value == pytest.approx(by_hand, abs=1e-9)
    assert LOG.effective_sample() == pytest.approx(7.25**2 / (4 + 16 + 1.25**2), abs=1e-9)


def test_off_policy_intervals_are_clustered_by_user():
    # sums by user: u 2 of 2 decisions, v 4 of 2; R = 1.5, residuals -1 and 1: 2/1 · 2 / 16
    interval = ips(LOG)
    assert interval.high - interval.value == pytest.approx(1.959963984540054 * sqrt(2 * 2 / 16))
    alone = Logged(REWARD, PROPENSITY, np.ones(4), np.full(4, "u"))
    assert ips(alone).low is None


def test_a_log_that_says_nothing_about_the_policy_and_one_without_a_chance():
    never = Logged(REWARD, PROPENSITY, np.zeros(4), np.arange(4))
    assert (ips(never).value, snips(never).value, never.effective_sample()) == (0, None, 0)
    with pytest.raises(ValueError, match="had no chance"):
        Logged(REWARD, np.array([0.5, 0, 0.5, 0.5]), np.ones(4), np.arange(4))
    with pytest.raises(ValueError, match="equally long"):
        Logged(REWARD, PROPENSITY[:3], np.ones(4), np.arange(4))


def test_the_estimates_find_what_the_policy_would_earn_and_dr_is_the_surest():
    chance, requests, k = np.random.default_rng(1), 20_000, 5
    place = chance.integers(1, k + 1, requests)
    clicked = (chance.random(requests) < 0.4 / place).astype(float)  # the model's best item is clicked by 40 %
    found = judge(chance.integers(0, 4000, requests), place, clicked, np.full(requests, 1 / k))
    assert found.in_random_order == pytest.approx(0.4 * np.mean(1 / np.arange(1, 6)), abs=0.02)
    for estimate in (found.ips, found.snips, found.dr):
        assert estimate.low < 0.4 < estimate.high
    assert found.dr.high - found.dr.low < found.ips.high - found.ips.low
    assert found.effective_sample == pytest.approx(requests / k, rel=0.05)


# Interleaving ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.permutations("abcdef"), st.permutations("abcdefgh"), st.integers(0, 10), st.text(max_size=5))
def test_a_draft_takes_each_item_once_and_each_teams_best_first(a, b, length, key):
    drafted = team_draft(a, b, length, key)
    assert len(set(drafted)) == len(drafted) >= min(length, 6)
    assert drafted == team_draft(a, b, length, key)
    for number, item in enumerate(drafted):
        ranking = a if team_of(number + 1, key) == "a" else b
        assert item == next(one for one in ranking if one not in drafted[:number])
        if number % 2:
            assert {team_of(number, key), team_of(number + 1, key)} == {"a", "b"}


def test_equal_rankings_are_preferred_by_nobody():
    first = team_draft("abcd", "abcd", 4, "key")[0]
    assert first == "a"
    found = credits((str(n), f"request {n}", 1) for n in range(400))
    assert abs(sum(found.values())) < 60  # three standard deviations
    assert set(found.values()) == {1, -1}


def test_each_user_has_one_vote():
    key = next(str(n) for n in range(9) if [team_of(rank, str(n)) for rank in (1, 2, 3)] == ["a", "b", "a"])
    assert credits([("u", key, 1), ("u", key, 3)]) == {"u": 2}
    assert credits([("u", key, 2), ("v", key, 1), ("u", key, 1)]) == {"u": 0, "v": 1}
    found = preference({"u": 9, "v": 1, "w": -1, "nobody": 0})
    assert (found.a, found.b, found.share_of_a, found.p_value) == (2, 1, 2 / 3, 1)
    assert "no preference is shown" in found.sentence
    assert preference({}).share_of_a is None
    assert preference({str(n): 1 for n in range(10)}).p_value == pytest.approx(2 * 0.5**10)


# Heavy tails ----------------------------------------------------------------------------------------------------------


def test_the_tail_index_is_that_of_a_pareto():
    values = np.random.default_rng(2).pareto(1.5, 200_000) + 1
    assert tail_index(values) == pytest.approx(1.5, rel=0.12)  # 447 values in the tail, 2.5 σ
    assert tail_index(np.ones(1000)) == float("inf")
    assert tail_index(np.ones(50)) is None


def test_a_metric_without_variance_is_winsorised_and_says_so():
    wild = np.random.default_rng(3).pareto(1.2, 5000) * (np.arange(5000) % 4 == 0)
    tamed = tame(wild)
    assert tamed.cap == tamed.values.max() < wild.max()
    assert "dominate it" in tamed.sentence
    calm = tame(np.random.default_rng(3).exponential(1, 5000))
    assert (calm.cap, calm.sentence) == (None, "")
    with pytest.raises(ValueError, match="1 of 3 values are not finite"):
        tame(np.array([1.0, np.inf, 2.0]))


# Segments -------------------------------------------------------------------------------------------------------------


def test_segments_that_do_not_differ_share_one_effect():
    found = shrink({"a": Effect(1.1, 1.0, 50), "b": Effect(0.9, 1.0, 50), "c": Effect(1.0, 0.0, 50)})
    assert set(found) == {"a", "b"}  # c has no variance to be weighed by
    assert found["a"].shrunk.value == found["b"].shrunk.value == pytest.approx(1.0)
    assert found["a"].shrunk.high - 1 == pytest.approx(1.959963984540054 * sqrt(0.5))


def test_segments_that_differ_keep_most_of_their_own():
    # equal variances v: τ² = sample variance of the values - v = 18 - 1, kept 17/18
    found = shrink({"a": Effect(-3.0, 1.0, 50), "b": Effect(3.0, 1.0, 50)})
    assert found["b"].shrunk.value == pytest.approx(3 * 17 / 18)
    assert found["b"].raw.value == 3
    assert shrink({}) == {}


def test_shrunken_effects_are_nearer_to_the_truth():
    chance = np.random.default_rng(5)
    truth, variance = chance.normal(0, 0.5, 400), 1.0
    noisy = truth + chance.normal(0, 1, 400)
    found = shrink({str(n): Effect(value, variance, 90) for n, value in enumerate(noisy.tolist())})
    shrunk = np.array([one.shrunk.value for one in found.values()])
    assert ((shrunk - truth) ** 2).mean() < 0.4 * ((noisy - truth) ** 2).mean()
    inside = [one.shrunk.low < value < one.shrunk.high for one, value in zip(found.values(), truth, strict=True)]
    assert 0.9 < np.mean(inside) < 0.99


# Thompson sampling ----------------------------------------------------------------------------------------------------


def test_shares_follow_the_probability_of_being_best():
    # uniform priors: Beta(2, 1) beats Beta(1, 2) with probability 5/6
    shares = thompson_shares({"a": 1, "b": 0}, {"a": 1, "b": 1}, seed=1, floor=0.0)
    assert shares["a"] == pytest.approx(5 / 6, abs=0.01)
    sure = thompson_shares({"a": 900, "b": 100}, {"a": 1000, "b": 1000}, seed=1)
    assert sure == {"a": pytest.approx(0.99), "b": pytest.approx(0.01)}
    assert thompson_shares({}, {"a": 0, "b": 0}, seed=1) != thompson_shares({}, {"a": 0, "b": 0}, seed=2)
    with pytest.raises(ValueError, match="successes"):
        thompson_shares({"a": 2}, {"a": 1}, seed=1)
    with pytest.raises(ValueError, match="floor"):
        thompson_shares({}, {"a": 1, "b": 1}, seed=1, floor=0.6)


def test_the_smallest_rate_that_a_plans_users_show_is_the_planned_one():
    users = planning.users_needed(planning.effect_of_proportions(0.10, 0.11))

    assert planning.rate_at(0.10, planning.smallest_effect(users)) == pytest.approx(0.11, abs=1e-9)


@pytest.mark.parametrize(("baseline", "users"), [(0.0, 100), (1.0, 100), (0.99, 10), (0.5, 0)])
def test_what_no_rate_can_be_is_refused(baseline, users):
    with pytest.raises(ValueError, match="users"):
        planning.rate_at(baseline, planning.smallest_effect(users))
