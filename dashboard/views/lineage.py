"""Lineage: what an answer, a version, a data cut or a raw partition was made of, and what was made of it."""

from time import perf_counter

import pandas as pd
import streamlit as st

from recsys.errors import MissingArtifact, ServiceUnavailable
from recsys.lineage import lineage
from recsys.settings import load_settings

HEADS = {"partitions": "Raw partitions", "cuts": "Data cuts", "versions": "Model versions"}


def draw(found: dict, seconds: float) -> None:
    """Draw the way from the data to the answers, first station on top."""
    st.markdown(f"**{found['kind']}** `{found['id']}`")
    if asked := found.get("request"):
        st.caption(
            f"answered {asked['answered_at']} to variant {asked['variant']}, rung {asked['rung']}, by version "
            f"{asked['retrieval']['model_version']}"
        )
    for name, head in HEADS.items():
        st.markdown(f"{head}: {len(found[name])}")
        if found[name]:
            rows = pd.json_normalize(found[name], max_level=1)
            st.dataframe(rows, hide_index=True)
    st.caption(f"Looked up in {seconds:.2f} s. Any id of these tables can be looked up in turn.")


st.subheader("From raw data to the answer, and back", anchor=False)
id_ = st.text_input(
    "Id of a request, a model version, a data cut or a raw partition", key="id", bind="query-params", width=480
).strip()
if not id_:
    st.info(
        "Enter an id: a request's stands in every answer (`request_id`), versions and cuts on the Models page.",
        icon=":material/account_tree:",
    )
else:
    began = perf_counter()
    try:
        found = lineage(load_settings(), id_)
        draw(found, perf_counter() - began)
    except MissingArtifact as error:
        st.warning(str(error), icon=":material/search_off:")
    except ServiceUnavailable as error:
        st.error(str(error), icon=":material/cloud_off:")
