"""What a customer will bring: how often they come back (BG/NBD) times what a day of purchases is worth (Gamma–Gamma).

Fader, Hardie, Lee 2005, "“Counting Your Customers” the Easy Way: An Alternative to the Pareto/NBD Model", and Fader and
Hardie 2013, "The Gamma-Gamma Model of Monetary Value". Fitted by maximum likelihood; on CDNOW the published parameters
come out (tests/training/test_analytics_value.py; docs/decisions/0028-customer-value.md says why no library).

A customer is `x`, purchase days after the first; `t_x`, days from the first to the last of them; `T`, days from the
first to the end of the data. All arrays are (N,).
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psycopg
from scipy.optimize import minimize
from scipy.special import betaln, gammaln, hyp2f1

from recsys.artifacts import (
    AGG_PURCHASE_DAYS,
    CUSTOMER_VALUES,
    USER_SEGMENTS,
    VALUE_BY_SEGMENT,
    VALUE_CALIBRATION,
    VALUE_MODELS,
)
from recsys.interval import Interval
from recsys.warehouse import Outcome, write_outcomes
from training.analytics.tables import read, replace

HORIZON_DAYS = 90
LONGEST_HOLDOUT_DAYS = 90
FEWEST_REPEATERS = 20
LAST_BUCKET = 7  # calibration: so many purchase days and more
CALIBRATED_WITHIN = 0.2  # predicted over observed purchases, minus one
LARGEST_LOG = 14.0  # of a parameter; a population that never leaves has no finite one


class Repeats(NamedTuple):
    """Parameters of BG/NBD: purchases Gamma(r, alpha) a day; after each the customer leaves, Beta(a, b)."""

    r: float
    alpha: float
    a: float
    b: float


class Spending(NamedTuple):
    """Parameters of Gamma–Gamma: a customer's purchases Gamma(p, nu), nu Gamma(q, gamma)."""

    p: float
    q: float
    gamma: float


def _fit(loss: Any, start: tuple[float, ...]) -> np.ndarray:
    """Return the positive parameters of least loss; searched in logarithms, so that none can leave its range."""
    bounds = [(-LARGEST_LOG, LARGEST_LOG)] * len(start)
    found = minimize(loss, np.log(start), method="L-BFGS-B", jac="3-point", bounds=bounds, options={"ftol": 1e-13})
    polished = minimize(loss, found.x, method="Nelder-Mead", bounds=bounds, options={"xatol": 1e-7, "fatol": 1e-12})
    return np.exp(polished.x)


def _counted(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different rows, (U, C), and how often each is there: many customers are alike."""
    return np.unique(np.column_stack(columns).astype(float), axis=0, return_counts=True)


def fit_repeats(x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> Repeats:
    """Return the parameters under which the customers' purchases are most likely."""
    rows, count = _counted(x, t_x, T)
    scale = max(rows[:, 2].max(), 1.0) / 10  # times of about ten, whatever their unit
    frequency, last, age = rows[:, 0], rows[:, 1] / scale, rows[:, 2] / scale

    def loss(logs: np.ndarray) -> float:
        r, alpha, a, b = np.exp(logs)
        stays = betaln(a, b + frequency) - betaln(a, b) - (r + frequency) * np.log(alpha + age)
        with np.errstate(divide="ignore"):
            leaves = np.where(
                frequency > 0,
                betaln(a + 1, b + np.maximum(frequency, 1) - 1) - betaln(a, b)
                - (r + frequency) * np.log(alpha + last), -np.inf,
            )  # fmt: skip
        each = gammaln(r + frequency) - gammaln(r) + r * np.log(alpha) + np.logaddexp(stays, leaves)
        return -float(each @ count) / count.sum()

    r, alpha, a, b = _fit(loss, (1.0, 1.0, 1.0, 1.0))
    return Repeats(float(r), float(alpha * scale), float(a), float(b))


def probability_alive(fitted: Repeats, x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Return the probability that a customer may still come back; 1 for who came once."""
    return 1 / (1 + _odds_of_leaving(fitted, x, t_x, T))


def _odds_of_leaving(fitted: Repeats, x: np.ndarray, t_x: np.ndarray, T: np.ndarray) -> np.ndarray:
    r, alpha, a, b = fitted
    growth = (r + x) * (np.log(alpha + T) - np.log(alpha + t_x))
    odds = a / (b + np.maximum(x, 1) - 1) * np.exp(np.minimum(growth, 700))
    return np.where(x > 0, odds, 0.0)


def expected_purchases(
    fitted: Repeats, days: float, x: np.ndarray, t_x: np.ndarray, T: np.ndarray
) -> np.ndarray:  # fmt: skip
    """Return the purchase days that are expected in the next `days`."""
    r, alpha, a, b = fitted
    a = a if abs(a - 1) > 1e-9 else 1 + 1e-9  # the formula's removable pole
    shrunk = np.exp((r + x) * (np.log(alpha + T) - np.log(alpha + T + days)))
    series = hyp2f1(r + x, b + x, a + b + x - 1, days / (alpha + T + days))
    came = (a + b + x - 1) / (a - 1) * (1 - shrunk * series)
    return np.maximum(came, 0) / (1 + _odds_of_leaving(fitted, x, t_x, T))


def fit_spending(x: np.ndarray, mean_value: np.ndarray) -> Spending:
    """Return the parameters for customers with x > 0 purchases of this mean value > 0."""
    rows, count = _counted(x, mean_value)
    scale = float(np.average(rows[:, 1], weights=count))
    frequency, value = rows[:, 0], rows[:, 1] / scale

    def loss(logs: np.ndarray) -> float:
        p, q, gamma = np.exp(logs)
        each = (
            -betaln(p * frequency, q) + q * np.log(gamma) + (p * frequency - 1) * np.log(value)
            + p * frequency * np.log(frequency) - (p * frequency + q) * np.log(gamma + frequency * value)
        )  # fmt: skip
        return -float(each @ count) / count.sum()

    p, q, gamma = _fit(loss, (2.0, 2.0, 1.0))
    return Spending(float(p), float(q), float(gamma * scale))


def expected_spending(fitted: Spending, x: np.ndarray, mean_value: np.ndarray) -> np.ndarray:
    """Return what a purchase day of each customer is worth; NaN where there is no finite mean (q ≤ 1, x = 0)."""
    p, q, gamma = fitted
    below = p * x + q - 1
    return np.where(below > 0, p * (gamma + x * np.nan_to_num(mean_value)) / np.where(below > 0, below, 1), np.nan)


def customers(purchases: pd.DataFrame, end: Any) -> pd.DataFrame:
    """Return one row per customer of the purchase days before `end` (a date, exclusive), in order of their ids.

    Columns: user_id, x, t_x, T, and `mean_value` of the days after the first; NaN without any or without prices.
    """
    before = purchases[purchases["purchase_date"] < end].sort_values(["user_id", "purchase_date"])
    day = pd.to_datetime(before["purchase_date"])
    is_repeat = before.duplicated("user_id")
    told = day.groupby(before["user_id"]).agg(["min", "max", "size"])
    value = before[is_repeat].groupby("user_id")["revenue"].mean()
    return pd.DataFrame(
        {
            "user_id": told.index,
            "x": told["size"].to_numpy() - 1,
            "t_x": (told["max"] - told["min"]).dt.days.to_numpy(),
            "T": (pd.Timestamp(end) - told["min"]).dt.days.to_numpy(),
            "mean_value": value.reindex(told.index).to_numpy(float),
        }
    )


@dataclass(frozen=True)
class Fitted:
    """Both models on one day's customers; `spending` is None where prices or repeats are too few."""

    repeats: Repeats
    spending: Spending | None

    def purchases(self, people: pd.DataFrame, days: float) -> np.ndarray:
        return expected_purchases(self.repeats, days, *_arrays(people))

    def value(self, people: pd.DataFrame, days: float) -> np.ndarray:
        if self.spending is None:
            return np.full(len(people), np.nan)
        worth = expected_spending(self.spending, people["x"].to_numpy(), people["mean_value"].to_numpy())
        return self.purchases(people, days) * worth


def _arrays(people: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(people[name].to_numpy(float) for name in ("x", "t_x", "T"))


def fit(people: pd.DataFrame) -> Fitted | None:
    """Return the models, or None where fewer than `FEWEST_REPEATERS` customers came back."""
    if (people["x"] > 0).sum() < FEWEST_REPEATERS:
        return None
    paid = people[(people["x"] > 0) & (people["mean_value"] > 0)]
    spending = None
    if len(paid) >= FEWEST_REPEATERS and paid["mean_value"].nunique() > 1:
        spending = fit_spending(paid["x"].to_numpy(), paid["mean_value"].to_numpy())
    return Fitted(fit_repeats(*_arrays(people)), spending)


@dataclass(frozen=True)
class Holdout:
    """Customers before the holdout, what was predicted and what came: columns x, predicted, observed, value, paid."""

    people: pd.DataFrame
    days: int

    def by_purchase_days(self) -> pd.DataFrame:
        bucket = np.minimum(self.people["x"] + 1, LAST_BUCKET).rename("purchase_days")
        told = self.people.groupby(bucket).agg(
            customers=("x", "size"), predicted=("predicted", "mean"), observed=("observed", "mean")
        )
        return told.reset_index().assign(holdout_days=self.days)


def hold_out(purchases: pd.DataFrame, as_of: Any) -> Holdout | None:
    """Fit on what came before the last third (90 days at most) and predict that; None where too little came before."""
    span = (pd.Timestamp(as_of) - pd.Timestamp(purchases["purchase_date"].min())).days
    days = min(LONGEST_HOLDOUT_DAYS, span // 3)
    if days < 1:
        return None
    cut = as_of - timedelta(days=days)
    people = customers(purchases, cut)
    fitted = fit(people)
    if fitted is None:
        return None
    came = purchases[purchases["purchase_date"] >= cut].groupby("user_id")["revenue"]
    of_each = people["user_id"]
    return Holdout(
        people.assign(
            predicted=fitted.purchases(people, days),
            observed=of_each.map(came.size()).fillna(0),
            value=fitted.value(people, days),
            paid=of_each.map(came.sum(min_count=1)).fillna(0),
        ),
        days,
    )


def run(connection: psycopg.Connection, interval: Interval, seed: int) -> dict[str, Any]:
    """Value the customers of each domain of the interval; nothing here is drawn, the seed is not needed."""
    found: dict[str, list[pd.DataFrame]] = {
        table: [] for table in (CUSTOMER_VALUES, VALUE_BY_SEGMENT, VALUE_CALIBRATION, VALUE_MODELS)
    }
    outcomes, too_few = [], []
    for domain in interval.domains:
        purchases = read(
            connection,
            f"select user_id, purchase_date, revenue from {AGG_PURCHASE_DAYS} where domain = %s and purchase_date < %s",
            [domain, interval.as_of],
        )
        people = customers(purchases, interval.as_of) if len(purchases) else pd.DataFrame({"x": []})
        fitted = fit(people)
        if fitted is None:
            too_few.append(domain)
            continue
        holdout = hold_out(purchases, interval.as_of)
        told = {CUSTOMER_VALUES: _valued(fitted, people), VALUE_MODELS: _parameters(fitted)}
        if holdout is not None:
            segments = read(connection, f"select user_id, segment from {USER_SEGMENTS} where domain = %s", [domain])
            told[VALUE_CALIBRATION] = holdout.by_purchase_days()
            told[VALUE_BY_SEGMENT] = _by_segment(fitted, people, holdout, segments)
            outcomes.append(_judged(domain, interval, holdout))
        for table, rows in told.items():
            found[table].append(rows.assign(domain=domain, as_of=interval.as_of))
    for table, parts in found.items():
        replace(connection, table, pd.concat(parts) if parts else pd.DataFrame(), interval.domains)
    write_outcomes(connection, outcomes)
    return {
        "customers": sum(map(len, found[CUSTOMER_VALUES])),
        "too_few_repeaters": too_few,
        "calibration": {outcome.subject: outcome.observed for outcome in outcomes},
        "unchanged": False,
    }


def _valued(fitted: Fitted, people: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": people["user_id"],
            "purchase_days": people["x"] + 1,
            "recency_days": people["t_x"],
            "age_days": people["T"],
            "mean_value": people["mean_value"],
            "probability_alive": probability_alive(fitted.repeats, *_arrays(people)),
            "expected_purchases": fitted.purchases(people, HORIZON_DAYS),
            "expected_value": fitted.value(people, HORIZON_DAYS),
        }
    )


def _parameters(fitted: Fitted) -> pd.DataFrame:
    models = {"BG/NBD": fitted.repeats, "Gamma–Gamma": fitted.spending}
    return pd.DataFrame(
        [
            {"model": model, "parameter": name, "value": value}
            for model, parameters in models.items() if parameters is not None
            for name, value in parameters._asdict().items()
        ]
    )  # fmt: skip


def _by_segment(fitted: Fitted, people: pd.DataFrame, holdout: Holdout, segments: pd.DataFrame) -> pd.DataFrame:
    now = people[["user_id"]].assign(value_now=fitted.value(people, holdout.days))
    before = holdout.people[["user_id", "value", "paid"]].set_axis(
        ["user_id", "value_before", "value_observed"], axis=1
    )
    whole = now.merge(before, on="user_id", how="left").merge(segments, on="user_id", how="left")
    grouped = whole.groupby(whole["segment"].fillna("without"))
    told = grouped[["value_before", "value_observed", "value_now"]].sum(min_count=1)
    return told.assign(customers=grouped.size(), holdout_days=holdout.days).rename_axis("segment").reset_index()


def _judged(domain: str, interval: Interval, holdout: Holdout) -> Outcome:
    came = holdout.people["observed"].sum()
    ratio = holdout.people["predicted"].sum() / came if came else float("inf")
    return Outcome(
        "training", interval.as_of, "value_calibration", f"{ratio:.2f} predicted purchases for each that came",
        f"within {CALIBRATED_WITHIN:.0%}", "pass" if abs(ratio - 1) <= CALIBRATED_WITHIN else "warn", domain,
        {"ratio": ratio, "holdout_days": holdout.days},
    )  # fmt: skip
