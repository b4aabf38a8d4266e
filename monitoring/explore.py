"""Exploration: what the marts hold, one self-contained HTML page a domain. Describes, judges nothing.

All counting is done in the warehouse: a page needs as many rows as it has bars, however many events there are.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

import psycopg

from monitoring import charts
from recsys.artifacts import DIM_ITEMS, FCT_INTERACTIONS
from recsys.columns import DOMAINS
from recsys.errors import CheckFailed, MissingArtifact
from recsys.settings import Settings
from recsys.warehouse import connect

MOST_CATEGORIES = 15
TIMELESS_SHARE = 0.5
"""Where so many events share one instant, the source has none, and seasons would be an artifact of that."""
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

EVENTS = f"select * from {FCT_INTERACTIONS} where domain = %(domain)s"
PER = "select count(*) as events from ({events}) as events group by {key}"

QUERIES = {
    "summary": f"""
        select count(*) as events, count(distinct user_id) as users, count(distinct item_id) as used_items,
            count(distinct (user_id, item_id)) as pairs, count(rating) as ratings, avg(rating) as mean_rating,
            min(occurred_at) as first_at, max(occurred_at) as last_at, array_agg(distinct source) as sources
        from ({EVENTS}) as events
    """,
    "catalogue": f"""
        select count(*) as items, count(*) filter (where interaction_count = 0) as unused,
            count(*) filter (where is_available) as described, count(price) as priced,
            percentile_cont(0.5) within group (order by price) as median_price
        from {DIM_ITEMS} where domain = %(domain)s
    """,
    "busiest_instant": f"""
        select count(*) as events from ({EVENTS}) as events group by occurred_at order by events desc limit 1
    """,
    "per_user": f"""
        select floor(log(2, events))::int as octave, count(*) as users
        from ({PER.format(events=EVENTS, key="user_id")}) as per_user group by octave order by octave
    """,
    "per_item": f"""
        select floor(log(2, events))::int as octave, count(*) as items
        from ({PER.format(events=EVENTS, key="item_id")}) as per_item group by octave order by octave
    """,
    "tail": f"""
        select percent, sum(events) as events from (
            select events, ntile(100) over (order by events desc) as percent
            from ({PER.format(events=EVENTS, key="item_id")}) as per_item
        ) as ranked group by percent order by percent
    """,
    "event_types": f"select event_type, count(*) as events from ({EVENTS}) as e group by 1 order by 2 desc, 1",
    "ratings": f"""
        select round(rating::numeric * 2) / 2 as stars, count(*) as events
        from ({EVENTS}) as events where rating is not null group by stars order by stars
    """,
    "months": f"""
        select to_char(date_trunc('month', occurred_at at time zone 'UTC'), 'YYYY-MM') as month, count(*) as events
        from ({EVENTS}) as events group by month order by month
    """,
    "hours": f"""
        select extract(isodow from occurred_at at time zone 'UTC')::int - 1 as weekday,
            extract(hour from occurred_at at time zone 'UTC')::int as hour, count(*) as events
        from ({EVENTS}) as events group by 1, 2 order by 1, 2
    """,
    "categories": f"""
        select category, sum(interaction_count)::bigint as events
        from {DIM_ITEMS} cross join unnest(categories) as category
        where domain = %(domain)s group by category order by events desc, category limit {MOST_CATEGORIES}
    """,
    "overlap": f"""
        with active as (select distinct user_id, domain from {FCT_INTERACTIONS})
        select other.domain, count(*) as users
        from active as here inner join active as other using (user_id)
        where here.domain = %(domain)s and other.domain <> %(domain)s group by other.domain order by other.domain
    """,
}

PAGE = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$domain: exploration</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td { padding: .15rem 1.5rem .15rem 0 } td + td { text-align: right }
svg { max-width: 100%; height: auto } .made-up { background: #fde68a; padding: .5rem 1rem }
</style></head><body><h1>$domain</h1>$banner<table>$facts</table>$sections</body></html>
"""
)
MADE_UP = '<p class="made-up">These rows are synthetic: every user, item and event is made up.</p>'


@dataclass(frozen=True)
class Section:
    """A heading, what to read there, and a drawing as SVG; none where there is nothing to draw."""

    heading: str
    reading: str
    drawing: str | None = None

    def to_html(self) -> str:
        return f"<h2>{html.escape(self.heading)}</h2><p>{html.escape(self.reading)}</p>{self.drawing or ''}"


Rows = list[dict[str, Any]]


def explore(settings: Settings, domains: Sequence[str] = DOMAINS) -> dict[str, Any]:
    """Write `<var_dir>/reports/eda/<domain>.html` for each of these domains that has events; return its figures.

    Raises:
        MissingArtifact: the marts were not built.
        CheckFailed: none of the domains has an event.
    """
    folder = settings.var_dir / "reports" / "eda"
    folder.mkdir(parents=True, exist_ok=True)
    reports: dict[str, Any] = {}
    with connect(settings) as connection:
        connection.read_only = True
        for domain in domains:
            found = measure(connection, domain)
            if found["summary"][0]["events"]:
                path = folder / f"{domain}.html"
                path.write_text(render(domain, found), encoding="utf-8")
                reports[domain] = {"report": str(path), **facts_of(found)}
    if not reports:
        raise CheckFailed(f"{FCT_INTERACTIONS} of {', '.join(domains)}", "no events", "Run the pipeline for them first")
    return {"domains": reports, "unchanged": False}


def measure(connection: psycopg.Connection, domain: str) -> dict[str, Rows]:
    """Return the rows of every query."""
    found: dict[str, Rows] = {}
    for name, query in QUERIES.items():
        try:
            cursor = connection.execute(query, {"domain": domain})
        except psycopg.errors.UndefinedTable as error:
            fault = str(error).splitlines()[0]
            raise MissingArtifact("marts", fault, "Build them first: trigger the DAG `recsys_pipeline`") from error
        names = [column.name for column in cursor.description or ()]
        found[name] = [dict(zip(names, row, strict=True)) for row in cursor]
    return found


def facts_of(found: dict[str, Rows]) -> dict[str, Any]:
    """Return the figures of a domain that has events, by the words that the page shows."""
    summary, catalogue = found["summary"][0], found["catalogue"][0]
    cells = summary["users"] * summary["used_items"]
    by_share = [int(row["events"]) for row in found["tail"]]
    return {
        "events": summary["events"],
        "users": summary["users"],
        "items used": summary["used_items"],
        "items known": catalogue["items"],
        "items never used": catalogue["unused"],
        "sparsity": 1.0 - summary["pairs"] / cells,
        "events a user": summary["events"] / summary["users"],
        "share of explicit ratings": summary["ratings"] / summary["events"],
        "mean rating": summary["mean_rating"],
        "gini of the items' popularity": gini(by_share),
        "median price": catalogue["median_price"],
        "first event": summary["first_at"].isoformat(),
        "last event": summary["last_at"].isoformat(),
        "sources": ", ".join(summary["sources"]),
        **{f"users also in {row['domain']}": row["users"] for row in found["overlap"]},
    }


def gini(descending: Sequence[int]) -> float:
    """Return the Gini coefficient of these shares: 0, all alike; towards 1, one has everything."""
    ascending = sorted(descending)
    total, count = sum(ascending), len(ascending)
    weighted = sum(rank * value for rank, value in enumerate(ascending, 1))
    return 2 * weighted / (count * total) - (count + 1) / count


def render(domain: str, found: dict[str, Rows]) -> str:
    """Return the page; the same rows give the same text."""
    facts = facts_of(found)
    rows = "".join(f"<tr><td>{html.escape(name)}</td><td>{_shown(value)}</td></tr>" for name, value in facts.items())
    sections = "".join(section.to_html() for section in _sections(found))
    banner = MADE_UP if "synthetic" in found["summary"][0]["sources"] else ""
    return PAGE.substitute(domain=html.escape(domain), banner=banner, facts=rows, sections=sections)


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    return html.escape(
        f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else value
    )


def _octave(row: dict[str, Any]) -> str:
    low = 2 ** row["octave"]
    return str(low) if low == 1 else f"{low:,}-{2 * low - 1:,}"


def _sections(found: dict[str, Rows]) -> list[Section]:
    users, items = found["per_user"], found["per_item"]
    sections = [
        Section(
            "Events a user",
            "How many users have so many events; the columns double in width.",
            charts.bars([_octave(row) for row in users], [row["users"] for row in users], "users"),
        ),
        Section(
            "Events an item",
            "How many items have so many events. A long tail shows as many items on the left.",
            charts.bars([_octave(row) for row in items], [row["items"] for row in items], "items"),
        ),
        Section(
            "The long tail",
            "Share of all events that the most popular items have. The diagonal would be equal popularity.",
            charts.lorenz([int(row["events"]) for row in found["tail"]]),
        ),
        Section(
            "What they do",
            "Events by their type.",
            charts.bars([r["event_type"] for r in found["event_types"]], [r["events"] for r in found["event_types"]]),
        ),
    ]
    if found["ratings"]:
        stars = [f"{row['stars']:.1f}" for row in found["ratings"]]
        drawing = charts.bars(stars, [row["events"] for row in found["ratings"]])
        sections.append(Section("Ratings", "Explicit ratings, in the source's own unit.", drawing))
    if found["categories"]:
        names = [row["category"] for row in found["categories"]]
        drawing = charts.bars(names, [row["events"] for row in found["categories"]], is_lying=True)
        sections.append(Section("Categories", "Events on items of a category; an item may be in several.", drawing))
    return [*sections, *_seasons(found)]


def _seasons(found: dict[str, Rows]) -> list[Section]:
    events, busiest = found["summary"][0]["events"], found["busiest_instant"][0]["events"]
    if busiest > TIMELESS_SHARE * events:
        share = f"{busiest / events:.0%}"
        return [Section("Seasons", f"{share} of the events share one instant: the source has no times to show.")]
    grid = [[0] * 24 for _ in WEEKDAYS]
    for row in found["hours"]:
        grid[row["weekday"]][row["hour"]] = row["events"]
    months = found["months"]
    return [
        Section(
            "Over the months",
            "Events a month, UTC. Months without any are left out.",
            charts.line([row["month"] for row in months], [row["events"] for row in months]),
        ),
        Section(
            "Over the week",
            "Events by day of the week and hour of the day, UTC; darker is more.",
            charts.heat(grid, WEEKDAYS, [str(hour) for hour in range(24)]),
        ),
    ]
