"""The executive dashboard: its pages, and the filters that they share, kept in the address.

Run with `python -m dashboard`. Every number stands in a mart; the pages filter, sort and draw.
"""

from pathlib import Path

import streamlit as st

from dashboard import figures, filters

ICON = Path(__file__).with_name("icon.svg")  # a named icon would be loaded from elsewhere
PAGES = {  # views/: a folder called pages/ would be Streamlit's own navigation, without the filters
    "overview": ("Overview", ":material/monitoring:"),
    "models": ("Models", ":material/leaderboard:"),
    "clouds": ("Clouds", ":material/cloud:"),
    "experiments": ("Experiments", ":material/science:"),
    "customers": ("Customers", ":material/groups:"),
    "data": ("Data", ":material/verified:"),
    "network": ("Network", ":material/hub:"),
    "transfer": ("Transfer", ":material/swap_horiz:"),
    "lineage": ("Lineage", ":material/account_tree:"),
}

st.set_page_config(page_title="RecSys Intelligence", page_icon=str(ICON), layout="wide")
page = st.navigation(
    [
        st.Page(f"views/{name}.py", title=title, icon=icon, url_path=name, default=name == "overview")
        for name, (title, icon) in PAGES.items()
    ],
    position="top",
)
figures.follow()
st.title(page.title, anchor=False)
filters.show(page.url_path)
page.run()
