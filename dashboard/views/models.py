"""Models: every model on the same users beside the popularity baseline, what an answer costs, and how it was."""

import pandas as pd
import streamlit as st

from dashboard import charts, marts
from dashboard.figures import chart, figure
from recsys import artifacts

RANKING_METRIC, COST = "ndcg_at_10", "inference_p50_ms"


def draw_models(quality: pd.DataFrame) -> pd.DataFrame:
    with st.container(horizontal=True):
        cut = st.selectbox("Data cut", list(quality["cut_id"].unique()), key="cut", bind="query-params", width=320)
        rows = quality[quality["cut_id"] == cut]
        metrics = list(rows["metric"].unique())
        metric = st.selectbox(
            "Metric", metrics, index=metrics.index(RANKING_METRIC) if RANKING_METRIC in metrics else 0, key="metric",
            bind="query-params", width=320,
        )  # fmt: skip
    ranked = rows[rows["metric"] == metric].sort_values("value", ascending=False)
    st.caption(f"As of {rows['as_of'].iloc[0]}; every model on the same users. Grey: the popularity baseline")
    chart(charts.bars(ranked, "value", "model", highlight=artifacts.BASELINE_MODEL), f"{metric} of each model")
    st.dataframe(
        ranked[["model", "value", "value_over_baseline"]],
        hide_index=True,
        column_config={
            "value": st.column_config.NumberColumn(metric, format="%.4f"),
            "value_over_baseline": st.column_config.NumberColumn("over the baseline", format="%.2f ×"),
        },
    )
    return ranked


def draw_frontier(quality: pd.DataFrame) -> pd.DataFrame | None:
    latest = quality[quality["cut_id"] == quality["cut_id"].iloc[0]]
    wide = latest.pivot(index="model", columns="metric", values="value").reset_index()
    if not {RANKING_METRIC, COST} <= set(wide):
        st.info(f"The latest cut has no {RANKING_METRIC} or no {COST}.")
        return None
    st.caption("Latest cut. Up and left is better: a better list for less time a request (median, one thread)")
    chart(charts.frontier(wide, RANKING_METRIC, COST), f"Models by {RANKING_METRIC} and {COST}")
    with st.expander("All metrics of the latest cut"):
        st.dataframe(wide, hide_index=True)
    return wide


def draw_history(quality: pd.DataFrame) -> pd.DataFrame:
    metric = st.session_state.get("metric", RANKING_METRIC)
    rows = quality[quality["metric"] == metric].sort_values("as_of")
    if rows["cut_id"].nunique() < 2:
        st.caption("One cut so far: a line needs two.")
    chart(charts.history(rows, metric), f"{metric} of each model from cut to cut")
    return rows


EMPTY = "No model has been evaluated yet."
figure("Offline quality", artifacts.AGG_MODEL_QUALITY, marts.model_quality, draw_models, EMPTY)
figure("Quality against cost", artifacts.AGG_MODEL_QUALITY, marts.model_quality, draw_frontier, EMPTY)
figure("From cut to cut", artifacts.AGG_MODEL_QUALITY, marts.model_quality, draw_history, EMPTY)
