"""Transfer: how the domains' users overlap, and whether what is known of them in one helps in another."""

import pandas as pd
import streamlit as st

from dashboard import maps, marts
from dashboard.figures import chart, figure
from recsys import artifacts

VALUES = {
    "taste_association": ("Taste that carries over", "Cramér's V of the favourite categories", ".2f"),
    "share_of_source": ("Users who are also there", "share of the row's users", ".0%"),
    "activity_cosine": ("Similarity of the domains", "cosine of the users' activity", ".2f"),
}


BUCKETS = {
    "all": "everybody", "0": "users new in the target", "1_to_5": "1 to 5 interactions there",
    "6_to_20": "6 to 20 interactions there", "over_20": "more than 20 interactions there",
}  # fmt: skip
MARKS = {"helps": "✓ helps", "harmless": "= harmless", "undecided": "… undecided", "negative transfer": "✕ negative"}


def draw_verdicts(rows: pd.DataFrame) -> pd.DataFrame:
    bucket = st.selectbox(
        "Users", [name for name in BUCKETS if name in set(rows["bucket"])], format_func=BUCKETS.get, key="bucket",
        bind="query-params", width=320,
    )  # fmt: skip
    shown = rows[rows["bucket"] == bucket]
    what = shown["source_domain"] + " → " + shown["target_domain"]
    if shown["target_share"].nunique() > 1:
        what += shown["target_share"].map(lambda share: f", {share:.0%} of its events")
    told = shown.assign(what=what)
    st.caption(
        f"What learning from the source too changes in the target's ndcg@10, with 95 % intervals over its users. As of "
        f"{rows['as_of'].max()}"
    )
    chart(maps.verdicts(told), "Change in quality by transfer, for each pair of domains")
    st.dataframe(
        told.assign(verdict=told["verdict"].map(MARKS))[
            ["what", "verdict", "alone", "transferred", "difference", "low", "high", "users", "embedding_similarity"]
        ],
        hide_index=True, column_config={"what": "from → to", "embedding_similarity": "similarity of embeddings"},
    )  # fmt: skip
    return told


def draw_map(rows: pd.DataFrame) -> pd.DataFrame:
    st.caption("Items of all domains: neighbours are alike in the vectors that the domains share")
    chart(maps.items(rows), "Items of all domains on one map")
    return rows


def draw_overlap(rows: pd.DataFrame) -> pd.DataFrame:
    chosen = st.segmented_control(
        "Map", list(VALUES), default="taste_association", required=True, key="map", bind="query-params",
        format_func=lambda name: VALUES[name][0],
    )  # fmt: skip
    title, meaning, form = VALUES[chosen]
    st.caption(f"From the row's domain to the column's: {meaning}. As of {rows['as_of'].iloc[0]}")
    chart(maps.square(rows, chosen, meaning, form), f"{title}, for each pair of domains")
    st.dataframe(
        rows[["source_domain", "target_domain", "taste_association", "users", "share_of_source", "jaccard",
              "activity_cosine"]],
        hide_index=True,
        column_config={
            "source_domain": "from", "target_domain": "to", "users": "in both",
            "share_of_source": st.column_config.NumberColumn("of the first", format="percent"),
            **{name: st.column_config.NumberColumn(format="%.2f")
               for name in ("taste_association", "jaccard", "activity_cosine")},
        },
    )  # fmt: skip
    return rows


figure(
    "Does it help?", artifacts.TRANSFER_VERDICTS, marts.transfer_verdicts, draw_verdicts,
    "No transfer has been judged yet: it takes two domains with users in common.",
)  # fmt: skip
figure(
    "Where items meet", artifacts.TRANSFER_MAP, marts.transfer_map, draw_map,
    "No map yet: it takes two domains whose items have vectors in common.",
)  # fmt: skip
figure(
    "From domain to domain", artifacts.DOMAIN_OVERLAP, marts.domain_overlap, draw_overlap,
    "Fewer than two domains have users, or the task `analyse_overlap` has not run.",
)  # fmt: skip
