"""What the items' texts say, as `SIZE` numbers each: a feature for training sets and analyses (view `item_texts`).

The encoder of `training/models/text_encoder.py` reads title, categories, creators and year, with its cache; the
vectors of a domain are half whitened as there, every item counting alike, and cut to the widest `SIZE` directions. Of a
direction and its opposite the one is taken in which the item that lies furthest out is positive, so that the same texts
give the same numbers. Only the `MOST_ITEMS` most used items of a domain are read: the others are unknown.
"""

from typing import Any

import numpy as np
import pandas as pd
import psycopg

from recsys import columns
from recsys.artifacts import DIM_ITEMS, ITEM_TEXT_SIZE, ITEM_TEXTS
from recsys.interval import Interval
from recsys.settings import load_settings
from training.analytics.tables import read, replace
from training.dataset import texts_of
from training.model import Workplace
from training.models import text_encoder

SIZE = ITEM_TEXT_SIZE
MOST_ITEMS = 20_000
ALWAYS = pd.Timestamp(0, tz="UTC")
"""A catalogue has no history: what it says now is taken for what it always said."""


def directions(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of unit length in the widest directions, (I, E) → (I, SIZE); zeros where there are fewer."""
    narrow = text_encoder.half_whiten(vectors, np.ones(len(vectors)), SIZE)
    furthest = narrow[np.abs(narrow).argmax(0), np.arange(narrow.shape[1])]
    found = np.zeros((len(vectors), SIZE))
    found[:, : narrow.shape[1]] = narrow * np.where(furthest < 0, -1.0, 1.0)
    return found


def run(connection: psycopg.Connection, interval: Interval, seed: int) -> dict[str, Any]:
    """Read the most used items of each domain; nothing here is drawn, the seed is not needed."""
    settings = load_settings()
    workplace = Workplace(settings.threads, settings.var_dir / "training" / "cache")
    written = {}
    for domain in interval.domains:
        items = read(
            connection,
            f"""
            select item_id, title, categories, creators, published_year from {DIM_ITEMS}
            where is_available and domain = %s order by interaction_count desc, item_id limit %s
            """,
            [domain, MOST_ITEMS],
        )
        rows = pd.DataFrame()
        if len(items):
            listed = items.astype(object).where(items.notna(), None).to_dict("list")
            vectors = directions(text_encoder.encode(tuple(texts_of(listed)), text_encoder.Config(), workplace))
            told = {"domain": domain, columns.ITEM_ID: items[columns.ITEM_ID], columns.EVENT_TIMESTAMP: ALWAYS,
                    "item_text_vector": vectors.tolist(), "as_of": interval.as_of}  # fmt: skip
            rows = pd.DataFrame(told)
        written[domain] = replace(connection, ITEM_TEXTS, rows, [domain])
    return {"items": written, "unchanged": False}
