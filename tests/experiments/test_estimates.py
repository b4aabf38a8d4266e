"""Metrics of variants against values known from elsewhere: published ones, hand computation, the bootstrap."""

from math import exp, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.estimates import (
    Effect,
    Estimate,
    Reading,
    as_lift,
    cuped,
    difference,
    log_lift,
    ratio,
    wilson,
)  # fmt: skip

Z = 1.959963984540054


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


def users(seed: int, rate: float, count: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Clicks and impressions of users who differ: some see much, some click much."""
    chance = np.random.default_rng(seed)
    impressions = 1 + chance.poisson(chance.gamma(2, 5, count))
    return chance.binomial(impressions, chance.beta(rate * 10, (1 - rate) * 10, count)), impressions


def test_a_ratio_and_its_variance_by_hand():
    # users (1 of 2), (0 of 2), (2 of 4): R = 3/8; Σ(y-Rw)² = .25² + .75² + .5² = .875; 3/2 · .875 / 64
    reading = ratio(np.array([1, 0, 2]), np.array([2, 2, 4]))
    assert reading == Reading(3, 3 / 8, pytest.approx(1.5 * 0.875 / 64))
    interval = difference(reading, Reading(9, 0.0, 0.0)).interval()
    assert interval.high - interval.value == pytest.approx(Z * sqrt(1.5 * 0.875 / 64))


def test_a_ratios_variance_is_the_bootstraps_and_the_binomial_one_is_too_small():
    clicks, impressions = users(1, 0.1, 500)
    reading = ratio(clicks, impressions)
    drawn = np.random.default_rng(2).integers(0, 500, (60_000, 500), np.int16)  # they know a variance to .6 %
    bootstrap = clicks.astype(np.int16)[drawn].sum(1) / impressions.astype(np.int16)[drawn].sum(1)
    assert reading.variance == pytest.approx(bootstrap.var(), rel=0.01)
    assert reading.value * (1 - reading.value) / impressions.sum() < 0.7 * reading.variance


def test_the_lift_is_the_bootstraps():
    treatment, control = users(1, 0.12), users(2, 0.1)
    found = as_lift(log_lift(ratio(*treatment), ratio(*control)).interval())
    chance = np.random.default_rng(3)

    def rates(clicks, impressions):
        drawn = chance.integers(0, len(clicks), (4000, len(clicks)), np.int16)
        return clicks[drawn].sum(1) / impressions[drawn].sum(1)

    low, high = np.quantile(rates(*treatment) / rates(*control) - 1, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.012)
    assert found.high == pytest.approx(high, abs=0.012)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    inside = [
        not difference(ratio(*users(seed, 0.1, 300)), ratio(*users(seed + 5000, 0.1, 300))).interval().excludes(0)
        for seed in range(400)
    ]
    assert len(inside) == 400
    assert 0.92 <= np.mean(inside) <= 0.98


def test_nothing_shown_nothing_clicked_and_one_user_have_defined_answers():
    nothing = ratio(np.empty(0), np.empty(0))
    unclicked, alone = ratio(np.zeros(40), np.ones(40)), ratio(np.array([1]), np.array([2]))
    assert nothing == Reading(0, None, None)
    assert (unclicked, alone) == (Reading(40, 0.0, 0.0), Reading(1, 0.5, None))
    assert difference(alone, unclicked) is difference(nothing, unclicked) is log_lift(unclicked, unclicked) is None
    assert Effect(0.0, 0.0, 80).p_value == 1
    assert as_lift(Estimate(None)) == Estimate(None)
    assert as_lift(Estimate(0.0, -1.0, 1.0)).low == pytest.approx(exp(-1) - 1)


def test_a_number_that_is_not_finite_is_refused():
    for y, w in (([1.0, np.inf], [1, 1]), ([1.0, 2.0], [1, np.nan])):
        with pytest.raises(ValueError, match="not finite"):
            ratio(np.array(y), np.array(w))
    with pytest.raises(ValueError, match="equally long"):
        ratio(np.ones(2), np.ones(3))


def related(count: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A metric, what was known before, and a variant that has nothing to do with either."""
    chance = np.random.default_rng(5)
    before = chance.gamma(2, 3, count)
    return 2 * before + chance.normal(0, 4, count), before, chance.integers(0, 2, count).astype(str)


def test_cuped_leaves_one_minus_the_squared_correlation_of_a_means_variance():
    y, before, _ = related()
    adjusted = cuped(y, np.ones(len(y)), before, np.zeros(len(y)))
    assert adjusted.var() / y.var() == pytest.approx(1 - np.corrcoef(y, before)[0, 1] ** 2, abs=1e-9)
    assert adjusted.mean() == pytest.approx(y.mean(), abs=1e-9)


def test_cuped_takes_out_what_chance_dealt_and_no_effect():
    y, before, arm = related()
    treated = y + (arm == "1")
    effects = {}
    for name, values in (("plain", treated), ("cuped", cuped(treated, np.ones(len(y)), before, arm))):
        effects[name] = difference(*(ratio(values[arm == a], np.ones((arm == a).sum())) for a in ("1", "0")))
    assert effects["cuped"].variance < 0.6 * effects["plain"].variance
    assert abs(effects["cuped"].value - 1) < 3 * sqrt(effects["cuped"].variance)


def test_cuped_of_a_ratio_is_narrower_and_of_a_constant_nothing():
    clicks, impressions = users(7, 0.2)
    before = clicks / impressions + np.random.default_rng(8).normal(0, 0.05, len(clicks))
    arms = np.zeros(len(clicks))
    adjusted = ratio(cuped(clicks, impressions, before, arms), impressions)
    assert adjusted.variance < 0.8 * ratio(clicks, impressions).variance
    assert adjusted.value == pytest.approx(ratio(clicks, impressions).value)
    assert cuped(clicks, impressions, np.ones(len(clicks)), arms) is not None
    assert (cuped(clicks, impressions, np.ones(len(clicks)), arms) == clicks).all()
    assert len(cuped(np.empty(0), np.empty(0), np.empty(0), np.empty(0))) == 0
