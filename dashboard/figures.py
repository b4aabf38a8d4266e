"""A figure of a page: read when its table has changed, drawn or plainly said to be missing, its source beside it."""

import json
from collections.abc import Callable
from contextvars import ContextVar

import altair as alt
import pandas as pd
import streamlit as st
import vl_convert

from dashboard import marts
from dashboard.marts import Read
from recsys import artifacts
from recsys.columns import DOMAIN
from recsys.errors import MissingArtifact, ServiceUnavailable
from recsys.settings import HOME, Settings, load_settings

CACHED_SECONDS = 600
"""How long a read is kept at most; a change of the tables ends it at once (`follow`)."""

FOLLOWED_SECONDS = 10
"""How often an open page asks whether any table has changed."""

PNG_WIDTH = 760
DBT_MODELS = HOME / "dbt" / "models" / "marts"
SCHEMA = HOME / "recsys" / "schema.sql"
ANALYTICS = "training/analytics"
FITTED_BY = {
    artifacts.SEGMENT_PROFILES: f"{ANALYTICS}/segments.py",
    artifacts.SEGMENT_EFFECTIVENESS: f"{ANALYTICS}/effectiveness.py",
    **dict.fromkeys(
        (artifacts.VALUE_BY_SEGMENT, artifacts.VALUE_CALIBRATION, artifacts.VALUE_MODELS), f"{ANALYTICS}/value.py"
    ),
    **dict.fromkeys(
        (artifacts.NETWORK_MEASURES, artifacts.NETWORK_COMMUNITIES, artifacts.NETWORK_LINKS, artifacts.NETWORK_NODES),
        f"{ANALYTICS}/network.py",
    ),
    artifacts.DOMAIN_OVERLAP: f"{ANALYTICS}/overlap.py",
    **dict.fromkeys((artifacts.TRANSFER_VERDICTS, artifacts.TRANSFER_MAP), "training/transfer.py"),
    artifacts.CLOUD_SHAPES: "infra/shapes.py",
}
"""Who writes a table which no SQL can say."""

_drawn: ContextVar[list[alt.TopLevelMixin]] = ContextVar("drawn")


@st.cache_data(ttl=CACHED_SECONDS, show_spinner="Reading the marts …", max_entries=500)
def _cached(
    name: str, stamp: str, address: str, key: tuple[str, ...], _table: Read, _settings: Settings
) -> pd.DataFrame:
    return _table(_settings, *key)


def read(table: Read, settings: Settings, *key: str) -> pd.DataFrame:
    """Read a table once, however many people look, until any table has changed."""
    return _cached(table.__name__, st.session_state.get("stamp", ""), settings.postgres_url, key, table, settings)


@st.fragment(run_every=FOLLOWED_SECONDS)
def follow() -> None:
    """Draw the page anew when a table has changed, or when the warehouse has gone or come back. Draws nothing."""
    try:
        now = marts.stamp(load_settings())
    except ServiceUnavailable:
        now = "down"
    before = st.session_state.get("stamp")
    st.session_state["stamp"] = now
    if before not in (None, now):
        st.rerun()


def chart(drawing: alt.TopLevelMixin, alt_text: str) -> None:
    """Draw a chart as wide as its place; the figure's footer offers it as PNG."""
    st.altair_chart(drawing, alt=alt_text, width="stretch")
    _drawn.get([]).append(drawing)


def png(drawing: alt.TopLevelMixin) -> bytes:
    """Return a chart on white, twice as fine as it stands on the page."""
    fixed = drawing.configure_view(continuousWidth=PNG_WIDTH, discreteWidth=PNG_WIDTH).configure(background="white")
    specification = json.dumps(fixed.to_dict(), default=str)  # dates as text
    return vl_convert.vegalite_to_png(specification, vl_version=".".join(alt.SCHEMA_VERSION.split(".")[:2]), scale=2)


def figure(
    heading: str,
    table: str,
    rows: Read,
    draw: Callable[[pd.DataFrame], pd.DataFrame | None],
    empty: str,
    domain: str | None = None,
    key: tuple[str, ...] = (),
) -> None:
    """Draw a figure, or say plainly why there is nothing to draw.

    A warehouse that is down ends the page: every other figure would say the same.

    Args:
        table: the artifact that the rows come from.
        draw: draws the rows and returns those that it has shown, if they are not all.
        empty: what it means that there are no rows.
        domain: only rows of this domain.
        key: which rows, where the read asks for it.
    """
    st.subheader(heading, anchor=False)
    try:
        frame = read(rows, load_settings(), *key)
    except ServiceUnavailable as error:
        st.error(f"The warehouse is down. {error}", icon=":material/cloud_off:")
        st.caption("This page comes back by itself.")
        st.stop()
    except MissingArtifact as error:
        st.warning(str(error), icon=":material/construction:")
        return
    if domain is not None:
        frame = frame[frame[DOMAIN] == domain]
    if frame.empty:
        st.info(empty, icon=":material/hourglass_empty:")
        return
    token = _drawn.set([])
    shown = draw(frame)
    _footer(table, heading, frame if shown is None else shown, _drawn.get())
    _drawn.reset(token)


def at_hand(rows: Read, *key: str) -> pd.DataFrame:
    """Return rows that only support a figure; none where they cannot be read, which their own figure will say."""
    try:
        return read(rows, load_settings(), *key)
    except (ServiceUnavailable, MissingArtifact):
        return pd.DataFrame({DOMAIN: []})


def source(table: str) -> tuple[str, str]:
    """Return the file that defines a table, from the repository's root, and the text that does."""
    schema, name = table.split(".")
    path = next(DBT_MODELS.rglob(f"{name}.sql"), SCHEMA) if schema == artifacts.MARTS else SCHEMA
    text = path.read_text()
    if path == SCHEMA:
        text = text[text.index(f"create table if not exists {table} (") :].split(";")[0] + ";"
    return path.relative_to(HOME).as_posix(), text


def _footer(table: str, heading: str, shown: pd.DataFrame, charts: list[alt.TopLevelMixin]) -> None:
    path, text = source(table)
    schema, name = table.split(".")
    with st.container(horizontal=True, gap="small"):
        with st.popover(table, icon=":material/database:", help="the model behind this figure"):
            st.caption(f"dbt model `{name}` · {path}" if schema == artifacts.MARTS else path)
            if table in FITTED_BY:
                st.caption(f"written by {FITTED_BY[table]}")
            st.code(text, language="sql")
        st.download_button(
            "CSV",
            shown.to_csv(index=False).encode(),
            file_name=f"{name}.csv",
            mime="text/csv",
            icon=":material/download:",
            key=f"csv {heading}",
            on_click="ignore",
            help="the rows of this figure",
        )
        for number, drawing in enumerate(charts, 1):
            st.download_button(
                "PNG" if len(charts) == 1 else f"PNG {number}",
                lambda drawing=drawing: png(drawing),
                file_name=f"{name}{'' if len(charts) == 1 else f'-{number}'}.png",
                mime="image/png",
                icon=":material/image:",
                key=f"png {number} {heading}",
                on_click="ignore",
                help="this chart as an image",
            )
