"""Data: what the checks at the doors have said last, failures first."""

import pandas as pd
import streamlit as st

from dashboard import marts
from dashboard.figures import figure
from recsys import artifacts

VERDICTS = {"fail": "✕ fail", "warn": "▲ warn", "pass": "✓ pass"}


def draw_outcomes(outcomes: pd.DataFrame) -> pd.DataFrame:
    failed = outcomes[outcomes["verdict"] == "fail"]
    if failed.empty:
        st.success("No check failed.", icon=":material/check_circle:")
    else:
        st.error(f"Failed: {', '.join(sorted(failed['station'] + ' · ' + failed['check_name']))}")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        verdicts = st.pills(
            "Verdicts", list(VERDICTS), selection_mode="multi", default=list(VERDICTS), key="verdicts",
            format_func=VERDICTS.__getitem__, bind="query-params",
        )  # fmt: skip
        stations = st.pills(
            "Stations", sorted(outcomes["station"].unique()), selection_mode="multi", key="stations",
            bind="query-params", help="none chosen: all",
        )  # fmt: skip
    wanted = outcomes["verdict"].isin(verdicts)
    if stations:
        wanted &= outcomes["station"].isin(stations)
    shown = outcomes[wanted]
    st.caption(f"{len(shown)} of {len(outcomes)} latest judgements")
    st.dataframe(
        shown[["verdict", "station", "check_name", "subject", "observed", "expected", "outcome_date"]].assign(
            verdict=shown["verdict"].map(VERDICTS)
        ),
        hide_index=True,
        height=560,
        column_config={
            "check_name": "check",
            "outcome_date": st.column_config.DateColumn("judged on"),
            "observed": st.column_config.TextColumn(width="medium"),
        },
    )
    return shown


figure("Judgements at the doors", artifacts.OUTCOMES, marts.outcomes, draw_outcomes, "No check has run yet.")
