"""Overview: what happened lately in a domain, how far recommendations led, and whether all is well."""

import pandas as pd
import streamlit as st

from dashboard import charts, filters, marts
from dashboard.figures import at_hand, chart, figure
from recsys import artifacts
from recsys.columns import DOMAIN

HEADLINES = {
    "interactions": ("Interactions", "{:,.0f}"),
    "active_users": ("Active users", "{:,.0f}"),
    "new_users": ("New users", "{:,.0f}"),
    "click_through_rate": ("Click-through rate", "{:.2%}"),
}
WITHOUT_VALUE = {"Click-through rate": "No recommendation has been shown here yet."}
TREND_DAYS = 28


def draw_headlines(rows: pd.DataFrame) -> None:
    told = rows.set_index("headline")
    days = at_hand(marts.daily_engagement)
    trend = days[days[DOMAIN] == rows[DOMAIN].iloc[0]].tail(TREND_DAYS)
    latest = told["latest_date"].max()
    st.caption(f"28 days up to {latest:%d %B %Y} (UTC), against the 28 before")
    with st.container(horizontal=True):
        for name, (label, form) in HEADLINES.items():
            with st.container(border=True, width=250, height="stretch"):
                _headline(label, form, told.loc[name] if name in told.index else None)
                if name in trend and trend[name].count() > 1:
                    st.altair_chart(charts.spark(trend, "activity_date", name), alt=f"{label} by day", width="stretch")


def _headline(label: str, form: str, row: pd.Series | None) -> None:
    if row is None or pd.isna(row["value"]):
        st.metric(label, "—", help=WITHOUT_VALUE.get(label))
        return
    has_change = not pd.isna(row["change"])
    st.metric(
        label,
        form.format(row["value"]),
        f"{row['change']:+.1%}" if has_change else None,
        delta_description=f"from {form.format(row['value_before'])}" if has_change else None,
    )


def draw_engagement(rows: pd.DataFrame) -> pd.DataFrame:
    shown = rows[rows["activity_date"] > rows["activity_date"].max() - pd.Timedelta(days=filters.days())]
    names = {"interactions": "interactions", "active_users": "active users", "new_users": "new users"}
    chart(
        charts.lines(shown, "activity_date", names),
        "Interactions, active users and new users by day",
    )
    return shown


def draw_funnel(rows: pd.DataFrame) -> pd.DataFrame | None:
    shown = rows[rows["window_days"] == filters.days()]
    steps = {"users": "were shown a list", "users_clicked": "clicked", "users_converted": "bought, rated or shared it"}
    told = shown.rename(columns=steps).melt("variant", list(steps.values()), "step", "users")
    chart(charts.funnel(told, list(steps.values())), "Users by how far a recommendation led them, for each variant")
    return shown


def draw_health(rows: pd.DataFrame) -> pd.DataFrame:
    trouble = rows[rows["verdict"] != "pass"]
    if trouble.empty:
        st.success("Every latest judgement passed.", icon=":material/check_circle:")
        return rows
    icons = {"fail": ":material/error: fail", "warn": ":material/warning: warn"}
    for row in trouble.head(8).itertuples():
        st.markdown(
            f"{icons[row.verdict]} · **{row.station}** {row.check_name}"
            f"{' ' + charts.plain(row.subject) if row.subject else ''} · {charts.plain(row.observed)}"
        )
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
