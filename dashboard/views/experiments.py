"""Experiments: what each concludes and how its intervals have moved, what lists led to, how wide they reached."""

import pandas as pd
import streamlit as st

from dashboard import charts, filters, judgements, marts
from dashboard.figures import at_hand, chart, figure
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
DECISIONS = {
    "better": "✓ better: roll it out", "worse": "✕ worse: drop it", "stopped": "■ stopped by a guardrail",
    "do not read": "▲ do not read", "go on": "… go on", None: "…",
}  # fmt: skip


def draw_conclusions(rows: pd.DataFrame) -> pd.DataFrame:
    mine = rows[rows["experiment"] == chosen]
    st.markdown(f"**{charts.plain(mine['question'].iloc[0])}**")
    for row in mine.itertuples():
        st.markdown(f"**{charts.plain(row.variant)}** · {DECISIONS.get(row.decision, '…')}")
        st.markdown(f"> {charts.plain(row.told)}")
    if rows["experiment"].nunique() > 1:
        with st.expander(f"All {rows['experiment'].nunique():,} experiments"):
            st.dataframe(
                rows.assign(decision=rows["decision"].map(DECISIONS))[
                    ["experiment", "variant", "decision", "told", "outcome_date"]
                ],
                hide_index=True,
                column_config={"told": "conclusion", "outcome_date": st.column_config.DateColumn("read on")},
            )
    return mine


def draw_intervals(rows: pd.DataFrame) -> pd.DataFrame:
    metrics = list(rows["metric"].unique())
    metric = st.selectbox("Metric", metrics, key="lift_of", bind="query-params", width=280)
    shown = rows[rows["metric"] == metric]
    if shown["lift"].isna().all():
        st.info("No difference could be estimated yet: too few users, or nothing to divide by.")
        return shown
    st.caption("Lift over the control with its 95 % interval, valid at any look; the dashed line is no difference")
    chart(
        charts.lifts(shown.dropna(subset=["lift"])), f"Lift in {metric} of each variant over the days, with intervals"
    )
    return shown


def draw_checks(rows: pd.DataFrame) -> pd.DataFrame:
    for row in rows[(rows["check_name"] == "sample_ratio") & (rows["verdict"] != "pass")].itertuples():
        st.error(
            f"Sample ratio: {charts.plain(row.observed)}. Until this is explained no comparison of the variants counts."
        )
    st.dataframe(
        rows, hide_index=True,
        column_config={"check_name": "check", "outcome_date": st.column_config.DateColumn("read on")},
    )  # fmt: skip
    return rows


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


def draw_revenue(rows: pd.DataFrame) -> pd.DataFrame:
    if rows["revenue"].isna().all():
        st.info("This domain states no prices: nothing can be attributed.")
        return rows
    st.caption(
        "Last touch: bought within 7 days of a click on the recommendation. Incremental: over what users of the "
        "control brought, for as many users; users who saw two variants are left out"
    )
    money = SHARE(format="localized")
    st.dataframe(
        rows.drop(columns="domain"), hide_index=True,
        column_config={name: money for name in ("revenue", "revenue_last_touch", "revenue_incremental")}
        | {"revenue_per_user": SHARE("a user", format="%.2f")},
    )  # fmt: skip
    return rows


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
UNREAD = "No experiment has been read yet: the task `analyse_experiments` does it."
known = at_hand(judgements.experiments)
names = list(dict.fromkeys(known["experiment"])) if len(known) else []
chosen = st.selectbox("Experiment", names, key="experiment", bind="query-params", width=420) if names else ""
figure("Conclusion", artifacts.OUTCOMES, judgements.experiments, draw_conclusions, UNREAD)
figure("Intervals over time", artifacts.OUTCOMES, judgements.experiment_lifts, draw_intervals, UNREAD, key=(chosen,))
figure("Can it be read?", artifacts.OUTCOMES, judgements.experiment_checks, draw_checks, UNREAD, key=(chosen,))
figure(
    "Clicks and conversions", artifacts.AGG_RECOMMENDATION_EFFECTIVENESS, marts.recommendation_effectiveness,
    draw_rates, EMPTY, filters.domain(),
)  # fmt: skip
figure("Revenue", artifacts.AGG_REVENUE_ATTRIBUTION, marts.revenue_attribution, draw_revenue, EMPTY, filters.domain())
figure(
    "How wide the lists reach", artifacts.AGG_RECOMMENDATION_EFFECTIVENESS, marts.recommendation_effectiveness,
    draw_reach, EMPTY, filters.domain(),
)  # fmt: skip
figure(
    "Day by day", artifacts.AGG_RECOMMENDATION_FUNNEL, marts.recommendation_funnel, draw_days, EMPTY, filters.domain()
)
