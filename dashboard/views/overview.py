"""Overview: what happened lately in a domain, whether promises are kept, how far recommendations led, what is wrong."""

import pandas as pd
import streamlit as st

from dashboard import charts, filters, judgements, marts
from dashboard.figures import at_hand, chart, figure
from recsys import artifacts
from recsys.columns import DOMAIN

HEADLINES = {
    "click_through_rate": ("Click-through rate", "{:.2%}"),
    "conversion_rate": ("Conversion rate", "{:.2%}"),
    "revenue": ("Revenue", "{:,.0f}"),
    "interactions": ("Interactions", "{:,.0f}"),
    "active_users": ("Active users", "{:,.0f}"),
    "new_users": ("New users", "{:,.0f}"),
}
WITHOUT_VALUE = {
    "click_through_rate": "No recommendation has been shown here yet.",
    "conversion_rate": "No recommendation has been shown here yet.",
    "revenue": "This domain states no prices.",
}
TREND_DAYS = 28
WORST = 8


def draw_headlines(rows: pd.DataFrame) -> None:
    told, domain = rows.set_index("headline"), rows[DOMAIN].iloc[0]
    st.caption(f"28 days up to {told['latest_date'].max():%d %B %Y} (UTC), against the 28 before")
    trends = [
        _trend(marts.daily_engagement, "activity_date", domain),
        _trend(marts.daily_outcomes, "outcome_date", domain),
    ]
    with st.container(horizontal=True):
        for name, (label, form) in HEADLINES.items():
            with st.container(border=True, width=210, height="stretch"):
                _headline(name, label, form, told.loc[name] if name in told.index else None)
                trend = next((one for one in trends if name in one and one[name].count() > 1), None)
                if trend is not None:
                    st.altair_chart(charts.spark(trend, "day", name), alt=f"{label} by day", width="stretch")


def _trend(rows: marts.Read, day: str, domain: str) -> pd.DataFrame:
    days = at_hand(rows)
    return days[days[DOMAIN] == domain].tail(TREND_DAYS).rename(columns={day: "day"})


def _headline(name: str, label: str, form: str, row: pd.Series | None) -> None:
    if row is None or pd.isna(row["value"]):
        st.metric(label, "—", help=WITHOUT_VALUE.get(name, "Nothing to count yet."))
        return
    has_change = not pd.isna(row["change"])
    st.metric(
        label,
        form.format(row["value"]),
        f"{row['change']:+.1%}" if has_change else None,
        delta_description=f"from {form.format(row['value_before'])}" if has_change else None,
    )


def draw_levels(rows: pd.DataFrame) -> None:
    st.caption("28 days up to the latest one with anything to count. The budget is what the target allows to go wrong")
    with st.container(horizontal=True):
        for row in rows.itertuples():
            with st.container(border=True, width=300, height="stretch"):
                spent = row.budget_left < 0
                st.metric(
                    f"{row.objective} · target {row.target:.0%}",
                    f"{row.attained:.1%}",
                    "budget overspent" if spent else f"{row.budget_left:.0%} of the budget left",
                    delta_color="inverse" if spent else "normal",
                    delta_arrow="off",
                    help=f"{row.good:,} of {row.total:,} up to {row.latest_date}",
                )
                st.progress(min(max(row.budget_left, 0.0), 1.0), text="error budget left")


def draw_engagement(rows: pd.DataFrame) -> pd.DataFrame:
    shown = rows[rows["activity_date"] > rows["activity_date"].max() - pd.Timedelta(days=filters.days())]
    names = {"interactions": "interactions", "active_users": "active users", "new_users": "new users"}
    chart(charts.lines(shown, "activity_date", names), "Interactions, active users and new users by day")
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
    for row in trouble.head(WORST).itertuples():
        st.markdown(
            f"{icons[row.verdict]} · **{row.station}** {row.check_name}"
            f"{' ' + charts.plain(row.subject) if row.subject else ''} · {charts.plain(row.observed)}"
        )
    if len(trouble) > WORST:
        st.caption(f"and {len(trouble) - WORST} more: see Data")
    return trouble


figure(
    "Lately", artifacts.AGG_HEADLINES, marts.headlines, draw_headlines,
    "No interaction has reached the marts yet.", filters.domain(),
)  # fmt: skip
figure(
    "Promises", artifacts.AGG_SERVICE_LEVELS, marts.service_levels, draw_levels,
    "Nothing to count yet: no run has ended, nothing was judged, no answer was given.",
)  # fmt: skip
figure(
    "Engagement", artifacts.AGG_DAILY_ENGAGEMENT, marts.daily_engagement, draw_engagement,
    "No interaction has reached the marts yet.", filters.domain(),
)  # fmt: skip
figure(
    "How far recommendations led", artifacts.AGG_RECOMMENDATION_EFFECTIVENESS, marts.recommendation_effectiveness,
    draw_funnel, "No recommendation has been shown here yet.", filters.domain(),
)  # fmt: skip
figure("Health", artifacts.OUTCOMES, judgements.outcomes, draw_health, "No check has run yet.")
