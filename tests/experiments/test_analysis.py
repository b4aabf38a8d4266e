"""The statistics against values known from elsewhere: published ones, hand computation, the bootstrap."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.analysis import (
    Arm,
    Estimate,
    click_through,
    conclusion,
    difference,
    lift,
    proportions_z,
    sample_ratio,
    wilson,
)  # fmt: skip

Z = 1.959963984540054
WEIGHTS = {"champion": 0.99, "popular": 0.01}


def test_wilson_is_the_published_interval():
    estimate = wilson(200, 2000)
    assert estimate.value == 0.1
    assert estimate.low == pytest.approx(0.0876092254, abs=1e-9)
    assert estimate.high == pytest.approx(0.1139244124, abs=1e-9)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_stays_in_its_bounds_and_mirrors(case):
    successes, trials = case
    here, there = wilson(successes, trials), wilson(trials - successes, trials)
    assert 0 <= here.low <= here.value <= here.high <= 1
    assert here.low == pytest.approx(1 - there.high, abs=1e-12)


def test_wilson_without_trials_says_nothing_and_refuses_nonsense():
    assert wilson(0, 0) == Estimate(None)
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        wilson(3, 2)


def test_the_z_of_two_proportions_is_that_of_statsmodels():
    assert proportions_z((200, 250), (2000, 2000)) == pytest.approx(-2.501955416802671, abs=1e-9)
    assert proportions_z((0, 0), (10, 10)) is None
    assert proportions_z((0, 0), (0, 10)) is None


def test_sample_ratio_by_hand():
    # expected 990 and 10; (970-990)²/990 + (30-10)²/10 = 40.4040…; the tail of a squared normal beyond it
    from scipy.stats import norm

    p = sample_ratio({"champion": 970, "popular": 30}, WEIGHTS)
    assert p == pytest.approx(2 * norm.sf(sqrt(400 / 990 + 400 / 10)), rel=1e-9)
    assert sample_ratio({"champion": 990, "popular": 10}, WEIGHTS) == pytest.approx(1)


def test_a_51_49_split_of_100_000_users_is_an_alarm_and_fair_ones_are_not():
    weights = {"a": 0.5, "b": 0.5}
    assert sample_ratio({"a": 51_000, "b": 49_000}, weights) < 0.001
    fair = np.random.default_rng(1).binomial(100_000, 0.5, 1000)
    alarms = sum(sample_ratio({"a": int(n), "b": 100_000 - int(n)}, weights) < 0.001 for n in fair)
    assert alarms <= 5


def test_sample_ratio_with_too_few_users_or_a_variant_nobody_should_see():
    assert sample_ratio({"champion": 3}, WEIGHTS) is None
    assert sample_ratio({}, WEIGHTS) is None
    assert sample_ratio({"champion": 9000}, {"champion": 1.0, "popular": 0.0}) is None
    assert sample_ratio({"champion": 9000, "gone": 1}, WEIGHTS) == 0.0
    assert sample_ratio({"popular": 5000}, WEIGHTS) < 1e-9


def users(seed: int, rate: float, count: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Clicks and impressions of users who differ: some see much, some click much."""
    chance = np.random.default_rng(seed)
    impressions = 1 + chance.poisson(chance.gamma(2, 5, count))
    return chance.binomial(impressions, chance.beta(rate * 10, (1 - rate) * 10, count)), impressions


def test_the_rate_and_its_variance_by_hand():
    # users (1 of 2), (0 of 2), (2 of 4): R = 3/8; Σ(c-Rn)² = .25² + .75² + .5² = .875; 3/2 · .875 / 64
    arm = Arm.of(np.array([1, 0, 2]), np.array([2, 2, 4]))
    assert arm == Arm(3, 2, 3, 8, 5, 10, 24)
    assert arm.ctr == 3 / 8
    assert arm.ctr_variance == pytest.approx(1.5 * 0.875 / 64)
    estimate = click_through(arm)
    assert estimate.high - estimate.value == pytest.approx(Z * sqrt(1.5 * 0.875 / 64))


def test_the_variance_is_the_bootstraps_and_the_binomial_one_is_too_small():
    clicks, impressions = users(1, 0.1)
    arm = Arm.of(clicks, impressions)
    chance = np.random.default_rng(2)
    drawn = chance.integers(0, len(clicks), (8000, len(clicks)))
    bootstrap = (clicks[drawn].sum(1) / impressions[drawn].sum(1)).var()
    assert arm.ctr_variance == pytest.approx(
        bootstrap, rel=0.05
    )  # 8000 draws know a variance to 1.6 %, three times that
    assert arm.ctr * (1 - arm.ctr) / arm.impressions < 0.7 * arm.ctr_variance


def test_the_lift_is_the_bootstraps():
    treatment, control = users(1, 0.12), users(2, 0.1)
    found = lift(Arm.of(*treatment), Arm.of(*control))
    chance = np.random.default_rng(3)

    def rates(clicks, impressions):
        drawn = chance.integers(0, len(clicks), (8000, len(clicks)))
        return clicks[drawn].sum(1) / impressions[drawn].sum(1)

    low, high = np.quantile(rates(*treatment) / rates(*control) - 1, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    truth_inside = [
        not difference(Arm.of(*users(seed, 0.1, 300)), Arm.of(*users(seed + 5000, 0.1, 300))).excludes(0)
        for seed in range(400)
    ]
    assert len(truth_inside) == 400
    assert 0.92 <= np.mean(truth_inside) <= 0.98


def test_nothing_shown_nothing_clicked_and_one_user_have_defined_answers():
    nothing, unclicked, alone = Arm(), Arm.of(np.zeros(40), np.ones(40)), Arm.of(np.array([1]), np.array([2]))
    assert click_through(nothing) == Estimate(None)
    assert difference(nothing, unclicked) == lift(nothing, unclicked) == lift(unclicked, alone) == Estimate(None)
    assert click_through(unclicked) == Estimate(0, 0, 0)
    assert click_through(alone) == Estimate(0.5)
    assert difference(alone, unclicked) == Estimate(0.5)


@pytest.mark.parametrize(
    ("treatment", "control", "p", "said"),
    [
        (Arm(), Arm(), None, "Nothing was shown yet"),
        (Arm.of(*users(1, 0.1)), Arm.of(*users(2, 0.1)), 1e-5, "Do not read this experiment"),
        (Arm.of(*users(1, 0.1)), Arm.of(*users(2, 0.1, 20)), None, "Too early: 2000 users of new and 20 of old"),
        (Arm.of(*users(1, 0.1)), Arm.of(*users(2, 0.1)), 0.4, "No difference shown"),
        (Arm.of(*users(1, 0.2)), Arm.of(*users(2, 0.1)), 0.4, "new is clicked more than old"),
        (Arm.of(*users(1, 0.1)), Arm.of(*users(2, 0.2)), 0.4, "new is clicked less than old"),
    ],
)
def test_the_conclusion_says_first_whether_it_can_be_trusted(treatment, control, p, said):
    assert conclusion(("new", "old"), treatment, control, p).startswith(said)
