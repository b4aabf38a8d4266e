"""What holds at every look: the sample ratio, the sequential intervals, and the plans that count on them."""

from math import sqrt

import numpy as np
import pytest
from scipy.stats import chisquare, norm
from statsmodels.stats.power import NormalIndPower

from experiments import planning
from experiments.estimates import Effect
from experiments.sample_ratio import ALARM, CONCENTRATIONS, sample_ratio
from experiments.sequential import Sequence

HALVES = {"a": 0.5, "b": 0.5}


def test_the_single_look_is_the_chi_square_test():
    found = sample_ratio({"champion": 970, "popular": 30}, {"champion": 0.99, "popular": 0.01})
    assert found.chi_square == pytest.approx(2 * norm.sf(sqrt(400 / 990 + 400 / 10)), rel=1e-9)
    assert found.chi_square == pytest.approx(chisquare([970, 30], [990, 10]).pvalue)
    assert found.is_alarm


def test_the_bayes_factor_by_hand():
    # two users: under the shares 1/4 for any two halves; under a Beta(c/2, c/2) E[p²] = c/2 (c/2 + 1) / (c(c+1))
    assert sample_ratio({"a": 1, "b": 1}, HALVES).always_valid == 1  # the shares are likelier
    alternative = np.mean([(c / 2) * (c / 2 + 1) / (c * (c + 1)) for c in CONCENTRATIONS])  # both in one half
    assert sample_ratio({"a": 2}, HALVES).always_valid == pytest.approx(0.25 / alternative)


def test_a_51_49_split_of_100_000_users_is_an_alarm_and_fair_ones_are_not():
    assert sample_ratio({"a": 51_000, "b": 49_000}, HALVES).is_alarm
    fair = np.random.default_rng(1).binomial(1000, 0.5, (60, 20)).cumsum(1)  # a look after every thousand users
    alarms = sum(
        any(sample_ratio({"a": int(n), "b": 1000 * (day + 1) - int(n)}, HALVES).is_alarm for day, n in enumerate(looks))
        for looks in fair
    )
    assert ALARM == 0.001
    assert alarms <= 1


def test_nobody_one_variant_and_one_that_nobody_should_see():
    weights = {"champion": 0.99, "popular": 0.01}
    for users in ({}, {"champion": 3}):
        assert (sample_ratio(users, weights).is_alarm, sample_ratio(users, weights).chi_square) == (False, None)
    assert not sample_ratio({"champion": 9000}, {"champion": 1.0, "popular": 0.0}).is_alarm
    assert sample_ratio({"champion": 9000, "gone": 1}, weights).always_valid == 0
    assert sample_ratio({"popular": 5000}, weights).always_valid < 1e-9


def test_the_sequence_is_the_papers_and_its_p_value_agrees_with_its_interval():
    sequence = Sequence.tuned_for(10_000, 0.05)
    rho, users, alpha = sqrt(sequence.rho_squared), 700, 0.05
    paper = sqrt(2 * (users * rho**2 + 1) / (users**2 * rho**2) * np.log(sqrt(users * rho**2 + 1) / alpha))
    assert sequence.errors(users) / sqrt(users) == pytest.approx(paper, rel=1e-12)
    edge = sequence.errors(users)
    assert sequence.p_value(Effect(edge, 1.0, users)) == pytest.approx(0.05)
    assert not sequence.interval(Effect(edge * 0.999, 1.0, users)).excludes(0)
    assert sequence.interval(Effect(edge * 1.001, 1.0, users)).excludes(0)
    assert sequence.p_value(Effect(0.0, 1.0, users)) == sequence.p_value(Effect(1.0, 0.0, users)) == 1
    tuned = [Sequence.tuned_for(users).errors(10_000) for users in (100, 10_000, 1_000_000)]
    assert min(tuned) == tuned[1]
    with pytest.raises(ValueError, match="0 users"):
        Sequence.tuned_for(0)


def test_whoever_looks_all_the_time_is_wrong_less_often_than_promised():
    streams = np.random.default_rng(3).binomial(50, 0.1, (2, 400, 60)).cumsum(2)  # two variants, 60 looks of 100 users
    users = 50 * np.arange(1, 61)
    rates = streams / users
    variance = (rates * (1 - rates) / (users - 1)).sum(0)
    z = np.abs(rates[0] - rates[1]) / np.sqrt(np.maximum(variance, 1e-12))
    edges = np.array([Sequence.tuned_for(6000).errors(2 * int(count)) for count in users])
    assert (z > edges).any(1).mean() <= 0.05
    assert (z > norm.ppf(0.975)).any(1).mean() > 0.2  # the naive test, looked at as often


def test_users_needed_are_those_of_statsmodels():
    effect = planning.effect_of_proportions(0.10, 0.11)
    assert planning.users_needed(effect, 0.05, 0.8) == pytest.approx(14_744.10, abs=0.01)
    reference = NormalIndPower().solve_power(effect, alpha=0.05, power=0.8)
    assert planning.users_needed(effect, 0.05, 0.8) == pytest.approx(reference, rel=1e-8)
    assert planning.power(effect, 14_744.104836841367) == pytest.approx(0.8, abs=1e-9)
    assert planning.smallest_effect(14_744.104836841367) == pytest.approx(effect, rel=1e-8)


def test_a_plan_without_an_effect_is_refused():
    with pytest.raises(ValueError, match="give an effect"):
        planning.users_needed(0.0)
    with pytest.raises(ValueError, match="must lie in"):
        planning.effect_of_proportions(0.0, 0.1)
    with pytest.raises(ValueError, match="a look every 0 users"):
        planning.sequential_users(0.6, look_every=0)
    with pytest.raises(ValueError, match="look every 60000 users"):
        planning.sequential_users(0.0023, look_every=1000)


@pytest.mark.parametrize("effect", [1.0, 0.01, 0.001, 1e-4])
def test_a_plan_without_a_word_on_it_has_few_enough_looks(effect):
    needed = 2 * planning.users_needed(effect)
    spacing = planning.spacing_of_looks(needed)
    assert spacing % 1000 == 0
    assert 3 * needed / spacing <= planning.USUAL_LOOKS
    if spacing > 1000:
        assert 3 * needed / (spacing - 1000) > planning.USUAL_LOOKS


def test_the_power_of_many_looks_is_what_a_simulation_finds():
    sequence, looks, effect = Sequence.tuned_for(2000), np.arange(100, 2001, 100), 0.12
    walks = np.random.default_rng(4).normal(50 * effect, 10, (20_000, 20)).cumsum(1)  # (streams, looks)
    edges = np.array([sequence.errors(int(users)) for users in looks]) * np.sqrt(looks)
    found = (np.abs(walks) > edges).any(1).mean()
    assert planning.sequential_power(effect, 2000, 100, sequence) == pytest.approx(found, abs=0.012)  # 3 σ
    one = planning.sequential_power(effect, 2000, 2000, sequence)
    shift, edge = effect / 2 * sqrt(2000), sequence.errors(2000)
    assert one == pytest.approx(norm.sf(edge - shift) + norm.cdf(-edge - shift), abs=1e-9)


def test_a_sequential_plan_needs_more_users_and_keeps_its_promise():
    users = planning.sequential_users(0.6, look_every=20)
    assert users > 2 * planning.users_needed(0.6)
    assert planning.sequential_power(0.6, users, 20, Sequence.tuned_for(users)) >= 0.8
    fewer = users - 20
    assert planning.sequential_power(0.6, fewer, 20, Sequence.tuned_for(fewer)) < 0.8
