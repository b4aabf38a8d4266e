"""The analysis door: what `analysis_v1` offers beyond the tables of the pipeline, built by `recsys_insight`.

Point-in-time truth is dbt's own test; here, shape, plausibility and coverage.
"""

from great_expectations import expectations as gxe

from expectations.suite import Batch, expect, literals
from recsys import artifacts
from recsys.columns import EVENT_TIMESTAMP
from recsys.interval import Interval

UNIT_SLACK = 1e-5
"""So far a vector's length may be from one."""
MOST_USED = 1_000
"""So many items of a domain, the most used, are to have a vector of their texts."""


def batches(interval: Interval) -> list[Batch]:
    """Return the batches of this door with their expectations."""
    end, domains = interval.end.isoformat(), literals(interval.domains)

    # Windows hold each other, the longer the shorter: judged by PostgreSQL, one row, as the table has very many.
    category_windows = Batch(
        artifacts.FEATURE_VIEW_USER_CATEGORY_WINDOWS,
        f"""
        select
            max({EVENT_TIMESTAMP}) as latest,
            count(*) filter (where category = '') as nameless,
            count(*) filter (where not (
                0 <= user_category_events_1d and user_category_events_1d <= user_category_events_7d
                and user_category_events_7d <= user_category_events_30d
                and user_category_events_30d <= user_category_events_90d
                and user_category_implicit_90d between 0 and user_category_events_90d
                and user_category_days_since_event >= 0
            )) as torn,
            count(*) filter (where user_category_recent_mean_rating not between 0 and 5) as off_scale,
            count(*) filter (where user_category_recent_mean_rating is null
                and user_category_implicit_90d < user_category_events_90d) as unrated
        from {artifacts.FEAT_USER_CATEGORY_WINDOWS}
        """,
        (
            expect("fail", "windows_known_by_as_of", gxe.ExpectColumnValuesToBeBetween, column="latest", max_value=end),
            expect("fail", "category_is_named", gxe.ExpectColumnValuesToBeInSet, column="nameless", value_set=[0]),
            expect("fail", "windows_hold_each_other", gxe.ExpectColumnValuesToBeInSet, column="torn", value_set=[0]),
            expect("fail", "mean_rating_in_scale", gxe.ExpectColumnValuesToBeInSet, column="off_scale", value_set=[0]),
            expect("fail", "rated_has_mean_rating", gxe.ExpectColumnValuesToBeInSet, column="unrated", value_set=[0]),
        ),
    )

    # Who used an item that has a category must have windows in one.
    category_coverage = Batch(
        "category_coverage",
        f"""
        select count(*) as users_without_windows
        from {artifacts.DIM_USERS} as users
        where
            users.interaction_count > 0
            and not exists (
                select from {artifacts.FEAT_USER_CATEGORY_WINDOWS} as windows where windows.user_id = users.user_id
            )
            and exists (
                select from {artifacts.FCT_INTERACTIONS} as events
                inner join {artifacts.DIM_ITEMS} as items using (item_id)
                where events.user_id = users.user_id and cardinality(items.categories) > 0
            )
        """,
        (
            expect(
                "fail", "every_user_of_categories_has_windows", gxe.ExpectColumnValuesToBeInSet,
                column="users_without_windows", value_set=[0],
            ),
        ),
    )  # fmt: skip

    # Nobody buys films that are only rated: a table without rows is sound.
    prices = Batch(
        artifacts.FEATURE_VIEW_ITEM_PRICES,
        f"""
        select
            prices.*,
            item_sold_total - lag(item_sold_total, 1, 0) over (partition by item_id order by {EVENT_TIMESTAMP}) as sold
        from {artifacts.FEAT_ITEM_PRICES} as prices
        """,
        (
            expect(
                "fail", "known_by_as_of", gxe.ExpectColumnValuesToBeBetween, column=EVENT_TIMESTAMP, max_value=end
            ),
            expect("fail", "price_not_negative", gxe.ExpectColumnValuesToBeBetween, column="item_price", min_value=0),
            expect(
                "fail", "mean_price_not_negative", gxe.ExpectColumnValuesToBeBetween,
                column="item_mean_price_90d", min_value=0,
            ),
            expect(
                "fail", "each_row_sells", gxe.ExpectColumnValuesToBeBetween,
                column="sold", min_value=0, strict_min=True,
            ),
            # Cents for units, another currency: a hundredfold on one day.
            expect(
                "warn", "price_near_its_mean", gxe.ExpectColumnValuesToBeBetween,
                column="item_price_to_mean", min_value=0.1, max_value=10, mostly=0.99,
            ),
        ),
    )  # fmt: skip

    of_domains = f"from {artifacts.ITEM_TEXTS} as texts where texts.domain in {domains}"
    texts = Batch(
        artifacts.FEATURE_VIEW_ITEM_TEXTS,
        f"""
        select
            texts.{EVENT_TIMESTAMP},
            texts.as_of::text as as_of,
            cardinality(item_text_vector) as size,
            (select sqrt(sum(number * number)) from unnest(item_text_vector) as number) as length,
            exists (select from {artifacts.DIM_ITEMS} as items where items.item_id = texts.item_id) as is_known
        {of_domains}
        """,
        (
            expect(
                "fail", "known_by_as_of", gxe.ExpectColumnValuesToBeBetween, column=EVENT_TIMESTAMP, max_value=end
            ),
            expect(
                "fail", "of_this_day", gxe.ExpectColumnValuesToBeInSet,
                column="as_of", value_set=[interval.as_of.isoformat()],
            ),
            expect(
                "fail", "vector_has_its_size", gxe.ExpectColumnValuesToBeInSet,
                column="size", value_set=[artifacts.ITEM_TEXT_SIZE],
            ),
            # PostgreSQL puts NaN above every number: one in a vector shows here.
            expect(
                "fail", "vector_is_of_unit_length_at_most", gxe.ExpectColumnValuesToBeBetween,
                column="length", min_value=0, max_value=1 + UNIT_SLACK,
            ),
            expect(
                "warn", "vector_says_something", gxe.ExpectColumnValuesToBeBetween,
                column="length", min_value=1 - UNIT_SLACK, mostly=0.9,
            ),
            expect("fail", "item_is_known", gxe.ExpectColumnValuesToBeInSet, column="is_known", value_set=[True]),
        ),
    )  # fmt: skip

    text_coverage = Batch(
        "text_coverage",
        f"""
        select exists (select {of_domains} and texts.item_id = most_used.item_id) as has_vector
        from (
            select item_id, row_number() over (partition by domain order by interaction_count desc, item_id) as place
            from {artifacts.DIM_ITEMS} where is_available and domain in {domains}
        ) as most_used
        where place <= {MOST_USED}
        """,
        (
            expect(
                "fail", "most_used_items_have_vectors", gxe.ExpectColumnValuesToBeInSet,
                column="has_vector", value_set=[True],
            ),
        ),
    )  # fmt: skip

    return [category_windows, category_coverage, prices, texts, text_coverage]
