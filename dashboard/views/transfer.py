"""Transfer: how the domains' users overlap, and whether what is known of them in one helps in another."""

import pandas as pd
import streamlit as st

from dashboard import maps, marts
from dashboard.figures import chart, figure
from recsys import artifacts

CARRIES, HINTS = 0.3, 0.1
VALUES = {
    "taste_association": ("Taste that carries over", "Cramér's V of the favourite categories", ".2f"),
    "share_of_source": ("Users who are also there", "share of the row's users", ".0%"),
    "activity_cosine": ("Similarity of the domains", "cosine of the users' activity", ".2f"),
}


def verdict(association: float | None) -> str:
    """Return in words what the association of tastes says about a pair."""
    if pd.isna(association):
        return "cannot be told: fewer than 30 users to compare"
    if association >= CARRIES:
        return "✓ taste carries over"
    return "~ a hint" if association >= HINTS else "✕ taste does not carry over"


def draw_overlap(rows: pd.DataFrame) -> pd.DataFrame:
    chosen = st.segmented_control(
        "Map", list(VALUES), default="taste_association", required=True, key="map", bind="query-params",
        format_func=lambda name: VALUES[name][0],
    )  # fmt: skip
    title, meaning, form = VALUES[chosen]
    st.caption(f"From the row's domain to the column's: {meaning}. As of {rows['as_of'].iloc[0]}")
    chart(maps.square(rows, chosen, meaning, form), f"{title}, for each pair of domains")
    told = rows.assign(verdict=rows["taste_association"].map(verdict))
    st.dataframe(
        told[["source_domain", "target_domain", "verdict", "taste_association", "users", "share_of_source", "jaccard",
              "activity_cosine"]],
        hide_index=True,
        column_config={
            "source_domain": "from", "target_domain": "to", "users": "in both",
            "share_of_source": st.column_config.NumberColumn("of the first", format="percent"),
            **{name: st.column_config.NumberColumn(format="%.2f")
               for name in ("taste_association", "jaccard", "activity_cosine")},
        },
    )  # fmt: skip
    return told


figure(
    "From domain to domain", artifacts.DOMAIN_OVERLAP, marts.domain_overlap, draw_overlap,
    "Fewer than two domains have users, or the task `analyse_overlap` has not run.",
)  # fmt: skip
