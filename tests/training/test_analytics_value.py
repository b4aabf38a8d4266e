"""Customer value: the published parameters on CDNOW, a second implementation, and populations whose truth is known."""

from datetime import date, timedelta
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
from lifetimes import BetaGeoFitter, GammaGammaFitter

from training.analytics import value

PUBLISHED = {"r": 0.243, "alpha": 4.414, "a": 0.793, "b": 2.426}
"""Fader, Hardie and Lee 2005, section 5."""


@pytest.fixture(scope="module")
def cdnow() -> pd.DataFrame:
    path = "lifetimes/datasets/cdnow_customers_summary_with_transactions.csv"
    people = pd.read_csv(metadata.distribution("lifetimes").locate_file(path))
    assert len(people) == 2357
    return people


@pytest.fixture(scope="module")
def fitted(cdnow) -> value.Repeats:
    return value.fit_repeats(cdnow["x"].to_numpy(), cdnow["t_x"].to_numpy(), cdnow["T"].to_numpy())


def test_the_published_parameters_come_out_to_three_digits(fitted):
    assert {name: round(number, 3) for name, number in fitted._asdict().items()} == PUBLISHED


def test_a_second_implementation_agrees(cdnow, fitted):
    x, t_x, T = (cdnow[name].to_numpy(float) for name in ("x", "t_x", "T"))
    second = BetaGeoFitter().fit(x, t_x, T)
    second.params_[:] = fitted

    assert value.expected_purchases(fitted, 39, x, t_x, T) == pytest.approx(
        second.conditional_expected_number_of_purchases_up_to_time(39, x, t_x, T), rel=1e-9
    )
    assert value.probability_alive(fitted, x, t_x, T) == pytest.approx(
        np.ravel(second.conditional_probability_alive(x, t_x, T)), rel=1e-9
    )


def test_spending_agrees_with_a_second_implementation_and_the_published(cdnow):
    paid = cdnow[cdnow["x"] > 0]
    spending = value.fit_spending(paid["x"].to_numpy(), paid["zbar"].to_numpy())

    assert spending == pytest.approx((6.25, 3.74, 15.44), rel=0.003)  # Fader and Hardie 2013
    second = GammaGammaFitter()
    second.params_ = pd.Series(spending, index=["p", "q", "v"])
    assert value.expected_spending(spending, paid["x"].to_numpy(), paid["zbar"].to_numpy()) == pytest.approx(
        second.conditional_expected_average_profit(paid["x"], paid["zbar"]).to_numpy(), rel=1e-9
    )


def people(parameters: value.Repeats, count: int, days: int, more: int, seed: int) -> pd.DataFrame:
    """Customers drawn from the model itself; `came` is what they did in `more` days after the `days`."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(parameters.r, 1 / parameters.alpha, count)
    leaves = rng.beta(parameters.a, parameters.b, count)
    rows = []
    for mine, chance in zip(rate, leaves, strict=True):
        times, now = [], 0.0
        while rng.random() >= chance or not times:
            now += rng.exponential(1 / mine)
            if now > days + more:
                break
            times.append(now)
        before = [time for time in times if time <= days]
        rows.append((len(before), max(before, default=0.0), float(days), len(times) - len(before)))
    return pd.DataFrame(rows, columns=["x", "t_x", "T", "came"])


def test_what_is_predicted_is_what_comes(fitted):
    drawn = people(value.Repeats(0.8, 20.0, 0.9, 2.5), 4_000, 200, 100, seed=3)
    again = value.fit_repeats(drawn["x"].to_numpy(), drawn["t_x"].to_numpy(), drawn["T"].to_numpy())
    expected = value.expected_purchases(again, 100, *(drawn[name].to_numpy(float) for name in ("x", "t_x", "T")))

    assert again.r == pytest.approx(0.8, rel=0.15)
    assert again.alpha == pytest.approx(20, rel=0.2)
    assert expected.sum() == pytest.approx(drawn["came"].sum(), rel=0.1)


def purchases(*rows: tuple[str, int, float | None]) -> pd.DataFrame:
    told = [(user, date(2020, 1, 1) + timedelta(days=day), revenue) for user, day, revenue in rows]
    return pd.DataFrame(told, columns=["user_id", "purchase_date", "revenue"])


def test_customers_by_hand():
    told = value.customers(
        purchases(("u", 0, 9.0), ("u", 10, 4.0), ("u", 4, 2.0), ("v", 5, 1.0), ("u", 20, 7.0)), date(2020, 1, 16)
    )

    assert told.to_dict("list") == {
        "user_id": ["u", "v"],
        "x": [2, 0],
        "t_x": [10, 0],
        "T": [15, 10],
        "mean_value": [3.0, pytest.approx(np.nan, nan_ok=True)],
    }


def test_holdout_counts_what_came_after_the_cut():
    rows = [(f"u{number}", day, 5.0 + number) for number in range(40) for day in (0, 20 + number % 30, 75 + number % 9)]
    holdout = value.hold_out(purchases(*rows), date(2020, 3, 31))  # 90 days: the last 30 are held out

    assert holdout.days == 30
    assert holdout.people["observed"].tolist() == [1] * 40
    assert holdout.people["paid"].sum() == sum(5.0 + number for number in range(40))
    assert holdout.by_purchase_days()["customers"].sum() == 40


@pytest.mark.parametrize(
    "rows", [[("u", 0, 1.0)], [("u", day, 1.0) for day in range(9)], [(f"u{n}", 0, 1.0) for n in range(99)]]
)
def test_too_few_who_came_back_are_no_model(rows):
    assert value.fit(value.customers(purchases(*rows), date(2020, 3, 1))) is None
    assert value.hold_out(purchases(*rows), date(2020, 3, 1)) is None


@pytest.mark.parametrize("revenue", [None, 0.0, 5.0])
def test_without_prices_or_with_one_price_there_are_purchases_but_no_value(revenue):
    rows = [(f"u{number}", day, revenue) for number in range(30) for day in (0, 3 + number, 40)]
    told = value.customers(purchases(*rows), date(2020, 3, 1))
    fitted = value.fit(told)

    assert fitted.spending is None
    assert np.isnan(fitted.value(told, 90)).all()
    assert (fitted.purchases(told, 90) > 0).all()
