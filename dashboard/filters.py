"""The filters that pages share: which domain, how many days. They live in the page's address and can be sent along."""

import streamlit as st

from dashboard import marts
from dashboard.figures import at_hand
from recsys.columns import DOMAIN, DOMAINS

DAYS = "days"
"""As `DOMAIN` a name in the address, and in the session's state."""

SEGMENT = "segment"
WINDOWS = (7, 28, 365)
ALL = "all segments"
WITHOUT = {"models", "clouds", "data", "transfer", "lineage"}
"""Pages whose rows are about all domains."""

WITHOUT_DAYS = {"network"}
WITH_SEGMENT = {"customers"}


def show(page: str) -> None:
    """Draw the filters that a page has; the domains are those that have any interaction."""
    if page in WITHOUT:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Domain",
            sorted(at_hand(marts.daily_engagement)[DOMAIN].unique()) or list(DOMAINS),
            key=DOMAIN,
            bind="query-params",
            persist_state="session",
            width=220,
        )
        if page in WITH_SEGMENT:
            _show_segments()
        if page not in WITHOUT_DAYS:
            st.segmented_control(
                "Days",
                WINDOWS,
                default=28,
                required=True,
                key=DAYS,
                bind="query-params",
                persist_state="session",
                help="up to the domain's latest day",
            )


def _show_segments() -> None:
    rows = at_hand(marts.segment_profiles)
    rows = rows[rows[DOMAIN] == domain()]
    names = [] if rows.empty else sorted(rows[rows["as_of"] == rows["as_of"].max()][SEGMENT])
    st.selectbox("Segment", [ALL, *names], key=SEGMENT, bind="query-params", persist_state="session", width=220)


def domain() -> str:
    return st.session_state[DOMAIN]


def days() -> int:
    return st.session_state[DAYS]


def segment() -> str | None:
    """Return the chosen segment, or None for all."""
    return None if st.session_state[SEGMENT] == ALL else st.session_state[SEGMENT]
