"""The executive dashboard: engagement and funnel, models, data quality.

Run with `python -m dashboard`. Every number stands in a mart; this page filters, sorts and draws.
"""

from collections.abc import Callable
from types import FunctionType

import pandas as pd
import streamlit as st

from dashboard import marts
from recsys.columns import DOMAIN
from recsys.errors import MissingArtifact, ServiceUnavailable
from recsys.settings import Settings, load_settings

CACHED_SECONDS = 60
RANKING_METRIC = "ndcg_at_10"
VERDICTS = ["fail", "warn", "pass"]


@st.cache_data(
    ttl=CACHED_SECONDS,
    show_spinner=False,
    hash_funcs={FunctionType: lambda table: table.__qualname__, Settings: lambda settings: settings.postgres_url},
)
def read(table: Callable[[Settings], pd.DataFrame], settings: Settings) -> pd.DataFrame:
    """Read a table at most once a minute, however many people look."""
    return table(settings)


def show(table: Callable[[Settings], pd.DataFrame], empty: str, draw: Callable[[pd.DataFrame], None]) -> None:
    """Draw a table, or say plainly why there is nothing to draw.

    A warehouse that is down ends the page: every other table would say the same.
    """
    try:
        frame = read(table, load_settings())
    except ServiceUnavailable as error:
        st.error(f"The warehouse is down. {error}")
        st.stop()
    except MissingArtifact as error:
        st.warning(str(error))
        return
    if frame.empty:
        st.info(empty)
    else:
        draw(frame)


def draw_engagement(engagement: pd.DataFrame) -> None:
    domain = st.selectbox("Domain", sorted(engagement[DOMAIN].unique()), key="engagement_domain")
    days = engagement[engagement[DOMAIN] == domain].set_index("activity_date")
    latest = days.iloc[-1]
    st.caption(f"Latest day with interactions: {days.index[-1]} (UTC)")
    for column, name in zip(st.columns(3), ["interactions", "active_users", "new_users"], strict=True):
        column.metric(name.replace("_", " ").capitalize(), f"{int(latest[name]):,}")
    st.line_chart(days[["interactions", "active_users", "new_users"]])


def draw_funnel(funnel: pd.DataFrame) -> None:
    day = st.selectbox("Day", list(funnel["shown_date"].unique()), key="funnel_day")
    st.dataframe(
        funnel[funnel["shown_date"] == day],
        hide_index=True,
        column_config={"click_through_rate": st.column_config.NumberColumn("click_through_rate", format="percent")},
    )


def draw_models(quality: pd.DataFrame) -> None:
    cut = st.selectbox("Data cut", list(quality["cut_id"].unique()), key="cut")
    rows = quality[quality["cut_id"] == cut]
    st.caption(f"As of {rows['as_of'].iloc[0]}; every model on the same users")
    metrics = list(rows["metric"].unique())
    metric = st.selectbox(
        "Metric", metrics, index=metrics.index(RANKING_METRIC) if RANKING_METRIC in metrics else 0, key="metric"
    )
    ranked = rows[rows["metric"] == metric].sort_values("value", ascending=False).set_index("model")
    st.dataframe(ranked[["value", "value_over_baseline"]])
    st.bar_chart(ranked["value"], horizontal=True)
    st.dataframe(rows.pivot(index="model", columns="metric", values="value"))


def draw_outcomes(outcomes: pd.DataFrame) -> None:
    shown = st.multiselect("Verdicts", VERDICTS, default=VERDICTS, key="verdicts")
    failed = outcomes[outcomes["verdict"] == "fail"]
    if failed.empty:
        st.success("No check failed.")
    else:
        st.error(f"Failed: {', '.join(sorted(failed['station'] + ' · ' + failed['check_name']))}")
    st.dataframe(outcomes[outcomes["verdict"].isin(shown)], hide_index=True)


def page() -> None:
    """Draw the whole page."""
    st.set_page_config(page_title="RecSys Intelligence", layout="wide")
    st.title("RecSys Intelligence")
    overview, models, quality = st.tabs(["Overview", "Models", "Data quality"])
    with overview:
        st.subheader("Engagement")
        show(marts.daily_engagement, "No interaction has reached the marts yet.", draw_engagement)
        st.subheader("Recommendation funnel")
        show(marts.recommendation_funnel, "No recommendation has been shown yet.", draw_funnel)
    with models:
        st.subheader("Offline quality")
        show(marts.model_quality, "No model has been evaluated yet.", draw_models)
    with quality:
        st.subheader("Judgements at the doors")
        show(marts.outcomes, "No check has run yet.", draw_outcomes)


page()
