"""The filters that pages share: which domain, how many days. They live in the page's address and can be sent along."""

import streamlit as st

from dashboard import marts
from dashboard.figures import at_hand
from recsys.columns import DOMAIN, DOMAINS

DAYS = "days"
"""As `DOMAIN` a name in the address, and in the session's state."""

WINDOWS = (7, 28, 365)
WITHOUT = {"models", "data"}
"""Pages whose rows are about all domains."""


def show() -> None:
    """Draw the filters; the domains are those that have any interaction."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Domain",
            sorted(at_hand(marts.daily_engagement)[DOMAIN].unique()) or list(DOMAINS),
            key=DOMAIN,
            bind="query-params",
            persist_state="session",
            width=220,
        )
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


def domain() -> str:
    return st.session_state[DOMAIN]


def days() -> int:
    return st.session_state[DAYS]
