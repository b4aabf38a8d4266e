"""Data: what the checks at the doors have said last, failures first; drift and freshness over the days."""

import pandas as pd
import streamlit as st

from dashboard import charts, judgements
from dashboard.figures import chart, figure
from recsys import artifacts
from recsys.columns import DOMAINS

VERDICTS = {"fail": "✕ fail", "warn": "▲ warn", "pass": "✓ pass"}
MOST_ROWS = 2_000
EVERYTHING = "everything"


def draw_outcomes(outcomes: pd.DataFrame) -> pd.DataFrame:
    failed = outcomes[outcomes["verdict"] == "fail"]
    if failed.empty:
        st.success("No check failed.", icon=":material/check_circle:")
    else:
        st.error(f"Failed: {', '.join(sorted((failed['station'] + ' · ' + failed['check_name']).unique()))}")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        verdicts = st.pills(
            "Verdicts", list(VERDICTS), selection_mode="multi", default=list(VERDICTS), key="verdicts",
            format_func=VERDICTS.__getitem__, bind="query-params",
        )  # fmt: skip
        stations = st.pills(
            "Stations", sorted(outcomes["station"].unique()), selection_mode="multi", key="stations",
            bind="query-params", help="none chosen: all",
        )  # fmt: skip
        about = st.selectbox(
            "About", [EVERYTHING, *DOMAINS], key="about", bind="query-params", width=200,
            help="a domain: judgements whose subject names it",
        )  # fmt: skip
    wanted = outcomes["verdict"].isin(verdicts)
    if stations:
        wanted &= outcomes["station"].isin(stations)
    if about != EVERYTHING:
        wanted &= outcomes["subject"].str.contains(about, regex=False)
    shown = outcomes[wanted]
    st.caption(f"{len(shown):,} of {len(outcomes):,} latest judgements" + _cut_off(shown))
    st.dataframe(
        shown.head(MOST_ROWS)[
            ["verdict", "station", "check_name", "subject", "observed", "expected", "outcome_date"]
        ].assign(verdict=shown["verdict"].map(VERDICTS)),
        hide_index=True,
        height=560,
        column_config={
            "check_name": "check",
            "outcome_date": st.column_config.DateColumn("judged on"),
            "observed": st.column_config.TextColumn(width="medium"),
        },
    )
    return shown


def _cut_off(rows: pd.DataFrame) -> str:
    return f"; the first {MOST_ROWS:,} are here, all of them in the CSV" if len(rows) > MOST_ROWS else ""


def draw_days(rows: pd.DataFrame) -> pd.DataFrame:
    st.caption("Judgements of each day, the experiments' left out")
    chart(charts.verdicts(rows), "Number of judgements by day and verdict")
    return rows


def draw_watched(rows: pd.DataFrame) -> pd.DataFrame:
    checks = list(rows["check_name"].unique())
    check = st.selectbox("Check", checks, key="check", bind="query-params", width=280)
    shown = rows[rows["check_name"] == check]
    chart(charts.verdict_map(shown), f"Verdict of {check} for each subject and day")
    st.dataframe(
        shown[shown["outcome_date"] == shown["outcome_date"].max()], hide_index=True,
        column_config={"outcome_date": st.column_config.DateColumn("judged on"), "check_name": None},
    )  # fmt: skip
    return shown


figure("Judgements at the doors", artifacts.OUTCOMES, judgements.outcomes, draw_outcomes, "No check has run yet.")
figure("Quality day by day", artifacts.OUTCOMES, judgements.judgements_by_day, draw_days, "No check has run yet.")
figure(
    "Drift and freshness", artifacts.OUTCOMES, judgements.watched, draw_watched,
    "Nothing was watched yet: `check_drift` and `check_freshness` do it.",
)  # fmt: skip
