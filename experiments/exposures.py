"""Who was shown what, and what they did afterwards: one row a user, from the marts.

A user is exposed at the first impression of the experiment's days. Only what comes at or after that counts as outcome;
what comes before is counted and left out. Bots, and users who saw more than one variant, belong to none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import psycopg

from recsys import columns as c
from recsys.artifacts import DIM_ITEMS, FCT_IMPRESSIONS, FCT_INTERACTIONS
from recsys.assignment import BUCKETS, assign, bucket
from recsys.experiments import HOLDOUT, LIST_LAYER, Experiment
from recsys.interval import Interval

MOST_CLICKS_A_MINUTE = 120
"""Two a second for a whole minute: no hand does that."""
MOST_REQUESTS_A_MINUTE = 120
PRIOR_DAYS = 30
"""What a user did in so many days before the first exposure is what CUPED and the segments know of him."""
RETENTION_DAYS = (7, 14)
"""Retained: there again on a day from the seventh to the thirteenth after the first exposure. Asked only of users whose
fourteen days are over."""


@dataclass(frozen=True)
class Exposed:
    """Users of one experiment, in the order of their ids; all arrays (N,)."""

    user_id: np.ndarray
    variant: np.ndarray
    exposed_at: np.ndarray
    """Unix seconds of the first impression."""
    is_crossed: np.ndarray
    """Saw more than one variant."""
    is_bot: np.ndarray
    impressions: np.ndarray
    clicks: np.ndarray
    revenue: np.ndarray
    """Price of what was bought after the first exposure."""
    is_eligible: np.ndarray
    """Whether retention can be asked."""
    is_retained: np.ndarray
    prior: np.ndarray
    """Interactions in `PRIOR_DAYS` before the first exposure."""
    early_outcomes: np.ndarray
    """Clicks and purchases from before the exposure."""

    def __len__(self) -> int:
        return len(self.user_id)

    def where(self, kept: np.ndarray) -> "Exposed":
        """Return these users only. bool (N,)"""
        return Exposed(*(getattr(self, field.name)[kept] for field in fields(self)))


def read_exposed(
    connection: psycopg.Connection, experiment: Experiment, interval: Interval, stopped: Mapping[str, datetime]
) -> Exposed:
    """Return the users of an experiment, with their outcomes before the interval's end.

    Impressions carry the variant of the list layer. In another layer whoever was shown anything is exposed, and the
    variant is assigned again, from the declaration.

    Args:
        stopped: variant → when it was taken from its users; what they see and do from then on is not its own.
    """
    end = min(interval.end, _midnight(experiment.ends_on)) if experiment.ends_on else interval.end
    is_list = experiment.layer == LIST_LAYER
    names = [field.name for field in fields(Exposed)]
    # Tables of users meet tables of users: a nested loop is never right here, and without statistics it is taken.
    connection.execute("set local enable_nestloop = off")
    cursor = connection.execute(
        f"select {', '.join(names)} from ({QUERY}) as exposed order by {names[0]}",
        {
            "start": _midnight(experiment.starts_on), "end": end, "domains": list(interval.domains),
            "variants": list(experiment.shares) if is_list else None, "holdout": HOLDOUT,
            "stopped": list(stopped), "stopped_at": list(stopped.values()),
            "prior": timedelta(days=PRIOR_DAYS), "from": timedelta(days=RETENTION_DAYS[0]),
            "until": timedelta(days=RETENTION_DAYS[1]),
            "most_clicks": MOST_CLICKS_A_MINUTE, "most_requests": MOST_REQUESTS_A_MINUTE,
        },
        binary=True,
    )  # fmt: skip
    rows = cursor.fetchall()
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    kinds = (str, str, float, bool, bool, float, float, float, bool, bool, float, float)
    exposed = Exposed(*(np.array(list(column), kind) for column, kind in zip(columns, kinds, strict=True)))
    exposed = _of_its_buckets(exposed, experiment)
    return exposed if is_list else _dealt_again(exposed, experiment)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _of_its_buckets(exposed: Exposed, experiment: Experiment) -> Exposed:
    """Return the users who take part: experiments of one layer may give their variants the same names."""
    first, end = experiment.buckets
    if (first, end) == (0, BUCKETS):
        return exposed
    takes_part = [first <= bucket(user, experiment.layer) < end for user in exposed.user_id.tolist()]
    return exposed.where(np.array(takes_part, bool))


def _dealt_again(exposed: Exposed, experiment: Experiment) -> Exposed:
    variants = [assign(user, experiment.name, experiment.shares) for user in exposed.user_id.tolist()]
    return replace(exposed, variant=np.array(variants, str), is_crossed=np.zeros(len(exposed), bool))


QUERY = f"""
    with

    stops as materialized (

        select * from unnest(%(stopped)s::text[], %(stopped_at)s::timestamptz[]) as stops (variant, stopped_at)

    ),

    shown as materialized (

        select {c.USER_ID}, {c.VARIANT}, {c.REQUEST_ID}, {c.SHOWN_AT}, is_clicked, early_clicks
        from {FCT_IMPRESSIONS}
        where
            {c.SHOWN_AT} >= %(start)s and {c.SHOWN_AT} < %(end)s
            and {c.DOMAIN} = any(%(domains)s)
            and case
                when %(variants)s::text[] is null then {c.VARIANT} != %(holdout)s else {c.VARIANT} = any(%(variants)s)
            end

    ),

    first_shown as materialized (

        select distinct on (shown.{c.USER_ID})
            shown.{c.USER_ID}, shown.{c.VARIANT}, shown.{c.SHOWN_AT} as exposed_at,
            least(%(end)s, stops.stopped_at) as ends_at
        from shown
        left join stops using ({c.VARIANT})
        order by shown.{c.USER_ID}, shown.{c.SHOWN_AT}, shown.{c.VARIANT}

    ),

    shown_per_user as materialized (

        select
            {c.USER_ID},
            count(distinct shown.{c.VARIANT}) > 1 as is_crossed,
            count(*) as impressions,
            count(*) filter (where is_clicked) as clicks,
            sum(early_clicks) as early_clicks
        from shown
        inner join first_shown using ({c.USER_ID})
        where shown.{c.SHOWN_AT} < first_shown.ends_at
        group by {c.USER_ID}

    ),

    busy as materialized (

        select {c.USER_ID} from shown
        group by {c.USER_ID}, date_trunc('minute', {c.SHOWN_AT}, 'UTC')
        having count(distinct {c.REQUEST_ID}) > %(most_requests)s
        union
        select {c.USER_ID} from {FCT_INTERACTIONS}
        where {c.EVENT_TYPE} = 'click' and {c.OCCURRED_AT} >= %(start)s and {c.OCCURRED_AT} < %(end)s
        group by {c.USER_ID}, date_trunc('minute', {c.OCCURRED_AT}, 'UTC')
        having count(*) > %(most_clicks)s

    ),

    done_per_user as materialized (

        select
            {c.USER_ID},
            count(*) filter (where {c.OCCURRED_AT} < exposed_at and {c.OCCURRED_AT} >= exposed_at - %(prior)s) as prior,
            sum({DIM_ITEMS}.price) filter (
                where {c.EVENT_TYPE} = 'purchase' and {c.OCCURRED_AT} >= exposed_at and {c.OCCURRED_AT} < ends_at
            ) as revenue,
            count(*) filter (
                where {c.EVENT_TYPE} = 'purchase' and {c.OCCURRED_AT} < exposed_at and {c.OCCURRED_AT} >= %(start)s
            ) as early_purchases,
            bool_or({c.OCCURRED_AT} >= exposed_at + %(from)s and {c.OCCURRED_AT} < exposed_at + %(until)s)
                as is_back
        from {FCT_INTERACTIONS} as done
        inner join first_shown using ({c.USER_ID})
        left join {DIM_ITEMS} using ({c.ITEM_ID})
        where
            {c.OCCURRED_AT} >= exposed_at - %(prior)s and {c.OCCURRED_AT} < %(end)s
            and done.{c.DOMAIN} = any(%(domains)s)
        group by {c.USER_ID}

    ),

    shown_again as materialized (

        select distinct {c.USER_ID} from shown
        inner join first_shown using ({c.USER_ID})
        where shown.{c.SHOWN_AT} >= exposed_at + %(from)s and shown.{c.SHOWN_AT} < exposed_at + %(until)s

    )

    select
        {c.USER_ID},
        {c.VARIANT},
        extract(epoch from exposed_at)::float8 as exposed_at,
        is_crossed,
        busy.{c.USER_ID} is not null as is_bot,
        impressions::float8 as impressions,
        clicks::float8 as clicks,
        coalesce(revenue, 0)::float8 as revenue,
        exposed_at + %(until)s <= first_shown.ends_at as is_eligible,
        exposed_at + %(until)s <= first_shown.ends_at
            and (coalesce(is_back, false) or shown_again.{c.USER_ID} is not null) as is_retained,
        coalesce(prior, 0)::float8 as prior,
        (early_clicks + coalesce(early_purchases, 0))::float8 as early_outcomes
    from first_shown
    inner join shown_per_user using ({c.USER_ID})
    left join done_per_user using ({c.USER_ID})
    left join shown_again using ({c.USER_ID})
    left join busy using ({c.USER_ID})
"""
