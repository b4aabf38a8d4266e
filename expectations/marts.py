"""The marts door: what dbt built, judged by plausibility. Keys, relationships and conservation are dbt's own tests."""

from datetime import timedelta

from great_expectations import expectations as gxe

from expectations.suite import Batch, expect
from recsys import artifacts
from recsys.columns import OCCURRED_AT, RATING, TITLE
from recsys.interval import Interval

FRESH = timedelta(days=2)

MADE_UP = "synthetic:"
"""With this, ids of etl's made-up worlds begin."""


def batches(interval: Interval) -> list[Batch]:
    """Return the batches of this door with their expectations."""
    interactions = Batch(
        "fct_interactions",
        f"select rating, occurred_at, items.is_available from {artifacts.FCT_INTERACTIONS}"
        f" left join {artifacts.DIM_ITEMS} as items using (item_id)",
        (
            expect("fail", "some_rows", gxe.ExpectTableRowCountToBeBetween, min_value=1),
            expect(
                "fail", "rating_in_scale", gxe.ExpectColumnValuesToBeBetween, column=RATING, min_value=0, max_value=5
            ),
            expect(
                "fail", "before_as_of", gxe.ExpectColumnValuesToBeBetween,
                column=OCCURRED_AT, max_value=interval.end.isoformat(), strict_max=True,
            ),
            expect(
                "fail", "half_on_available_items", gxe.ExpectColumnValuesToBeInSet,
                column="is_available", value_set=[True], mostly=0.5,
            ),
            expect(
                "warn", "all_on_available_items", gxe.ExpectColumnValuesToBeInSet,
                column="is_available", value_set=[True],
            ),
        ),
    )  # fmt: skip

    items = Batch(
        "dim_items",
        f"select title, cardinality(categories) as categories, interaction_count from {artifacts.DIM_ITEMS}",
        (
            expect("fail", "some_rows", gxe.ExpectTableRowCountToBeBetween, min_value=1),
            expect("fail", "item_has_title", gxe.ExpectColumnValueLengthsToBeBetween, column=TITLE, min_value=1),
            expect(
                "warn", "most_items_have_categories", gxe.ExpectColumnValuesToBeBetween,
                column="categories", min_value=1, mostly=0.9,
            ),
            expect(
                "warn", "half_of_the_items_used", gxe.ExpectColumnValuesToBeBetween,
                column="interaction_count", min_value=1, mostly=0.5,
            ),
        ),
    )  # fmt: skip

    users = Batch(
        "dim_users",
        "select interaction_count,"
        " interaction_count / nullif(sum(interaction_count) over (), 0)::double precision as share_of_all"
        f" from {artifacts.DIM_USERS}",
        (
            expect("fail", "some_rows", gxe.ExpectTableRowCountToBeBetween, min_value=1),
            expect(
                "warn", "half_of_the_users_return", gxe.ExpectColumnValuesToBeBetween,
                column="interaction_count", min_value=2, mostly=0.5,
            ),
            expect(
                "warn", "no_user_dominates", gxe.ExpectColumnMaxToBeBetween, column="share_of_all", max_value=0.05
            ),
        ),
    )  # fmt: skip

    engagement = Batch(
        "agg_daily_engagement",
        f"select activity_date::timestamp as activity_date from {artifacts.AGG_DAILY_ENGAGEMENT}",
        (
            expect(
                "warn", "fresh", gxe.ExpectColumnMaxToBeBetween,
                column="activity_date", min_value=(interval.as_of - FRESH).isoformat(),
            ),
        ),
    )  # fmt: skip

    impressions = Batch(
        "fct_impressions",
        f"select rank, propensity, early_clicks = 0 as is_clicked_after_shown from {artifacts.FCT_IMPRESSIONS}",
        (
            expect("fail", "rank_from_one", gxe.ExpectColumnValuesToBeBetween, column="rank", min_value=1),
            expect(
                "fail", "propensity_is_probability", gxe.ExpectColumnValuesToBeBetween,
                column="propensity", min_value=0, strict_min=True, max_value=1,
            ),
            expect(
                "warn", "clicked_after_shown", gxe.ExpectColumnValuesToBeInSet,
                column="is_clicked_after_shown", value_set=[True],
            ),
        ),
    )  # fmt: skip

    # Made-up users and items say so in their ids, in every table, those of the log included. Beside real ones in a
    # domain they are never silent: etl refuses the files; what came through the log shows here.
    made_up = Batch(
        "made_up_rows",
        f"""
        select domain, bool_or(is_made_up) and not bool_and(is_made_up) as is_mixed
        from (
            select unnest(domains) as domain, starts_with(user_id, '{MADE_UP}') as is_made_up
            from {artifacts.DIM_USERS} where interaction_count > 0
            union all
            select domain, starts_with(item_id, '{MADE_UP}') from {artifacts.DIM_ITEMS} where interaction_count > 0
            union all
            select domain, starts_with(user_id, '{MADE_UP}') from {artifacts.FCT_IMPRESSIONS}
        ) as rows_of_domains
        group by domain
        """,
        (
            expect(
                "warn", "made_up_rows_stand_alone", gxe.ExpectColumnValuesToBeInSet,
                column="is_mixed", value_set=[False],
            ),
        ),
    )  # fmt: skip

    return [interactions, items, users, engagement, impressions, made_up]
