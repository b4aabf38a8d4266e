"""Models: every model on the same users beside the popularity baseline, what an answer costs, who was champion when."""

import pandas as pd
import streamlit as st

from dashboard import charts, judgements, marts
from dashboard.figures import chart, figure
from recsys import artifacts

RANKING_METRIC = "ndcg_at_10"


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


def draw_front(rows: pd.DataFrame) -> pd.DataFrame:
    latest = rows[rows["cut_id"] == rows["cut_id"].iloc[0]]
    st.caption(
        "Latest cut. Up and left is better: a better list for less time an answer (median, one thread). On the line: "
        "no other model is as good and as quick"
    )
    chart(charts.frontier(latest), "Models by quality and time of an answer, with the Pareto front")
    st.dataframe(
        latest.drop(columns=["as_of", "cut_id"]), hide_index=True,
        column_config={
            "ndcg_at_10": st.column_config.NumberColumn(format="%.4f"),
            "inference_p50_ms": st.column_config.NumberColumn("answer, ms", format="%.2f"),
            "training_seconds": st.column_config.NumberColumn("training, s", format="%.1f"),
            "peak_rss_mb": st.column_config.NumberColumn("memory, MB", format="%.0f"),
            "is_on_front": st.column_config.CheckboxColumn("on the front"),
        },
    )  # fmt: skip
    return latest


def draw_champions(rows: pd.DataFrame) -> pd.DataFrame:
    st.caption("What the gate said after each cut; the latest first")
    st.dataframe(
        rows[["outcome_date", "domains", "model", "version", "promoted", "challenger", "reason"]], hide_index=True,
        column_config={
            "outcome_date": st.column_config.DateColumn("on"), "model": "champion",
            "promoted": st.column_config.CheckboxColumn("changed"),
        },
    )  # fmt: skip
    return rows


def draw_history(quality: pd.DataFrame) -> pd.DataFrame:
    metric = st.session_state.get("metric", RANKING_METRIC)
    rows = quality[quality["metric"] == metric].sort_values("as_of")
    if rows["cut_id"].nunique() < 2:
        st.caption("One cut so far: a line needs two.")
    chart(charts.history(rows, metric), f"{metric} of each model from cut to cut")
    return rows


EMPTY = "No model has been evaluated yet."
figure("Offline quality", artifacts.AGG_MODEL_QUALITY, marts.model_quality, draw_models, EMPTY)
figure("Quality against cost", artifacts.AGG_MODEL_FRONT, marts.model_front, draw_front, EMPTY)
figure(
    "Champions", artifacts.OUTCOMES, judgements.champions, draw_champions, "No model has passed the gate's door yet."
)
figure("From cut to cut", artifacts.AGG_MODEL_QUALITY, marts.model_quality, draw_history, EMPTY)
