"""Overview: what happened lately in a domain, how far recommendations led, and whether all is well."""

import pandas as pd
import streamlit as st

from dashboard import charts, filters, marts
from dashboard.figures import at_hand, figure
from recsys import artifacts
from recsys.columns import DOMAIN

HEADLINES = {
    "interactions": ("Interactions", "{:,.0f}"),
    "active_users": ("Active users", "{:,.0f}"),
    "new_users": ("New users", "{:,.0f}"),
    "click_through_rate": ("Click-through rate", "{:.2%}"),
}
TREND_DAYS = 28


def draw_headlines(rows: pd.DataFrame) -> None:
    told = rows.set_index("headline")
    days = at_hand(marts.daily_engagement)
    trend = days[days[DOMAIN] == rows[DOMAIN].iloc[0]].tail(TREND_DAYS)
    latest = told["latest_date"].max()
    st.caption(f"28 days up to {latest:%d %B %Y} (UTC), against the 28 before")
    with st.container(horizontal=True):
        for name, (label, form) in HEADLINES.items():
            if name not in told.index:
                st.metric(
                    label,
                    "—",
                    help="No recommendation has been shown here yet.",
                    border=True,
                    width=250,
                    height="stretch",
                )
                continue
            row = told.loc[name]
            st.metric(
                label,
                "—" if pd.isna(row["value"]) else form.format(row["value"]),
                None if pd.isna(row["change"]) else f"{row['change']:+.1%}",
                delta_description=None if pd.isna(row["change"]) else f"from {form.format(row['value_before'])}",
                chart_data=trend[name].tolist() if name in trend and len(trend) > 1 else None,
                chart_type="area",
                border=True,
                width=250,
                height="stretch",
            )


def draw_engagement(rows: pd.DataFrame) -> pd.DataFrame:
    shown = rows[rows["activity_date"] > rows["activity_date"].max() - pd.Timedelta(days=filters.days())]
    names = {"interactions": "interactions", "active_users": "active users", "new_users": "new users"}
    st.altair_chart(
        charts.lines(shown, "activity_date", names),
        alt="Interactions, active users and new users by day",
        width="stretch",
    )
    return shown


def draw_funnel(rows: pd.DataFrame) -> pd.DataFrame | None:
    shown = rows[rows["window_days"] == filters.days()]
    steps = {"users": "were shown a list", "users_clicked": "clicked", "users_converted": "bought, rated or shared it"}
    told = shown.rename(columns=steps).melt("variant", list(steps.values()), "step", "users")
    st.altair_chart(charts.funnel(told), alt="Users by how far a recommendation led them, for each variant")
    return shown


def draw_health(rows: pd.DataFrame) -> pd.DataFrame:
    trouble = rows[rows["verdict"] != "pass"]
    if trouble.empty:
        st.success("Every latest judgement passed.", icon=":material/check_circle:")
        return rows
    icons = {"fail": ":material/error: fail", "warn": ":material/warning: warn"}
    for row in trouble.head(8).itertuples():
        st.markdown(f"{icons[row.verdict]} · **{row.station}** {row.check_name} · {row.observed}")
    if len(trouble) > 8:
        st.caption(f"and {len(trouble) - 8} more: see Data")
    return trouble


figure(
    "Lately", artifacts.AGG_HEADLINES, marts.headlines, draw_headlines,
    "No interaction has reached the marts yet.", filters.domain(),
)  # fmt: skip
figure(
    "Engagement", artifacts.AGG_DAILY_ENGAGEMENT, marts.daily_engagement, draw_engagement,
    "No interaction has reached the marts yet.", filters.domain(),
)  # fmt: skip
figure(
    "How far recommendations led", artifacts.AGG_RECOMMENDATION_EFFECTIVENESS, marts.recommendation_effectiveness,
    draw_funnel, "No recommendation has been shown here yet.", filters.domain(),
)  # fmt: skip
figure("Health", artifacts.OUTCOMES, marts.outcomes, draw_health, "No check has run yet.")
