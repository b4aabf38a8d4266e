"""Every number that people look at, counted a second time: event by event in Python, from the raw rows.

Nothing of dbt's SQL is used, and no table between the raw ones and the mart: what both say must agree in every row.
"""

import json
import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from random import Random
from typing import Any

import pytest

from recsys.settings import HOME, Settings
from recsys.task import CODE_VARIABLE, command_environment, run_command
from recsys.warehouse import connect
from tests.worlds import shop
from tests.worlds.warehouse import insert

pytestmark = pytest.mark.services
Rows = dict[tuple, tuple]
WEEK = timedelta(days=7)


class Told:
    """What happened before `as_of`, each event once, and what each click and purchase led to."""

    def __init__(self, items: list[dict], interactions: list[dict], impressions: list[dict]):
        self.items = {item["item_id"]: item for item in items}
        self.events = [one for one in interactions if one["occurred_at"].date() < shop.AS_OF]
        self.shown = [one | self._led_to(one) for one in impressions if one["shown_at"].date() < shop.AS_OF]
        self.bought = [one | {"revenue": self._revenue(one)} for one in self.events if one["event_type"] == "purchase"]

    def _led_to(self, shown: dict) -> dict[str, Any]:
        same = [one for one in self.events if all(one[key] == shown[key] for key in ("user_id", "item_id"))]
        clicks = [
            one["occurred_at"]
            for one in same
            if one["event_type"] == "click"
            and json.loads(one["context"]).get("request_id") == shown["request_id"]
            and one["occurred_at"] >= shown["shown_at"]
        ]
        at = min(clicks, default=None)
        ends = {"purchase", "rate", "share"}
        return {
            "clicked_at": at,
            "converted": at is not None
            and any(one["event_type"] in ends and at <= one["occurred_at"] < at + WEEK for one in same),
        }

    def _revenue(self, purchase: dict) -> float | None:
        said = json.loads(purchase["context"])
        number = {key: float(value) for key, value in said.items() if re.fullmatch(r"\d+(\.\d+)?", value)}
        if "revenue" in number:
            return number["revenue"]
        price = number.get("price", self.items[purchase["item_id"]]["price"])
        return None if price is None else number.get("quantity", 1) * price

    def by(self, rows: list[dict], *keys: str) -> dict[Any, list[dict]]:
        found = defaultdict(list)
        for row in rows:
            found[tuple(row[key] for key in keys) if len(keys) > 1 else row[keys[0]]].append(row)
        return found


def day(moment: datetime) -> date:
    return moment.date()


def total(values: Iterable[float | None]) -> float | None:
    """Return the sum of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def users(rows: Iterable[dict]) -> int:
    return len({row["user_id"] for row in rows})


def agg_daily_engagement(told: Told) -> Rows:
    arrived = {
        user: min(day(one["occurred_at"]) for one in events) for user, events in told.by(told.events, "user_id").items()
    }
    rows = defaultdict(list)
    for one in told.events:
        rows[day(one["occurred_at"]), one["domain"]].append(one)
    return {
        key: (
            len(events), users(events), users(one for one in events if arrived[one["user_id"]] == key[0]),
            share(total(one["rating"] for one in events) or 0, sum(one["rating"] is not None for one in events)),
        )
        for key, events in rows.items()
    }  # fmt: skip


def agg_recommendation_funnel(told: Told) -> Rows:
    rows = defaultdict(list)
    for one in told.shown:
        rows[day(one["shown_at"]), one["domain"], one["variant"], one["model_version"], one["rung"]].append(one)
    found = {}
    for key, shown in rows.items():
        clicked = [one for one in shown if one["clicked_at"]]
        requests = {one["request_id"] for one in shown}
        found[key] = (
            len(requests),
            len(shown),
            len(clicked),
            len({one["request_id"] for one in clicked}),
            len(clicked) / len(shown),
        )
    return found


def agg_purchase_days(told: Told) -> Rows:
    rows = defaultdict(list)
    for one in told.bought:
        rows[one["domain"], one["user_id"], day(one["occurred_at"])].append(one["revenue"])
    return {key: (len(revenues), total(revenues)) for key, revenues in rows.items()}


def agg_daily_outcomes(told: Told) -> Rows:
    found = {}
    days = {(day(one["shown_at"]), one["domain"]) for one in told.shown}
    for key in days | {(day(one["occurred_at"]), one["domain"]) for one in told.bought}:
        shown = [one for one in told.shown if (day(one["shown_at"]), one["domain"]) == key]
        bought = [one for one in told.bought if (day(one["occurred_at"]), one["domain"]) == key]
        clicks, conversions = sum(bool(one["clicked_at"]) for one in shown), sum(one["converted"] for one in shown)
        found[key] = (
            len(shown), clicks, conversions, share(clicks, len(shown)), share(conversions, len(shown)), len(bought),
            total(one["revenue"] for one in bought),
        )  # fmt: skip
    return found


def agg_sessions(told: Told) -> Rows:
    sessions = []
    for (_user, domain), events in told.by(told.events, "user_id", "domain").items():
        session: list[dict] = []
        for one in sorted(events, key=lambda one: one["occurred_at"]):
            if session and one["occurred_at"] - session[-1]["occurred_at"] > timedelta(minutes=30):
                sessions.append((domain, session))
                session = []
            session.append(one)
        sessions.append((domain, session))
    rows = defaultdict(list)
    for domain, session in sessions:
        rows[day(session[0]["occurred_at"]), domain].append(session)
    return {
        key: (
            len(own), len({session[0]["user_id"] for session in own}), sum(map(len, own)),
            sum(len(session) == 1 for session in own), statistics.median(map(len, own)),
            statistics.median((s[-1]["occurred_at"] - s[0]["occurred_at"]).total_seconds() / 60 for s in own),
        )
        for key, own in rows.items()
    }  # fmt: skip


def agg_cohort_retention(told: Told) -> Rows:
    """`as_of` lies in the middle of a month: only the month before it is whole."""
    found = {}
    for domain, events in told.by(told.events, "domain").items():
        months = defaultdict(set)
        for one in events:
            months[one["user_id"]].add(one["occurred_at"].year * 12 + one["occurred_at"].month - 1)
        last = max(max(own) for own in months.values())
        for cohort in {min(own) for own in months.values()}:
            members = [own for own in months.values() if min(own) == cohort]
            for age in range(last - cohort + 1):
                active = sum(cohort + age in own for own in members)
                key = domain, date(cohort // 12, cohort % 12 + 1, 1), age
                found[key] = (len(members), active, active / len(members), cohort + age < last, len(members) < 20)
    return found


def agg_recommendation_effectiveness(told: Told) -> Rows:
    found = {}
    uses = Counter(one["item_id"] for one in told.events)
    for domain, shown in told.by(told.shown, "domain").items():
        last = max(day(one["shown_at"]) for one in shown)
        own = {item: uses[item] for item, row in told.items.items() if row["domain"] == domain}
        for window in (7, 28, 365):
            begin = last - timedelta(days=window - 1)
            within = [one for one in shown if begin <= day(one["shown_at"]) <= last]
            for variant, rows in told.by(within, "variant").items():
                clicked, converted = [[one for one in rows if one[key]] for key in ("clicked_at", "converted")]
                bits = [
                    -math.log2((own[one["item_id"]] + 1) / sum(count + 1 for count in own.values())) for one in rows
                ]
                below = [sum(c < own[one["item_id"]] for c in own.values()) for one in rows]
                ties = [sum(c == own[one["item_id"]] for c in own.values()) for one in rows]
                ranks = [(less + tied / 2) / len(own) for less, tied in zip(below, ties, strict=True)]
                items_shown = len({one["item_id"] for one in rows})
                found[domain, variant, window] = (
                    begin, last, len({one["request_id"] for one in rows}), len(rows), len(clicked), len(converted),
                    len(clicked) / len(rows), len(converted) / len(rows), users(rows), users(clicked), users(converted),
                    items_shown, items_shown / len(own), statistics.fmean(bits), statistics.fmean(ranks),
                )  # fmt: skip
    return found


def agg_user_behaviour(told: Told) -> Rows:
    found = {}
    for (domain, user), events in told.by(told.events, "domain", "user_id").items():
        kinds = Counter(one["event_type"] for one in events)
        days = {day(one["occurred_at"]) for one in events}
        shown = [one for one in told.shown if (one["domain"], one["user_id"]) == (domain, user)]
        revenue = total(one["revenue"] for one in told.bought if (one["domain"], one["user_id"]) == (domain, user))
        found[domain, user] = (
            len(events), *(kinds[kind] for kind in ("view", "click", "purchase", "rate", "share")),
            len({one["item_id"] for one in events}), len(days), min(days), max(days), revenue, len(shown),
            sum(bool(one["clicked_at"]) for one in shown),
        )  # fmt: skip
    return found


def agg_user_categories(told: Told) -> Rows:
    parts: dict[tuple, float] = defaultdict(float)
    for one in told.events:
        categories = told.items[one["item_id"]]["categories"]
        for category in categories:
            parts[one["domain"], one["user_id"], category] += 1 / len(categories)
    return {key: (part,) for key, part in parts.items()}


def agg_revenue_attribution(told: Told) -> Rows:
    touched = defaultdict(list)
    for one in told.bought:
        same = [s for s in told.shown if s["clicked_at"] and all(s[key] == one[key] for key in ("user_id", "item_id"))]
        touches = [s for s in same if s["clicked_at"] <= one["occurred_at"] < s["clicked_at"] + WEEK]
        if touches:
            latest = max(touches, key=lambda s: s["clicked_at"])
            touched[one["domain"], latest["variant"]].append(one["revenue"])
    spent = defaultdict(list)
    for (domain, user), shown in told.by(told.shown, "domain", "user_id").items():
        variants, since = {one["variant"] for one in shown}, min(one["shown_at"] for one in shown)
        own = [one for one in told.bought if (one["domain"], one["user_id"]) == (domain, user)]
        if len(variants) == 1:
            spent[domain, variants.pop()].append(total(b["revenue"] for b in own if b["occurred_at"] >= since) or 0)
    found = {}
    for (domain, variant), revenues in spent.items():
        mean, n = statistics.fmean(revenues), len(revenues)
        control = spent[domain, "popular"] if variant != "popular" else None
        incremental = error = None
        if control:
            incremental = (mean - statistics.fmean(control)) * n
            spread = statistics.variance(revenues) / n + statistics.variance(control) / len(control)
            error = 1.959964 * n * math.sqrt(spread)
        touches = touched[domain, variant]
        found[domain, variant] = (
            n, sum(revenues), mean, len(touches), total(touches), control and len(control), incremental, error,
        )  # fmt: skip
    return found


def agg_headlines(told: Told) -> Rows:
    """28 days to the domain's latest day against the 28 before them, each kind of number from its own latest day."""
    arrived = {
        user: min(day(one["occurred_at"]) for one in own) for user, own in told.by(told.events, "user_id").items()
    }
    found = {}
    for domain in told.by(told.events, "domain"):
        events, shown, bought = (
            [one for one in rows if one["domain"] == domain] for rows in (told.events, told.shown, told.bought)
        )
        end_of_events = max(day(one["occurred_at"]) for one in events)
        end_of_shown = max(day(one["shown_at"]) for one in shown)
        end_of_outcomes = max(end_of_shown, *(day(one["occurred_at"]) for one in bought))

        def period(rows: list[dict], key: str, end: date, before: bool) -> list[dict]:
            return [one for one in rows if (28 if before else 0) <= (end - day(one[key])).days < (56 if before else 28)]

        values: dict[str, list] = defaultdict(list)
        for before in (False, True):
            own = period(events, "occurred_at", end_of_events, before)
            seen = period(shown, "shown_at", end_of_shown, before)
            led = period(shown, "shown_at", end_of_outcomes, before)
            paid = period(bought, "occurred_at", end_of_outcomes, before)
            values["interactions"].append(len(own))
            values["active_users"].append(users(own))
            values["new_users"].append(users(o for o in own if arrived[o["user_id"]] == day(o["occurred_at"])))
            values["click_through_rate"].append(share(sum(bool(one["clicked_at"]) for one in seen), len(seen)))
            values["conversion_rate"].append(share(sum(one["converted"] for one in led), len(led)))
            values["revenue"].append(total(one["revenue"] for one in paid))
        ends = dict.fromkeys(values, end_of_events) | {
            "click_through_rate": end_of_shown, "conversion_rate": end_of_outcomes, "revenue": end_of_outcomes,
        }  # fmt: skip
        for headline, (now, earlier) in values.items():
            found[domain, headline] = (ends[headline], now, earlier, None if not earlier else now / earlier - 1)
    return found


def agg_service_levels(told: Told) -> Rows:
    """28 days to each objective's latest day; the budget is what may still fail, as a share of what may fail."""
    requests = {(one["request_id"], day(one["shown_at"]), one["rung"] != "popular") for one in told.shown}
    observed = {
        ("pipeline runs succeed", 0.95): [(run[2], run[3] == "success") for run in shop.RUNS],
        ("checks do not fail", 0.99): [(one[1], one[6] != "fail") for one in shop.OUTCOMES if one[0] != "experiments"],
        ("answers come from a model", 0.9): [(on, good) for _, on, good in requests],
    }
    found = {}
    for (objective, target), rows in observed.items():
        last = max(on for on, _ in rows)
        within = [good for on, good in rows if (last - on).days < 28]
        missed = 1 - sum(within) / len(within)
        left = 1 - missed / (1 - target)
        found[(objective,)] = (target, last, sum(within), len(within), 1 - missed, left)
    return found


RECOUNTS = (
    agg_daily_engagement, agg_recommendation_funnel, agg_purchase_days, agg_daily_outcomes, agg_sessions,
    agg_cohort_retention, agg_recommendation_effectiveness, agg_user_behaviour, agg_user_categories,
    agg_revenue_attribution, agg_headlines, agg_service_levels,
)  # fmt: skip
IN_ORDER = {
    "agg_cohort_retention": "domain, cohort_month, age_months, cohort_users, active_users, retention, is_complete,"
    " is_small_cohort",
    "agg_recommendation_effectiveness": "domain, variant, window_days, window_start_date, window_end_date, requests,"
    " impressions, clicks, conversions, click_through_rate, conversion_rate, users, users_clicked, users_converted,"
    " items_shown, coverage, novelty_bits, popularity_rank",
}
"""Columns with the key first, where the mart has another order."""


def same(counted: object, found: object) -> bool:
    """Whether two values are one: fractions to nine digits, all else exactly."""
    return counted == found or (isinstance(found, float) and counted is not None and math.isclose(counted, found))


@pytest.fixture(scope="module")
def told(world) -> tuple[Settings, Told]:
    """The shops in a warehouse that dbt has built, and the same as plain rows."""
    random = Random(8)
    items = shop.items(random)
    interactions, impressions = shop.happened(random, items)
    settings = world("postgres")
    landed = shop.copies(random, interactions)
    with connect(settings) as connection:
        for table, rows in (
            ("raw.interactions", landed),
            ("raw.items", [item | {"source": "files", "landed_partition": "history"} for item in items]),
            ("raw.impressions", impressions),
        ):
            insert(connection, f"{table} ({', '.join(rows[0])})", [tuple(row.values()) for row in rows])
        insert(connection, "monitoring.pipeline_runs", shop.RUNS)
        insert(connection, "monitoring.outcomes", shop.OUTCOMES)
    kept = {}
    for row in sorted(landed, key=lambda row: row["source"] == "stream"):  # a file's copy wins over the stream's
        kept.setdefault(row["event_id"], row)
    said = json.dumps({"as_of": shop.AS_OF.isoformat(), "domains": "books,movies"})
    command = ["dbt", "--quiet", "run", "--project-dir", "dbt", "--profiles-dir", "dbt", "--vars", said]
    run_command(command, {**command_environment(settings), CODE_VARIABLE: "recount"})
    return settings, Told(items, list(kept.values()), impressions)


@pytest.mark.parametrize("recount", RECOUNTS, ids=lambda function: function.__name__)
def test_both_counts_agree_in_every_row(told, recount):
    settings, world = told
    expected = recount(world)
    width = len(next(iter(expected)))
    with connect(settings) as connection:
        columns = IN_ORDER.get(recount.__name__, "*")
        rows = connection.execute(f"select {columns} from marts.{recount.__name__}").fetchall()

    assert len(rows) >= 3
    assert {row[:width] for row in rows} == set(expected)
    for row in rows:
        pairs = list(zip(expected[row[:width]], row[width:], strict=True))
        assert [pair for pair in pairs if not same(*pair)] == [], row[:width]


def test_no_analytics_mart_is_left_uncounted():
    """The two of models hold what MLflow says of each; dbt's unit tests choose among them by hand."""
    folder = HOME / "dbt" / "models" / "marts" / "analytics"
    marts = {path.stem for path in folder.rglob("*.sql")}
    assert marts - {recount.__name__ for recount in RECOUNTS} == {"agg_model_front", "agg_model_quality"}
