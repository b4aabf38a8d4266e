"""What the lists of the latest 28 days are like and lead to, by variant and by segment of users.

The measures of lists are those of the offline evaluation (recsys/beyond_accuracy.py), over the answers as shown:
diversity over categories, novelty and serendipity against what everybody uses, coverage of the available items, and
popularity bias: the mean rank of what is shown, 0 the least used and 1 the most. Rates and means carry a 95 % interval
over users, who are the independent units (a ratio's by the delta method). What an experiment concludes is another
station's, `experiments`.
"""

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import psycopg
from scipy.stats import rankdata

from recsys.artifacts import (
    AGG_USER_BEHAVIOUR,
    DIM_ITEMS,
    FCT_IMPRESSIONS,
    FCT_INTERACTIONS,
    SEGMENT_EFFECTIVENESS,
    USER_SEGMENTS,
)
from recsys.beyond_accuracy import diversity_at_k, novelty_at_k, serendipity_at_k
from recsys.interval import Interval
from training.analytics.tables import read, replace

WINDOW_DAYS = 28
LONGEST_LIST = 20
MOST_ANSWERS = 200_000  # of a domain, the latest
EVERYBODY = "everybody"
Z = 1.959964


def answers(impressions: pd.DataFrame, items: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Return one row per answer (user_id, variant), its items (R, K), -1 where it is shorter, and its clicks (R, K).

    Args:
        impressions: request_id, user_id, variant, item_id, rank, is_clicked.
        items: its index the item ids; an item that it does not know is left out.
    """
    place = items.index.get_indexer(impressions["item_id"])
    known = impressions.assign(place=place)[(place >= 0) & (impressions["rank"] <= LONGEST_LIST)]
    request, told = pd.factorize(known["request_id"])
    listed = np.full((len(told), LONGEST_LIST), -1)
    clicked = np.zeros((len(told), LONGEST_LIST), bool)
    listed[request, known["rank"].to_numpy() - 1] = known["place"]
    clicked[request, known["rank"].to_numpy() - 1] = known["is_clicked"].astype(bool)
    order = np.argsort(listed < 0, axis=1, kind="stable")  # items first, in their order
    rows = known.drop_duplicates("request_id")[["user_id", "variant"]].reset_index(drop=True)
    return rows, np.take_along_axis(listed, order, 1), np.take_along_axis(clicked, order, 1)


def measured(listed: np.ndarray, clicked: np.ndarray, items: pd.DataFrame, users: int) -> pd.DataFrame:
    """Return each answer's numbers: shown, clicks, diversity, novelty_bits, serendipity, popularity_bias. (R, …)

    Args:
        items: `users` who used each, and `categories`.
        users: of the domain.
    """
    inside = listed >= 0
    used = items["users"].to_numpy(float)
    bias = (rankdata(used) - 0.5) / len(used)
    obvious = np.tile(np.argsort(-used, kind="stable")[: listed.shape[1]], (len(listed), 1))
    k = listed.shape[1]
    shown = inside.sum(1)
    hits = (clicked & inside).sum(1)
    serendipity = serendipity_at_k(listed, clicked, np.ones(len(listed)), obvious, k) * k / np.maximum(shown, 1)
    return pd.DataFrame(
        {
            "shown": shown,
            "clicks": hits,
            "diversity": diversity_at_k(listed, category_vectors(items["categories"]), k),
            "novelty_bits": novelty_at_k(listed, used, max(users, 1), k),
            "serendipity": serendipity,
            "popularity_bias": np.where(inside, bias[np.maximum(listed, 0)], 0).sum(1) / np.maximum(shown, 1),
        }
    )


def category_vectors(categories: pd.Series) -> np.ndarray:
    """Return an indicator of each item's categories, (I, C); an item without any has the zero vector."""
    told = categories.reset_index(drop=True).explode().dropna()
    code, names = pd.factorize(told, sort=True)
    vectors = np.zeros((len(categories), max(len(names), 1)), np.float32)
    vectors[told.index.to_numpy(int), code] = 1
    return vectors


def ratio(over: np.ndarray, under: np.ndarray) -> tuple[float, float | None, float | None]:
    """Return Σ over / Σ under of users, and its 95 % interval by the delta method; no interval for a single user."""
    value, n = over.sum() / under.sum(), len(over)
    if n < 2:
        return float(value), None, None
    error = Z * np.sqrt(((over - value * under) ** 2).sum() / (n - 1) / n) / under.mean()
    return float(value), float(value - error), float(value + error)


MEANS = ("diversity", "novelty_bits", "serendipity", "popularity_bias")


def effectiveness(
    rows: pd.DataFrame, numbers: pd.DataFrame, listed: np.ndarray, segments: pd.Series, available: int
) -> pd.DataFrame:
    """Return one row per segment, variant and measure.

    Args:
        rows, numbers, listed: of the same answers.
        segments: user_id → segment.
        available: items that could be shown.
    """
    whole = pd.concat([rows, numbers], axis=1)
    whole["segment"] = whole["user_id"].map(segments).fillna("without")
    everybody = whole.assign(segment=EVERYBODY)
    told = []
    for part in (whole, everybody):
        for (segment, variant), group in part.groupby(["segment", "variant"]):
            of_user = group.groupby("user_id")
            clicks, shown = of_user["clicks"].sum().to_numpy(float), of_user["shown"].sum().to_numpy(float)
            told.append((segment, variant, "click_through_rate", *ratio(clicks, shown), len(of_user)))
            for name in MEANS:
                judged = group[group[name].notna()]
                if len(judged):
                    each = judged.groupby("user_id")[name]
                    over, under = each.sum().to_numpy(float), each.size().to_numpy(float)
                    told.append((segment, variant, name, *ratio(over, under), len(each)))
            items = np.unique(listed[group.index])
            covered = float((items >= 0).sum() / available) if available else float("nan")
            told.append((segment, variant, "coverage", covered, None, None, len(of_user)))
    columns = ["segment", "variant", "measure", "value", "low", "high", "users"]
    return pd.DataFrame(told, columns=columns).dropna(subset="value")


def run(connection: psycopg.Connection, interval: Interval, seed: int) -> dict[str, Any]:
    """Measure each domain of the interval; nothing here is drawn, the seed is not needed."""
    found, judged = [], {}
    for domain in interval.domains:
        impressions = _impressions(connection, domain, interval)
        judged[domain] = int(impressions["request_id"].nunique())
        if impressions.empty:
            continue
        items = read(
            connection,
            f"select item_id, categories, is_available, coalesce(used.users, 0) as users from {DIM_ITEMS} left join"
            f" (select item_id, count(distinct user_id) as users from {FCT_INTERACTIONS} where domain = %s group by 1)"
            " as used using (item_id) where domain = %s order by item_id",
            [domain, domain],
        ).set_index("item_id")
        users = read(connection, f"select count(*) as n from {AGG_USER_BEHAVIOUR} where domain = %s", [domain])
        segments = read(connection, f"select user_id, segment from {USER_SEGMENTS} where domain = %s", [domain])
        rows, listed, clicked = answers(impressions, items)
        numbers = measured(listed, clicked, items, int(users["n"].iloc[0]))
        of_user = segments.set_index("user_id")["segment"]
        told = effectiveness(rows, numbers, listed, of_user, int(items["is_available"].sum()))
        found.append(told.assign(domain=domain, as_of=interval.as_of))
    rows = pd.concat(found) if found else pd.DataFrame()
    replace(connection, SEGMENT_EFFECTIVENESS, rows, interval.domains)
    return {"answers": judged, "rows": len(rows), "unchanged": False}


def _impressions(connection: psycopg.Connection, domain: str, interval: Interval) -> pd.DataFrame:
    """Return what was shown in the window that ends with the domain's latest day, of the latest answers."""
    latest = connection.execute(
        f"select max(shown_at) from {FCT_IMPRESSIONS} where domain = %s and shown_at < %s", [domain, interval.end]
    ).fetchone()
    since = latest[0] - timedelta(days=WINDOW_DAYS) if latest and latest[0] else interval.end
    return read(
        connection,
        f"select request_id, user_id, variant, item_id, rank, is_clicked from {FCT_IMPRESSIONS}"
        " where domain = %s and shown_at > %s and shown_at < %s order by shown_at desc, request_id, rank limit %s",
        [domain, since, interval.end, MOST_ANSWERS * LONGEST_LIST],
    )
