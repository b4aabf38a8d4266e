"""The raw door: what a source landed in this interval's partition, before anything is built on it.

Judged are the rows of the partition in the chosen domains or in a domain that we do not know. Events from the log are
judged one by one at their own door (recsys/schemas.py).
"""

from great_expectations import expectations as gxe

from expectations.suite import Batch, expect, literals
from recsys import artifacts
from recsys.columns import DOMAIN, DOMAINS, EVENT_TYPE, EVENT_TYPES, ITEM_ID, OCCURRED_AT, RATING, TITLE, USER_ID
from recsys.interval import Interval

NAMESPACED = r"^[a-z0-9][a-z0-9_.-]*:."
MAX_ID_LENGTH = 256


def batches(interval: Interval) -> list[Batch]:
    """Return the batches of this door with their expectations."""
    landed = (
        f"landed_partition = '{interval.partition}' and source <> 'stream'"
        f" and (domain in {literals(interval.domains)} or domain not in {literals(DOMAINS)})"
    )
    # A day without events is odd; a history without any is unusable.
    emptiness = "warn" if interval.since else "fail"

    interactions = Batch(
        "interactions",
        f"select user_id, item_id, rating, occurred_at, domain, event_type from {artifacts.RAW_INTERACTIONS}"
        f" where {landed}",
        (
            expect(emptiness, "some_rows", gxe.ExpectTableRowCountToBeBetween, min_value=1),
            expect("fail", "domain_is_known", gxe.ExpectColumnValuesToBeInSet, column=DOMAIN, value_set=[*DOMAINS]),
            expect(
                "fail", "event_type_is_known", gxe.ExpectColumnValuesToBeInSet,
                column=EVENT_TYPE, value_set=[*EVENT_TYPES],
            ),
            expect(
                "fail", "rating_in_scale", gxe.ExpectColumnValuesToBeBetween, column=RATING, min_value=0, max_value=5
            ),
            expect(
                "fail", "before_as_of", gxe.ExpectColumnValuesToBeBetween,
                column=OCCURRED_AT, max_value=interval.end.isoformat(), strict_max=True,
            ),
            expect(
                "fail", "user_is_named", gxe.ExpectColumnValueLengthsToBeBetween,
                column=USER_ID, min_value=1, max_value=MAX_ID_LENGTH,
            ),
            expect(
                "fail", "item_is_named", gxe.ExpectColumnValueLengthsToBeBetween,
                column=ITEM_ID, min_value=1, max_value=MAX_ID_LENGTH,
            ),
            expect("warn", "user_has_namespace", gxe.ExpectColumnValuesToMatchRegex, column=USER_ID, regex=NAMESPACED),
            expect("warn", "item_has_namespace", gxe.ExpectColumnValuesToMatchRegex, column=ITEM_ID, regex=NAMESPACED),
        ),
    )  # fmt: skip

    references = Batch(
        "references",
        f"select items.item_id is not null as is_item_known from {artifacts.RAW_INTERACTIONS} as interactions"
        f" left join (select distinct item_id from {artifacts.RAW_ITEMS}) as items using (item_id) where {landed}",
        (
            expect(
                "fail", "half_of_the_items_known", gxe.ExpectColumnValuesToBeInSet,
                column="is_item_known", value_set=[True], mostly=0.5,
            ),
            expect(
                "warn", "all_items_known", gxe.ExpectColumnValuesToBeInSet, column="is_item_known", value_set=[True]
            ),
        ),
    )  # fmt: skip

    items = Batch(
        "items",
        f"select item_id, domain, title, price, published_year from {artifacts.RAW_ITEMS} where {landed}",
        (
            expect("fail", "domain_is_known", gxe.ExpectColumnValuesToBeInSet, column=DOMAIN, value_set=[*DOMAINS]),
            expect("fail", "item_has_title", gxe.ExpectColumnValueLengthsToBeBetween, column=TITLE, min_value=1),
            expect("warn", "price_not_negative", gxe.ExpectColumnValuesToBeBetween, column="price", min_value=0),
            expect(
                "warn", "year_is_plausible", gxe.ExpectColumnValuesToBeBetween,
                column="published_year", min_value=-3000, max_value=interval.as_of.year + 2,
            ),
        ),
    )  # fmt: skip

    landing = Batch(
        "landing",
        f"""
        select coalesce(refused::double precision / nullif(refused + landed, 0), 0) as refused_share
        from (select
            (select count(*) from {artifacts.RAW_QUARANTINE}
                where landed_partition = '{interval.partition}' and table_name = 'interactions') as refused,
            (select count(*) from {artifacts.RAW_INTERACTIONS}
                where landed_partition = '{interval.partition}' and source <> 'stream') as landed
        ) as counts
        """,
        (
            expect(
                "fail", "most_rows_accepted", gxe.ExpectColumnMaxToBeBetween, column="refused_share", max_value=0.5
            ),
            expect(
                "warn", "nearly_all_rows_accepted", gxe.ExpectColumnMaxToBeBetween,
                column="refused_share", max_value=0.01,
            ),
        ),
    )  # fmt: skip

    return [interactions, references, items, landing]
