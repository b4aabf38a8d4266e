"""Clouds: what the same serving process does at each cloud's instance shapes, and what it costs."""

import pandas as pd
import streamlit as st

from dashboard import maps, marts
from dashboard.figures import chart, figure
from recsys import artifacts

COSTS = {
    "usd_per_hour": "an hour, USD", "usd_per_1000_requests": "1 000 requests, USD",
    "usd_per_million_batch_users": "a million users in batch, USD",
}  # fmt: skip
COLUMNS = {
    "vcpus": "vCPUs", "memory_gib": "GiB", "p50_ms": "p50, ms", "p99_ms": "p99, ms", "requests_per_s": "requests/s",
    "usd_per_hour": "$/hour", "usd_per_1000_requests": "$/1 000 requests",
    "usd_per_million_batch_users": "$/million users", "startup_s": "start, s", "scale_out_s": "scale-out, s",
    "configuration_lines": "lines to configure",
    "is_estimate": st.column_config.CheckboxColumn("estimate"),
}  # fmt: skip


def draw_trade(rows: pd.DataFrame) -> pd.DataFrame:
    first = rows.iloc[0]
    st.caption(
        f"Latency against throughput; the area is what an hour costs. Measured on {first['measured_on']}, list prices "
        f"of {first['prices_of']}. Hollow: an estimate, the shape is larger than the machine that measured. "
        "Point at a mark for its name where names would lie on one another"
    )
    known = rows.dropna(subset=["p99_ms", "requests_per_s"])
    if known.empty:
        st.info("No shape has a latency and a throughput yet: only prices are known.")
    else:
        chart(maps.clouds(known), "Latency, throughput and cost of each cloud's shapes")
    return rows


def draw_costs(rows: pd.DataFrame) -> pd.DataFrame:
    cost = st.selectbox("Cost of", list(COSTS), format_func=COSTS.get, key="cost", bind="query-params", width=320)
    shown = rows.dropna(subset=[cost])
    if shown.empty:
        st.info("Not known of any shape.")
        return rows
    chart(maps.cloud_costs(shown, cost, COSTS[cost]), f"Cost of {COSTS[cost]} of each shape")
    st.dataframe(
        rows.drop(columns=["measured_on", "prices_of"]), hide_index=True,
        column_config=COLUMNS,
    )  # fmt: skip
    return rows


EMPTY = "No shape has been measured yet: `python -m infra.shapes` writes them."
figure("Latency, throughput, cost", artifacts.CLOUD_SHAPES, marts.cloud_shapes, draw_trade, EMPTY)
figure("What it costs", artifacts.CLOUD_SHAPES, marts.cloud_shapes, draw_costs, EMPTY)
