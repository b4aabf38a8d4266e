"""What users did with a version under way and with the champion, since serving confirmed its stage.

From the raw tables, which have an impression within seconds; the marts have it tomorrow.
"""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import psycopg

from experiments.exposures import MOST_CLICKS_A_MINUTE, MOST_REQUESTS_A_MINUTE
from recsys import columns as c
from recsys.artifacts import RAW_IMPRESSIONS, RAW_INTERACTIONS, RAW_ITEMS
from recsys.promotion import Candidacy


@dataclass(frozen=True)
class Seen:
    """Units who were shown either version; all arrays (N,)."""

    is_candidate: np.ndarray
    """Saw the version under way; of a crossed unit this says nothing."""
    is_crossed: np.ndarray
    """Saw both."""
    is_bot: np.ndarray
    impressions: np.ndarray
    clicks: np.ndarray
    revenue: np.ndarray
    """Price of what was bought after the first impression."""

    def counted(self) -> "Seen":
        """Return the units that are compared."""
        kept = ~(self.is_crossed | self.is_bot)
        return Seen(*(getattr(self, name)[kept] for name in KINDS))


KINDS = {
    "is_candidate": bool, "is_crossed": bool, "is_bot": bool, "impressions": float, "clicks": float, "revenue": float,
}  # fmt: skip


def read_seen(connection: psycopg.Connection, candidacy: Candidacy, excluded: tuple[str, ...], until: datetime) -> Seen:
    """Return who saw what from the stage's confirmation on.

    Args:
        excluded: variants whose units can never get the version.
        until: end of what is read, exclusive: a clock that runs ahead somewhere adds nothing.
    """
    # Tables of users meet tables of users: a nested loop is never right here, and without statistics it is taken.
    connection.execute("set local enable_nestloop = off")
    rows = connection.execute(
        QUERY,
        {
            "candidate": candidacy.version, "against": candidacy.against, "live_at": candidacy.live_at, "until": until,
            "excluded": list(excluded), "most_clicks": MOST_CLICKS_A_MINUTE, "most_requests": MOST_REQUESTS_A_MINUTE,
        },
        binary=True,
    ).fetchall()  # fmt: skip
    columns = zip(*rows, strict=True) if rows else ([] for _ in KINDS)
    return Seen(*(np.array(list(column), kind) for column, kind in zip(columns, KINDS.values(), strict=True)))


QUERY = f"""
    with

    shown as materialized (

        select {c.USER_ID}, {c.ITEM_ID}, {c.REQUEST_ID}, {c.SHOWN_AT}, model_version
        from {RAW_IMPRESSIONS}
        where
            model_version in (%(candidate)s, %(against)s)
            and {c.SHOWN_AT} >= %(live_at)s and {c.SHOWN_AT} < %(until)s
            and not {c.VARIANT} = any(%(excluded)s)

    ),

    done as materialized (

        select
            {c.USER_ID}, {c.ITEM_ID}, {c.EVENT_TYPE}, {c.OCCURRED_AT},
            case when context is json object then context::jsonb ->> 'request_id' end as {c.REQUEST_ID}
        from {RAW_INTERACTIONS}
        where
            source = 'stream' and {c.EVENT_TYPE} in ('click', 'purchase')
            and {c.OCCURRED_AT} >= %(live_at)s and {c.OCCURRED_AT} < %(until)s

    ),

    clicked as materialized (

        select distinct shown.{c.REQUEST_ID}, shown.{c.USER_ID}, shown.{c.ITEM_ID}
        from done
        inner join shown using ({c.REQUEST_ID}, {c.USER_ID}, {c.ITEM_ID})
        where {c.EVENT_TYPE} = 'click' and {c.OCCURRED_AT} >= {c.SHOWN_AT}

    ),

    units as materialized (

        select
            {c.USER_ID},
            bool_or(model_version = %(candidate)s) as is_candidate,
            count(distinct model_version) > 1 as is_crossed,
            count(*) as impressions,
            count(clicked.{c.ITEM_ID}) as clicks,
            min({c.SHOWN_AT}) as exposed_at
        from shown
        left join clicked using ({c.REQUEST_ID}, {c.USER_ID}, {c.ITEM_ID})
        group by {c.USER_ID}

    ),

    busy as (

        select {c.USER_ID} from shown
        group by {c.USER_ID}, date_trunc('minute', {c.SHOWN_AT}, 'UTC')
        having count(distinct {c.REQUEST_ID}) > %(most_requests)s
        union
        select {c.USER_ID} from done
        where {c.EVENT_TYPE} = 'click'
        group by {c.USER_ID}, date_trunc('minute', {c.OCCURRED_AT}, 'UTC')
        having count(*) > %(most_clicks)s

    ),

    prices as (

        select {c.ITEM_ID}, max(price) as price from {RAW_ITEMS}
        where {c.ITEM_ID} in (select {c.ITEM_ID} from done where {c.EVENT_TYPE} = 'purchase')
        group by {c.ITEM_ID}

    ),

    bought as (

        select units.{c.USER_ID}, sum(price) as revenue
        from done
        inner join units using ({c.USER_ID})
        inner join prices using ({c.ITEM_ID})
        where {c.EVENT_TYPE} = 'purchase' and {c.OCCURRED_AT} >= exposed_at
        group by units.{c.USER_ID}

    )

    select
        is_candidate,
        is_crossed,
        busy.{c.USER_ID} is not null as is_bot,
        impressions::float8 as impressions,
        clicks::float8 as clicks,
        coalesce(revenue, 0)::float8 as revenue
    from units
    left join bought using ({c.USER_ID})
    left join busy using ({c.USER_ID})
    order by {c.USER_ID}
"""
