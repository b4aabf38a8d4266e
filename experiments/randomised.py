"""What the arm in random order says about other orders: off-policy estimates on the real log.

In this arm chance puts one of the k items of the champion's list at each rank, each with the probability 1/k. The
logged propensity tells it: it is the arm's share over k, so those of one answer sum to the share. So the click at rank
one of every order of the same items can be judged: here the model's own, by score.
"""

from dataclasses import dataclass

import numpy as np
import psycopg

from experiments import off_policy
from experiments.estimates import Estimate
from experiments.off_policy import Logged
from recsys import columns as c
from recsys.artifacts import FCT_IMPRESSIONS
from recsys.interval import Interval

MIN_REQUESTS = 100
FOLDS = 2


@dataclass(frozen=True)
class FirstRank:
    """Rate of clicks on the item at rank one, were the list in the model's order."""

    requests: int
    effective_sample: float
    in_random_order: float
    """As logged."""
    ips: Estimate
    snips: Estimate
    dr: Estimate


def read_first_rank(connection: psycopg.Connection, interval: Interval, variant: str) -> FirstRank | None:
    """Return the estimates from this variant's impressions before the interval's end; None with too few requests."""
    rows = connection.execute(
        f"""
        select {c.USER_ID}, first_place, is_clicked::int, chance from (
            select {c.USER_ID}, {c.RANK}, is_clicked,
                {c.PROPENSITY} / sum({c.PROPENSITY}) over (partition by {c.REQUEST_ID}) as chance,
                row_number() over (partition by {c.REQUEST_ID} order by {c.SCORE} desc, {c.ITEM_ID}) as first_place
            from {FCT_IMPRESSIONS}
            where {c.VARIANT} = %s and {c.SHOWN_AT} < %s and {c.DOMAIN} = any(%s)
        ) as shown
        where {c.RANK} = 1
        """,
        (variant, interval.end, list(interval.domains)),
    ).fetchall()
    if len(rows) < MIN_REQUESTS:
        return None
    users, place, clicked, propensity = (np.array(column) for column in zip(*rows, strict=True))
    return judge(users, place, clicked.astype(float), propensity.astype(float))


def judge(users: np.ndarray, place: np.ndarray, clicked: np.ndarray, propensity: np.ndarray) -> FirstRank:
    """Return the estimates for M requests.

    Args:
        place: which place the item at rank one has in the model's order, from 1. (M,)
        clicked: whether it was clicked. (M,)
        propensity: with which chance put it there. (M,)
    """
    log = Logged(clicked, propensity, (place == 1).astype(float), users)
    chosen, best = _expected(users, place, clicked)
    return FirstRank(
        len(clicked),
        log.effective_sample(),
        float(clicked.mean()),
        off_policy.ips(log),
        off_policy.snips(log),
        off_policy.dr(log, chosen, best),
    )


def _expected(users: np.ndarray, place: np.ndarray, clicked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the click rate of each request's item, by its place in the model's order, and that of the model's best
    item; both from the other half of the users."""
    _, user = np.unique(users, return_inverse=True)
    fold = user % FOLDS
    chosen, best = np.zeros(len(place)), np.zeros(len(place))
    for number in range(FOLDS):
        here, there = fold == number, fold != number
        shown = np.bincount(place[there], minlength=int(place.max()) + 1)
        rate = np.bincount(place[there], clicked[there], len(shown)) / np.maximum(shown, 1)
        chosen[here], best[here] = rate[place[here]], rate[1]
    return chosen, best
