"""Experiments: what the variants' lists led to, how wide they reached, and what the experiment concludes."""

import pandas as pd
import streamlit as st

from dashboard import charts, filters, marts
from dashboard.figures import chart, figure
from recsys import artifacts

SHARE = st.column_config.NumberColumn
RATES = {"click_through_rate": "Click-through rate", "conversion_rate": "Conversion rate"}
REACH = {
    "coverage": SHARE("coverage", format="percent", help="different items shown, of the domain's available ones"),
    "novelty_bits": SHARE("novelty, bits", format="%.2f", help="mean −log2 of the items' popularity: higher is rarer"),
    "popularity_rank": SHARE("popularity rank", format="%.3f", help="0: least popular, 1: most, 0.5: drawn blindly"),
    "items_shown": SHARE("items shown", format="localized"),
    "users": SHARE("users", format="localized"),
    "impressions": SHARE("impressions", format="localized"),
}


def draw_conclusions(rows: pd.DataFrame) -> pd.DataFrame:
    told = rows[rows["station"] == "experiments"]
    if told.empty:
        st.info("The experiment has not been read yet: the task `analyse_experiments` does it.")
    for text in told["conclusion"].dropna().unique():
        st.markdown(f"> {text}")
    ratio = told[told["check_name"] == "sample_ratio"]
    for row in ratio[ratio["verdict"] != "pass"].itertuples():
        st.error(f"Sample ratio: {row.observed}. Until this is explained no comparison of the variants counts.")
    st.dataframe(
        told[["check_name", "subject", "observed", "expected", "verdict", "outcome_date"]],
        hide_index=True,
        column_config={"check_name": "reading", "outcome_date": st.column_config.DateColumn("read on")},
    )
    return told


def draw_rates(rows: pd.DataFrame) -> pd.DataFrame:
    shown = rows[rows["window_days"] == filters.days()]
    first, last = shown["window_start_date"].iloc[0], shown["window_end_date"].iloc[0]
    st.caption(f"{first} to {last} (UTC); observed, not an estimate of an effect")
    with st.container(horizontal=True):
        for column, name in RATES.items():
            with st.container(width=420):
                st.markdown(f"**{name}**")
                chart(charts.bars(shown, column, "variant", ".2%"), f"{name} by variant")
    return shown


def draw_reach(rows: pd.DataFrame) -> pd.DataFrame:
    shown = rows[rows["window_days"] == filters.days()]
    st.dataframe(shown[["variant", *REACH]], hide_index=True, column_config=REACH)
    return shown


def draw_days(funnel: pd.DataFrame) -> pd.DataFrame:
    days = list(funnel["shown_date"].unique())
    day = st.selectbox("Day", days, key="day", bind="query-params", width=220)
    shown = funnel[funnel["shown_date"] == day]
    st.dataframe(
        shown,
        hide_index=True,
        column_config={"click_through_rate": st.column_config.NumberColumn("click-through rate", format="percent")},
    )
    return shown


EMPTY = "No recommendation has been shown here yet."
figure("Conclusion", artifacts.OUTCOMES, marts.outcomes, draw_conclusions, "The experiment has not been read yet.")
figure(
    "Clicks and conversions", artifacts.AGG_RECOMMENDATION_EFFECTIVENESS, marts.recommendation_effectiveness,
    draw_rates, EMPTY, filters.domain(),
)  # fmt: skip
figure(
    "How wide the lists reach", artifacts.AGG_RECOMMENDATION_EFFECTIVENESS, marts.recommendation_effectiveness,
    draw_reach, EMPTY, filters.domain(),
)  # fmt: skip
figure(
    "Day by day", artifacts.AGG_RECOMMENDATION_FUNNEL, marts.recommendation_funnel, draw_days, EMPTY, filters.domain()
)
