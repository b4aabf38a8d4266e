"""Network: the graph of users and items, its communities, and who holds them together."""

import pandas as pd
import streamlit as st

from dashboard import filters, maps, marts
from dashboard.figures import at_hand, chart, figure
from recsys import artifacts
from recsys.columns import DOMAIN

MEASURES = {
    "users": ("Users", "{:,.0f}"), "items": ("Items", "{:,.0f}"), "edges": ("Edges", "{:,.0f}"),
    "communities": ("Communities", "{:,.0f}"), "modularity": ("Modularity", "{:.3f}"),
    "edges_within_communities": ("Edges inside", "{:.0%}"), "degree_gini_of_items": ("Inequality of items", "{:.2f}"),
    "share_of_largest_component": ("Largest component", "{:.0%}"),
}  # fmt: skip


def draw_measures(rows: pd.DataFrame) -> pd.DataFrame:
    told = rows.set_index("measure")["value"]
    st.caption(f"As of {rows['as_of'].iloc[0]}: an edge where a user has used an item")
    with st.container(horizontal=True):
        for name, (label, form) in MEASURES.items():
            st.metric(label, form.format(told[name]) if name in told else "—", border=True, width=165)
    with st.expander("All measures"):
        st.dataframe(rows[["measure", "value"]], hide_index=True)
    return rows


def draw_communities(rows: pd.DataFrame) -> pd.DataFrame:
    links = at_hand(marts.network_links)
    likes = rows["categories"].map(lambda names: ", ".join(names) or "nothing more than others")
    told = rows.assign(likes=likes, members=rows["users"] + rows["items"], name=rows["categories"].str[0].fillna(""))
    told["name"] = told["name"].where(told["members"] >= told["members"].nlargest(12).min(), "")
    st.caption("Leiden communities of users and items: a disc's area is its members, a line the edges between two")
    chart(
        maps.communities(told, links[links[DOMAIN] == rows[DOMAIN].iloc[0]]), "Communities and the edges between them"
    )
    with st.expander("As a table"):
        st.dataframe(told[["community", "users", "items", "edges", "internal", "likes"]], hide_index=True)
    return rows


def draw_nodes(rows: pd.DataFrame) -> pd.DataFrame:
    kind = st.segmented_control(
        "Kind", ["item", "user"], default="item", required=True, key="kind", bind="query-params"
    )
    by = st.segmented_control(
        "By", ["influence", "participation"], default="influence", required=True, key="by", bind="query-params",
        help="influence: PageRank. participation: how evenly the edges go to several communities; a bridge is near 1",
    )  # fmt: skip
    shown = rows[rows["kind"] == kind].sort_values([by, "node_id"], ascending=[False, True]).head(50)
    st.dataframe(
        shown[["title", "node_id", "community", "degree", "influence", "participation", "is_cut_vertex"]],
        hide_index=True,
        column_config={
            "influence": st.column_config.NumberColumn(format="%.5f"),
            "participation": st.column_config.NumberColumn(format="%.2f"),
            "is_cut_vertex": st.column_config.CheckboxColumn(
                "splits the graph", help="the graph falls apart without it"
            ),
        },
    )
    return shown


EMPTY = "No network of this domain yet: the task `analyse_network` draws it."
figure("In numbers", artifacts.NETWORK_MEASURES, marts.network_measures, draw_measures, EMPTY, filters.domain())
figure(
    "Communities", artifacts.NETWORK_COMMUNITIES, marts.network_communities, draw_communities, EMPTY, filters.domain()
)
figure("Who holds it together", artifacts.NETWORK_NODES, marts.network_nodes, draw_nodes, EMPTY, filters.domain())
