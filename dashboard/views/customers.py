"""Customers: which kinds there are and how they answer, who stays, what they will bring, what one visit looks like."""

import pandas as pd
import streamlit as st

from dashboard import charts, filters, maps, marts
from dashboard.figures import chart, figure
from recsys import artifacts

COHORTS_SHOWN = 24
MEASURES = {
    "click_through_rate": ("click-through rate", ".2%"), "diversity": ("diversity", ".3f"),
    "novelty_bits": ("novelty, bits", ".2f"), "serendipity": ("serendipity", ".4f"),
    "coverage": ("coverage", ".1%"), "popularity_bias": ("popularity bias", ".3f"),
}  # fmt: skip


def draw_segments(rows: pd.DataFrame) -> pd.DataFrame:
    latest = rows[rows["as_of"] == rows["as_of"].max()]
    first, chosen = latest.iloc[0], filters.segment()
    quality = (
        "too few or too similar users to tell kinds apart"
        if pd.isna(first["stability"])
        else f"silhouette {first['silhouette']:.2f}, agreement between halves {first['stability']:.2f}"
    )
    st.caption(
        f"As of {first['as_of']}: {first['segments']} segments beside newcomers; {quality}. Ids stay from day to day"
    )
    shown = latest if chosen is None else latest[latest["segment"] == chosen]
    chart(charts.bars(shown, "share", "segment", ".0%"), "Share of the users in each segment")
    for row in shown.itertuples():
        st.markdown(f"**{charts.plain(row.segment)}** · {charts.plain(row.description)}")
    if rows["as_of"].nunique() > 1:
        history = rows if chosen is None else rows[rows["segment"] == chosen]
        chart(charts.over_time(history, "as_of", "share", "segment", ".0%"), "Share of each segment from day to day")
    return shown


def draw_response(rows: pd.DataFrame) -> pd.DataFrame:
    measure = st.selectbox(
        "Measure", list(MEASURES), format_func=lambda name: MEASURES[name][0], key="measure", bind="query-params",
        width=280,
    )  # fmt: skip
    shown = rows[rows["measure"] == measure]
    if (chosen := filters.segment()) is not None:
        shown = shown[shown["segment"].isin([chosen, "everybody"])]
    if shown.empty:
        st.info("Nothing was shown to this segment that this can be measured on.")
        return shown
    st.caption("Latest 28 days of lists, with 95 % intervals over users; no interval for a single user or a count")
    chart(
        charts.intervals(shown, "segment", "variant", *MEASURES[measure]),
        f"{MEASURES[measure][0]} by segment and variant with intervals",
    )
    return shown


def draw_value(rows: pd.DataFrame) -> pd.DataFrame | None:
    if (chosen := filters.segment()) is not None:
        rows = rows[rows["segment"] == chosen]
    if rows[["value_before", "value_now"]].isna().all(axis=None):
        st.info("This domain states no prices, so there are purchases but no value.")
        return rows
    days = rows["holdout_days"].iloc[0]
    names = {
        "value_before": f"expected before the last {days} days", "value_observed": "came in them",
        "value_now": f"expected in the next {days} days",
    }  # fmt: skip
    st.caption("BG/NBD and Gamma–Gamma; fitted without the last days, which judge it, then on everything")
    chart(maps.before_and_after(rows, names), "Customer value of each segment: expected, observed and expected now")
    st.dataframe(rows.drop(columns="domain"), hide_index=True)
    return rows


def draw_calibration(rows: pd.DataFrame) -> pd.DataFrame:
    st.caption(
        f"The {rows['holdout_days'].iloc[0]} days that the fit did not see, {rows['customers'].sum():,} customers"
    )
    chart(maps.calibration(rows), "Purchases in the holdout, predicted and observed")
    return rows


def draw_retention(rows: pd.DataFrame) -> pd.DataFrame:
    as_share = st.toggle("As a share of the cohort", value=True, key="share", bind="query-params")
    latest = sorted(rows["cohort_month"].unique())[-COHORTS_SHOWN:]
    shown = rows[rows["cohort_month"].isin(latest)]
    st.caption(
        f"The latest {len(latest)} cohorts: users by the month of their first event, and how many were active later. "
        "Faint: fewer than 20 users, or a month that the data do not cover to its end"
    )
    chart(charts.retention(shown, as_share), "Retention of monthly cohorts by age in months")
    with st.expander("As a table"):
        st.dataframe(
            shown.pivot(index="cohort_month", columns="age_months", values="retention" if as_share else "active_users")
        )
    return shown


def draw_sessions(rows: pd.DataFrame) -> pd.DataFrame:
    shown = rows[rows["session_date"] > rows["session_date"].max() - pd.Timedelta(days=filters.days())]
    st.caption("A session: a user's events, each at most 30 minutes after the one before")
    names = {"sessions": "sessions", "median_events": "events, median", "median_minutes": "minutes, median"}
    chart(charts.lines(shown, "session_date", names), "Sessions by day, their median events and minutes")
    return shown


NOBODY = "Nobody has done anything in this domain yet."
figure(
    "Kinds of customers", artifacts.SEGMENT_PROFILES, marts.segment_profiles, draw_segments,
    "No segments of this domain yet: the task `analyse_segments` finds them.", filters.domain(),
)  # fmt: skip
figure(
    "How they answer to recommendations", artifacts.SEGMENT_EFFECTIVENESS, marts.segment_effectiveness, draw_response,
    "No recommendation has been shown here yet, or `analyse_effectiveness` has not run.", filters.domain(),
)  # fmt: skip
figure(
    "Customer value", artifacts.VALUE_BY_SEGMENT, marts.value_by_segment, draw_value,
    "No customer value of this domain: fewer than 20 customers came back to buy, or `analyse_value` has not run.",
    filters.domain(),
)  # fmt: skip
figure(
    "Is the value to be trusted?", artifacts.VALUE_CALIBRATION, marts.value_calibration, draw_calibration,
    "Nothing was held out in this domain: too few customers came back to buy.", filters.domain(),
)  # fmt: skip
figure("Retention", artifacts.AGG_COHORT_RETENTION, marts.cohort_retention, draw_retention, NOBODY, filters.domain())
figure("Sessions", artifacts.AGG_SESSIONS, marts.sessions, draw_sessions, NOBODY, filters.domain())
