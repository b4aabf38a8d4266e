"""A figure of a page: read once a minute, drawn or plainly said to be missing, its source and its rows beside it."""

from collections.abc import Callable
from types import FunctionType

import pandas as pd
import streamlit as st

from recsys import artifacts
from recsys.columns import DOMAIN
from recsys.errors import MissingArtifact, ServiceUnavailable
from recsys.settings import HOME, Settings, load_settings

CACHED_SECONDS = 60
DBT_MODELS = HOME / "dbt" / "models" / "marts"
SCHEMA = HOME / "recsys" / "schema.sql"

Read = Callable[[Settings], pd.DataFrame]


@st.cache_data(
    ttl=CACHED_SECONDS,
    show_spinner=False,
    hash_funcs={FunctionType: lambda table: table.__qualname__, Settings: lambda settings: settings.postgres_url},
)
def read(table: Read, settings: Settings) -> pd.DataFrame:
    """Read a table at most once a minute, however many people look."""
    return table(settings)


def figure(
    heading: str,
    table: str,
    rows: Read,
    draw: Callable[[pd.DataFrame], pd.DataFrame | None],
    empty: str,
    domain: str | None = None,
) -> None:
    """Draw a figure, or say plainly why there is nothing to draw.

    A warehouse that is down ends the page: every other figure would say the same.

    Args:
        table: the artifact that the rows come from.
        draw: draws the rows and returns those that it has shown, if they are not all.
        empty: what it means that there are no rows.
        domain: only rows of this domain.
    """
    st.subheader(heading, anchor=False)
    try:
        frame = read(rows, load_settings())
    except ServiceUnavailable as error:
        st.error(f"The warehouse is down. {error}", icon=":material/cloud_off:")
        st.stop()
    except MissingArtifact as error:
        st.warning(str(error), icon=":material/construction:")
        return
    if domain is not None:
        frame = frame[frame[DOMAIN] == domain]
    if frame.empty:
        st.info(empty, icon=":material/hourglass_empty:")
        return
    shown = draw(frame)
    _footer(table, heading, frame if shown is None else shown)


def at_hand(rows: Read) -> pd.DataFrame:
    """Return rows that only support a figure; none where they cannot be read, which their own figure will say."""
    try:
        return read(rows, load_settings())
    except (ServiceUnavailable, MissingArtifact):
        return pd.DataFrame({DOMAIN: []})


def source(table: str) -> tuple[str, str]:
    """Return the file that defines a table, from the repository's root, and its text."""
    schema, name = table.split(".")
    path = next(DBT_MODELS.rglob(f"{name}.sql"), SCHEMA) if schema == artifacts.MARTS else SCHEMA
    return path.relative_to(HOME).as_posix(), path.read_text()


def _footer(table: str, heading: str, shown: pd.DataFrame) -> None:
    path, text = source(table)
    with st.container(horizontal=True, gap="small"):
        with st.popover(table, icon=":material/database:", help="the model behind this figure"):
            st.caption(path)
            st.code(text, language="sql")
        st.download_button(
            "CSV",
            shown.to_csv(index=False).encode(),
            file_name=f"{table.split('.')[1]}.csv",
            mime="text/csv",
            icon=":material/download:",
            key=f"csv {heading}",
            on_click="ignore",
            help="the rows of this figure",
        )
