"""Customers: who stays, month after month, and what one visit looks like."""

import pandas as pd
import streamlit as st

from dashboard import charts, filters, marts
from dashboard.figures import figure
from recsys import artifacts

COHORTS_SHOWN = 24


def draw_retention(rows: pd.DataFrame) -> pd.DataFrame:
    as_share = st.toggle("As a share of the cohort", value=True, key="share", bind="query-params")
    latest = sorted(rows["cohort_month"].unique())[-COHORTS_SHOWN:]
    shown = rows[rows["cohort_month"].isin(latest)]
    st.caption(
        f"The latest {len(latest)} cohorts: users by the month of their first event, and how many were active later. "
        "Faint: fewer than 20 users, or a month that the data do not cover to its end"
    )
    st.altair_chart(charts.retention(shown, as_share), alt="Retention of monthly cohorts by age in months")
    with st.expander("As a table"):
        st.dataframe(
            shown.pivot(index="cohort_month", columns="age_months", values="retention" if as_share else "active_users")
        )
    return shown


def draw_sessions(rows: pd.DataFrame) -> pd.DataFrame:
    shown = rows[rows["session_date"] > rows["session_date"].max() - pd.Timedelta(days=filters.days())]
    st.caption("A session: a user's events, each at most 30 minutes after the one before")
    names = {"sessions": "sessions", "median_events": "events, median", "median_minutes": "minutes, median"}
    st.altair_chart(charts.lines(shown, "session_date", names), alt="Sessions by day, their median events and minutes")
    return shown


figure(
    "Retention", artifacts.AGG_COHORT_RETENTION, marts.cohort_retention, draw_retention,
    "Nobody has done anything in this domain yet.", filters.domain(),
)  # fmt: skip
figure(
    "Sessions", artifacts.AGG_SESSIONS, marts.sessions, draw_sessions,
    "Nobody has done anything in this domain yet.", filters.domain(),
)  # fmt: skip
