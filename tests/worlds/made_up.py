"""A synthetic world with planted truths (etl/synthetic), as frames, or landed in the raw tables without Spark."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg

from etl.synthetic.files import synthesize
from etl.synthetic.population import World
from recsys.columns import DOMAINS
from recsys.interval import Interval

WORLD = World(seed=8, events=40_000, users=1_000, items=200, cross_domain_share=0.5)
AS_OF = pd.Timestamp(WORLD.first_day + pd.Timedelta(days=WORLD.days)).date()
INTERVAL = Interval(tuple(sorted(DOMAINS)), AS_OF)


def write(folder: Path, world: World = WORLD) -> Path:
    """Write the world's files and return their folder."""
    synthesize(world, folder)
    return folder / "synthetic"


def read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Return interactions (with `domain`, `category`, `at`), items, true tastes of the users, and the truths."""
    interactions, items = [], []
    for domain in DOMAINS:
        items.append(pd.read_csv(folder / domain / "synthetic_items.csv").assign(domain=domain))
        frame = pd.read_csv(folder / domain / "synthetic_interactions.csv").assign(domain=domain)
        interactions.append(frame.merge(items[-1][["item_id", "category"]], on="item_id", validate="many_to_one"))
    whole = pd.concat(interactions, ignore_index=True)
    whole["at"] = pd.to_datetime(whole["occurred_ms"], unit="ms", utc=True)
    tastes = pd.read_csv(folder / "truths_users.csv").set_index("user_id")
    return whole, pd.concat(items, ignore_index=True), tastes, json.loads((folder / "truths.json").read_text())


def behaviour(interactions: pd.DataFrame) -> pd.DataFrame:
    """Return what `marts.agg_user_behaviour` holds of these interactions, counted by other means."""
    kinds = {"view": "views", "click": "clicks", "purchase": "purchases", "rate": "ratings", "share": "shares"}
    counts = interactions.groupby(["user_id", "event_type"]).size().unstack(fill_value=0).rename(columns=kinds)
    counts = counts.reindex(columns=list(kinds.values()), fill_value=0)
    day = interactions["at"].dt.date
    told = interactions.assign(day=day).groupby("user_id")["day"].agg(["nunique", "min", "max"])
    revenue = interactions["context"].map(lambda text: float(json.loads(text).get("revenue", "nan")))
    return pd.DataFrame(
        {
            **counts,
            "events": counts.sum(1),
            "active_days": told["nunique"],
            "first_date": told["min"],
            "last_date": told["max"],
            "revenue": revenue.groupby(interactions["user_id"]).sum(min_count=1),
            "impressions": 0,
            "impressions_clicked": 0,
        }
    ).reset_index()


def categories(interactions: pd.DataFrame) -> pd.DataFrame:
    return interactions.groupby(["user_id", "category"]).size().astype(float).rename("events").reset_index()


def land(connection: psycopg.Connection, folder: Path) -> None:
    """Fill the raw tables as etl and streaming would have."""
    interactions, items, _, _ = read(folder)
    _copy(
        connection,
        "raw.interactions (event_id, user_id, item_id, rating, occurred_at, domain, event_type, context, source,"
        " landed_partition)",
        interactions.assign(source="synthetic", partition="history")[
            ["event", "user_id", "item_id", "rating", "at", "domain", "event_type", "context", "source", "partition"]
        ],
    )
    _copy(
        connection,
        "raw.items (item_id, domain, title, text, categories, price, published_year, source, landed_partition)",
        items.assign(categories=items["category"].map(lambda name: [name]), source="synthetic", partition="history")[
            ["item_id", "domain", "title", "text", "categories", "price", "published_year", "source", "partition"]
        ],
    )
    shown = pd.read_json(folder / "synthetic_impressions.jsonl", lines=True)
    columns = [
        "event_id", "request_id", "user_id", "item_id", "rank", "score", "domain", "variant", "model_version",
        "propensity", "rung", "shown_at",
    ]  # fmt: skip
    _copy(connection, f"raw.impressions ({', '.join(columns)})", shown[columns])


def _copy(connection: psycopg.Connection, table: str, rows: pd.DataFrame) -> None:
    plain = rows.astype(object).where(rows.notna(), None)
    with connection.cursor().copy(f"copy {table} from stdin") as copy:
        for row in plain.itertuples(index=False, name=None):
            copy.write_row(row)
