"""The features door: what Feast is about to offer. Point-in-time truth is dbt's own test; here, shape and coverage."""

from great_expectations import expectations as gxe

from expectations.suite import Batch, expect
from recsys import artifacts
from recsys.columns import EVENT_TIMESTAMP
from recsys.interval import Interval

WINDOWS = {artifacts.FEAT_USER_WINDOWS: "user", artifacts.FEAT_ITEM_WINDOWS: "item"}


def batches(interval: Interval) -> list[Batch]:
    """Return the batches of this door with their expectations."""
    end = interval.end.isoformat()

    user_activity = Batch(
        artifacts.FEATURE_VIEW_USER_ACTIVITY,
        f"select * from {artifacts.FEAT_USER_ACTIVITY}",
        (
            expect("fail", "some_rows", gxe.ExpectTableRowCountToBeBetween, min_value=1),
            expect(
                "fail", "known_by_as_of", gxe.ExpectColumnValuesToBeBetween, column=EVENT_TIMESTAMP, max_value=end
            ),
            expect(
                "fail", "active_once_at_least", gxe.ExpectColumnValuesToBeBetween,
                column="user_interactions_30d", min_value=1,
            ),
            expect(
                "fail", "total_covers_30_days", gxe.ExpectColumnPairValuesAToBeGreaterThanB,
                column_A="user_interactions_total", column_B="user_interactions_30d", or_equal=True,
            ),
            expect(
                "fail", "total_covers_items", gxe.ExpectColumnPairValuesAToBeGreaterThanB,
                column_A="user_interactions_total", column_B="user_distinct_items", or_equal=True,
            ),
            expect(
                "fail", "mean_rating_in_scale", gxe.ExpectColumnValuesToBeBetween,
                column="user_mean_rating", min_value=0, max_value=5,
            ),
            expect(
                "warn", "mean_rating_known", gxe.ExpectColumnValuesToNotBeNull, column="user_mean_rating", mostly=0.5
            ),
        ),
    )  # fmt: skip

    item_popularity = Batch(
        artifacts.FEATURE_VIEW_ITEM_POPULARITY,
        f"select * from {artifacts.FEAT_ITEM_POPULARITY}",
        (
            expect("fail", "some_rows", gxe.ExpectTableRowCountToBeBetween, min_value=1),
            expect(
                "fail", "known_at_as_of", gxe.ExpectColumnMaxToBeBetween,
                column=EVENT_TIMESTAMP, min_value=end, max_value=end,
            ),
            expect(
                "fail", "used_once_at_least", gxe.ExpectColumnValuesToBeBetween,
                column="item_interactions_total", min_value=1,
            ),
            expect(
                "fail", "total_covers_90_days", gxe.ExpectColumnPairValuesAToBeGreaterThanB,
                column_A="item_interactions_total", column_B="item_interactions_90d", or_equal=True,
            ),
            expect(
                "fail", "mean_rating_in_scale", gxe.ExpectColumnValuesToBeBetween,
                column="item_mean_rating", min_value=0, max_value=5,
            ),
            expect(
                "warn", "mean_rating_known", gxe.ExpectColumnValuesToNotBeNull, column="item_mean_rating", mostly=0.5
            ),
        ),
    )  # fmt: skip

    # Who is known must have features: one row per user with an event, and whether the view has them.
    coverage = Batch(
        "coverage",
        f"""
        select exists (
            select from {artifacts.FEAT_USER_ACTIVITY} as activity where activity.user_id = users.user_id
        ) as has_features
        from {artifacts.DIM_USERS} as users where users.interaction_count > 0
        """,
        (
            expect(
                "fail", "every_active_user_has_features", gxe.ExpectColumnValuesToBeInSet,
                column="has_features", value_set=[True],
            ),
        ),
    )  # fmt: skip

    # Windows hold each other, the longer the shorter: judged by PostgreSQL, a row a mart, as they have many rows.
    windows = Batch(
        "windows",
        " union all ".join(_windows(table, side) for table, side in WINDOWS.items()),
        (
            expect("fail", "some_windows", gxe.ExpectColumnValuesToBeBetween, column="row_count", min_value=1),
            expect("fail", "windows_hold_each_other", gxe.ExpectColumnValuesToBeInSet, column="torn", value_set=[0]),
            expect(
                "fail", "windows_known_by_as_of", gxe.ExpectColumnValuesToBeBetween, column="latest", max_value=end
            ),
        ),
    )  # fmt: skip

    return [user_activity, item_popularity, coverage, windows]


def _windows(table: str, side: str) -> str:
    return f"""
        select
            '{side}' as side,
            count(*) as row_count,
            max({EVENT_TIMESTAMP}) as latest,
            count(*) filter (where not (
                0 <= {side}_events_1d and {side}_events_1d <= {side}_events_7d
                and {side}_events_7d <= {side}_events_30d and {side}_events_30d <= {side}_events_90d
                and {side}_implicit_90d between 0 and {side}_events_90d and {side}_days_since_event >= 0
            )) as torn
        from {table}
    """
