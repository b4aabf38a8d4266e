"""What the dashboard reads, made up: 60 days of two domains, of which books states no prices, and all that is fitted.

`MARTS` are the columns of the tables that dbt makes and the dashboard reads; the others stand in recsys/schema.sql.
"""

import json
from datetime import date, timedelta
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from recsys import artifacts
from recsys.warehouse import Outcome, write_outcomes

AS_OF = date(2026, 11, 22)
DAYS = [AS_OF - timedelta(days=back) for back in range(60, 0, -1)]
MARKUP = "<script>alert(1)</script> **bold** $x$ :material/home: [a](b)"
MARTS = {
    artifacts.AGG_HEADLINES: (
        "domain text, headline text, latest_date date, value double precision, value_before double precision, "
        "change double precision"
    ),
    artifacts.AGG_DAILY_ENGAGEMENT: (
        "activity_date date, domain text, interactions bigint, active_users bigint, new_users bigint, "
        "mean_rating double precision"
    ),
    artifacts.AGG_RECOMMENDATION_FUNNEL: (
        "shown_date date, domain text, variant text, model_version text, rung text, requests bigint, "
        "impressions bigint, clicks bigint, click_through_rate double precision"
    ),
    artifacts.AGG_RECOMMENDATION_EFFECTIVENESS: (
        "domain text, variant text, window_days integer, window_start_date date, window_end_date date, "
        "impressions bigint, clicks bigint, conversions bigint, click_through_rate double precision, "
        "conversion_rate double precision, users bigint, users_clicked bigint, users_converted bigint, "
        "items_shown bigint, coverage double precision, novelty_bits double precision, "
        "popularity_rank double precision"
    ),
    artifacts.AGG_SESSIONS: (
        "session_date date, domain text, sessions bigint, users bigint, events bigint, single_event_sessions bigint, "
        "median_events double precision, median_minutes double precision"
    ),
    artifacts.AGG_COHORT_RETENTION: (
        "domain text, cohort_month date, age_months integer, cohort_users bigint, active_users bigint, "
        "retention double precision, is_complete boolean, is_small_cohort boolean"
    ),
    artifacts.AGG_MODEL_QUALITY: (
        "as_of date, cut_id text, model text, metric text, value double precision, value_over_baseline double precision"
    ),
    artifacts.AGG_MODEL_FRONT: (
        "as_of date, cut_id text, model text, framework text, ndcg_at_10 double precision, "
        "inference_p50_ms double precision, training_seconds double precision, peak_rss_mb double precision, "
        "is_on_front boolean"
    ),
    artifacts.AGG_SERVICE_LEVELS: (
        "objective text, target double precision, latest_date date, good bigint, total bigint, "
        "attained double precision, budget_left double precision"
    ),
    artifacts.AGG_DAILY_OUTCOMES: (
        "outcome_date date, domain text, impressions bigint, clicks bigint, conversions bigint, "
        "click_through_rate double precision, conversion_rate double precision, purchases bigint, "
        "revenue double precision"
    ),
    artifacts.AGG_REVENUE_ATTRIBUTION: (
        "domain text, variant text, users bigint, revenue double precision, revenue_per_user double precision, "
        "purchases_last_touch bigint, revenue_last_touch double precision, control_users bigint, "
        "revenue_incremental double precision"
    ),
}  # fmt: skip
FITTED = (
    artifacts.SEGMENT_PROFILES, artifacts.SEGMENT_EFFECTIVENESS, artifacts.VALUE_BY_SEGMENT,
    artifacts.VALUE_CALIBRATION, artifacts.VALUE_MODELS, artifacts.NETWORK_MEASURES, artifacts.NETWORK_COMMUNITIES,
    artifacts.NETWORK_LINKS, artifacts.NETWORK_NODES, artifacts.DOMAIN_OVERLAP, artifacts.TRANSFER_VERDICTS,
    artifacts.TRANSFER_MAP, artifacts.CLOUD_SHAPES,
)  # fmt: skip


def remove(connection: psycopg.Connection) -> None:
    """Leave a warehouse in which dbt has not run and nothing was judged."""
    for mart in MARTS:
        connection.execute(f"drop table if exists {mart}")
    for table in (*FITTED, artifacts.OUTCOMES):
        connection.execute(f"delete from {table}")


def create(connection: psycopg.Connection) -> None:
    """Make the marts, empty, as dbt over nothing does."""
    for mart, columns in MARTS.items():
        connection.execute(f"create table {mart} ({columns})")


def insert(connection: psycopg.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    """Insert rows; lists become arrays."""
    query = sql.SQL("insert into {} ({}) values ({})").format(
        sql.Identifier(*table.split(".")),
        sql.SQL(", ").join(map(sql.Identifier, rows[0])),
        sql.SQL(", ").join([sql.Placeholder()] * len(rows[0])),
    )
    with connection.cursor() as cursor:
        cursor.executemany(query, [tuple(row.values()) for row in rows])


def plant(connection: psycopg.Connection) -> None:
    """Fill everything for the domains movies and books."""
    rng = np.random.default_rng(7)
    for domain, size in (("movies", 900.0), ("books", 240.0)):
        _activity(connection, domain, size, rng)
        _lists(connection, domain, rng)
        _customers(connection, domain, rng)
        _network(connection, domain, rng)
    _models(connection, rng)
    pairs = [("books", "movies", 0.41, 0.55), ("movies", "books", 0.12, 0.55)]
    insert(connection, artifacts.DOMAIN_OVERLAP, [
        {"source_domain": one, "target_domain": other, "users": 130, "share_of_source": share, "jaccard": 0.1,
         "activity_cosine": 0.34, "taste_association": taste, "as_of": AS_OF} for one, other, share, taste in pairs
    ])  # fmt: skip
    insert(connection, artifacts.TRANSFER_VERDICTS, [
        {"source_domain": one, "target_domain": other, "target_share": 1.0, "bucket": bucket, "users": 90,
         "alone": 0.05, "transferred": 0.05 + difference, "difference": difference, "low": difference - 0.006,
         "high": difference + 0.006, "verdict": verdict, "embedding_similarity": 0.4, "as_of": AS_OF}
        for one, other, difference, verdict in (("books", "movies", 0.011, "helps"),
                                                ("movies", "books", -0.009, "negative transfer"))
        for bucket in ("all", "0", "over_20")
    ])  # fmt: skip
    insert(connection, artifacts.TRANSFER_MAP, [
        {"domain": domain, "item_id": f"{domain}:{number}", "title": MARKUP, "x": float(x), "y": float(y),
         "as_of": AS_OF}
        for domain in ("movies", "books") for number, (x, y) in enumerate(rng.normal(0, 1, (80, 2)))
    ])  # fmt: skip
    insert(connection, artifacts.CLOUD_SHAPES, [
        {"target": target, "shape": shape, "vcpus": cores, "memory_gib": 2 * cores, "p50_ms": 3.0 + 4 / cores,
         "p99_ms": 9.0 + 12 / cores, "requests_per_s": 520.0 * cores, "usd_per_hour": price * cores,
         "usd_per_1000_requests": price / 1900, "usd_per_million_batch_users": price * 2, "startup_s": 8.0,
         "scale_out_s": 60.0, "configuration_lines": 40,
         "kinds": json.dumps({"p99_ms": "estimate" if cores > 2 else "measured"}), "measured_on": AS_OF,
         "prices_of": AS_OF}
        for target, shape, cores, price in (("aws", "ml.c7i.large", 2, 0.11), ("aws", "ml.c7i.xlarge", 4, 0.11),
                                            ("gcp", "n2-standard-2", 2, 0.12), ("azure", "Standard_F2s_v2", 2, 0.1))
    ])  # fmt: skip
    _judgements(connection)


def _activity(connection: psycopg.Connection, domain: str, size: float, rng: np.random.Generator) -> None:
    events = [int(size * (1 + 0.2 * np.sin(number / 3.5)) + rng.normal(0, size / 20)) for number in range(60)]
    insert(connection, artifacts.AGG_DAILY_ENGAGEMENT, [
        {"activity_date": day, "domain": domain, "interactions": count, "active_users": count // 4,
         "new_users": count // 30, "mean_rating": 3.6 if domain == "movies" else None}
        for day, count in zip(DAYS, events, strict=True)
    ])  # fmt: skip
    insert(connection, artifacts.AGG_SESSIONS, [
        {"session_date": day, "domain": domain, "sessions": count // 5, "users": count // 6, "events": count,
         "single_event_sessions": count // 9, "median_events": 4 + count % 3, "median_minutes": 6.5}
        for day, count in zip(DAYS, events, strict=True)
    ])  # fmt: skip
    now, before = sum(events[-28:]), sum(events[-56:-28])
    headlines = [
        ("interactions", now, before),
        ("active_users", now // 20, before // 20),
        ("new_users", now // 30, before // 28),
        ("click_through_rate", 0.0612, 0.0584),
        ("conversion_rate", 0.0061, 0.0059),
    ]
    if domain == "movies":
        headlines.append(("revenue", 18_250, 17_100))
    insert(connection, artifacts.AGG_DAILY_OUTCOMES, [
        {"outcome_date": day, "domain": domain, "impressions": 9_000, "clicks": 540 + count % 90,
         "conversions": 50 + count % 9, "click_through_rate": (540 + count % 90) / 9_000,
         "conversion_rate": (50 + count % 9) / 9_000, "purchases": count // 12,
         "revenue": count * 0.7 if domain == "movies" else None}
        for day, count in zip(DAYS, events, strict=True)
    ])  # fmt: skip
    insert(connection, artifacts.AGG_HEADLINES, [
        {"domain": domain, "headline": name, "latest_date": DAYS[-1], "value": value, "value_before": earlier,
         "change": value / earlier - 1} for name, value, earlier in headlines
    ])  # fmt: skip
    months = [date(2025, 12, 1) + timedelta(days=31 * number) for number in range(11)]
    insert(connection, artifacts.AGG_COHORT_RETENTION, [
        {"domain": domain, "cohort_month": month.replace(day=1), "age_months": age, "cohort_users": users,
         "active_users": int(users * 0.8**age), "retention": int(users * 0.8**age) / users,
         "is_complete": number + age < 10, "is_small_cohort": users < 20}
        for number, month in enumerate(months) for users in [12 if number == 3 else 90 + number]
        for age in range(11 - number)
    ])  # fmt: skip


def _lists(connection: psycopg.Connection, domain: str, rng: np.random.Generator) -> None:
    shares = {"champion": (0.061, 900), "popular": (0.048, 90), "shuffle": (0.021, 90)}
    insert(connection, artifacts.AGG_RECOMMENDATION_FUNNEL, [
        {"shown_date": day, "domain": domain, "variant": variant, "model_version": "3", "rung": "personalised",
         "requests": requests, "impressions": requests * 10, "clicks": int(requests * 10 * rate),
         "click_through_rate": int(requests * 10 * rate) / (requests * 10)}
        for day in DAYS[-30:] for variant, (rate, requests) in shares.items()
    ])  # fmt: skip
    insert(connection, artifacts.AGG_RECOMMENDATION_EFFECTIVENESS, [
        {"domain": domain, "variant": variant, "window_days": days, "window_start_date": AS_OF - timedelta(days=days),
         "window_end_date": DAYS[-1], "impressions": requests * days * 10,
         "clicks": int(requests * days * 10 * rate), "conversions": int(requests * days * rate),
         "click_through_rate": rate, "conversion_rate": rate / 10, "users": requests, "users_clicked": requests // 3,
         "users_converted": requests // 20, "items_shown": 700, "coverage": 0.4, "novelty_bits": 7.5,
         "popularity_rank": 0.9}
        for variant, (rate, requests) in shares.items() for days in (7, 28, 365)
    ])  # fmt: skip
    revenue = 1.0 if domain == "movies" else None
    insert(connection, artifacts.AGG_REVENUE_ATTRIBUTION, [
        {"domain": domain, "variant": variant, "users": requests, "revenue": revenue and requests * rate * 300,
         "revenue_per_user": revenue and rate * 300, "purchases_last_touch": requests // 20,
         "revenue_last_touch": revenue and requests * rate * 90, "control_users": 90,
         "revenue_incremental": revenue and requests * (rate - 0.048) * 300}
        for variant, (rate, requests) in shares.items()
    ])  # fmt: skip
    insert(connection, artifacts.SEGMENT_EFFECTIVENESS, [
        {"domain": domain, "segment": segment, "variant": variant, "measure": measure, "value": value,
         "low": None if measure == "coverage" else value * 0.9, "high": None if measure == "coverage" else value * 1.1,
         "users": 120, "as_of": AS_OF}
        for segment in ("everybody", "s1", "s2", "s3", "newcomers") for variant, (rate, _) in shares.items()
        for measure, value in (("click_through_rate", rate * rng.uniform(0.8, 1.2)), ("coverage", 0.4),
                               ("diversity", 0.7), ("popularity_bias", 0.8))
    ])  # fmt: skip


def _customers(connection: psycopg.Connection, domain: str, rng: np.random.Generator) -> None:
    sizes = {"s1": 0.42, "s2": 0.33, "s3": 0.2, "newcomers": 0.05}
    likes = [["Drama", "Crime"], ["Comedy"], [], ["Drama"]]
    insert(connection, artifacts.SEGMENT_PROFILES, [
        {"as_of": AS_OF - timedelta(days=back), "domain": domain, "segment": segment,
         "description": f"{int(share * 900)} users ({share:.0%}); 14 events on 6 days each; drawn to Drama.",
         "users": int(share * 900), "share": share + (back % 3 - 1) * 0.01, "events_per_user": 14.0,
         "active_days_per_user": 6.0, "revenue_per_user": 12.5 if domain == "movies" else None,
         "click_through_rate": 0.06, "favourite_categories": liked, "segments": 3, "silhouette": 0.31,
         "stability": 0.92, "centroid": json.dumps({})}
        for back in range(14) for (segment, share), liked in zip(sizes.items(), likes, strict=True)
    ])  # fmt: skip
    value = 1.0 if domain == "movies" else None
    insert(connection, artifacts.VALUE_BY_SEGMENT, [
        {"domain": domain, "segment": segment, "customers": int(share * 400),
         "value_before": value and share * 9000, "value_observed": share * 9000 * rng.uniform(0.85, 1.1),
         "value_now": value and share * 9700, "holdout_days": 90, "as_of": AS_OF} for segment, share in sizes.items()
    ])  # fmt: skip
    insert(connection, artifacts.VALUE_CALIBRATION, [
        {"domain": domain, "purchase_days": days, "customers": 400 // days, "predicted": 0.3 * days,
         "observed": 0.3 * days * rng.uniform(0.9, 1.1), "holdout_days": 90, "as_of": AS_OF} for days in range(1, 8)
    ])  # fmt: skip
    insert(connection, artifacts.VALUE_MODELS, [
        {"domain": domain, "model": "BG/NBD", "parameter": name, "value": number, "as_of": AS_OF}
        for name, number in (("r", 0.24), ("alpha", 4.41), ("a", 0.79), ("b", 2.43))
    ])  # fmt: skip


def _network(connection: psycopg.Connection, domain: str, rng: np.random.Generator) -> None:
    measures = {"users": 943, "items": 1682, "edges": 100_000, "communities": 9, "modularity": 0.281,
                "edges_within_communities": 0.46, "degree_gini_of_items": 0.63,
                "share_of_largest_component": 1.0}  # fmt: skip
    insert(connection, artifacts.NETWORK_MEASURES, [
        {"domain": domain, "measure": name, "value": value, "as_of": AS_OF} for name, value in measures.items()
    ])  # fmt: skip
    liked = ["Drama", "Comedy", "Sci-Fi", "Horror", "Children's", "Film-Noir", "War", MARKUP, ""]
    insert(connection, artifacts.NETWORK_COMMUNITIES, [
        {"domain": domain, "community": number, "users": 300 // (number + 1), "items": 500 // (number + 1),
         "edges": 40_000 // (number + 1), "internal": 0.3 + 0.07 * number, "categories": [name] if name else [],
         "x": float(x), "y": float(y), "as_of": AS_OF}
        for number, (name, (x, y)) in enumerate(zip(liked, rng.normal(0, 3, (9, 2)), strict=True))
    ])  # fmt: skip
    insert(connection, artifacts.NETWORK_LINKS, [
        {"domain": domain, "source": one, "target": other, "edges": 9_000 // (1 + one * other), "as_of": AS_OF}
        for one in range(9) for other in range(one + 1, 9)
    ])  # fmt: skip
    insert(connection, artifacts.NETWORK_NODES, [
        {"domain": domain, "kind": kind, "node_id": f"{kind}:{number}",
         "title": MARKUP if number == 3 else f"{kind.title()} number {number}", "community": number % 9,
         "degree": 500 - 4 * number, "influence": 0.004 / (number + 1), "participation": 0.5 + number / 150,
         "is_cut_vertex": number % 17 == 0, "as_of": AS_OF} for kind in ("user", "item") for number in range(60)
    ])  # fmt: skip


QUALITY = {
    "popularity": (0.041, 0.1, 0.4, "numpy", True), "ials": (0.092, 0.35, 9.0, "numpy", True),
    "two_tower": (0.084, 0.4, 240.0, "pytorch", False), "keras_two_tower": (0.083, 0.42, 310.0, "tensorflow", False),
    "text_encoder": (0.055, 0.5, 95.0, "transformers", False), "slist": (0.097, 0.9, 4.0, "numpy", True),
}  # fmt: skip
"""Model → ndcg@10, milliseconds an answer, seconds to train, framework, whether it is on the front."""


def _models(connection: psycopg.Connection, rng: np.random.Generator) -> None:
    baseline = QUALITY["popularity"]
    insert(connection, artifacts.AGG_MODEL_FRONT, [
        {"as_of": AS_OF - timedelta(days=7 * back), "cut_id": f"cut-{back}", "model": model, "framework": framework,
         "ndcg_at_10": quality, "inference_p50_ms": milliseconds, "training_seconds": seconds, "peak_rss_mb": 700.0,
         "is_on_front": is_on_front}
        for back in range(4) for model, (quality, milliseconds, seconds, framework, is_on_front) in QUALITY.items()
    ])  # fmt: skip
    insert(connection, artifacts.AGG_MODEL_QUALITY, [
        {"as_of": AS_OF - timedelta(days=7 * back), "cut_id": f"cut-{back}", "model": model, "metric": metric,
         "value": number * (1 - 0.03 * back), "value_over_baseline": number / of_baseline}
        for back in range(4) for model, told in QUALITY.items()
        for metric, number, of_baseline in zip(
            ("ndcg_at_10", "inference_p50_ms", "training_seconds"), told[:3], baseline[:3], strict=True)
    ])  # fmt: skip


def _judgements(connection: psycopg.Connection) -> None:
    day = AS_OF - timedelta(days=1)
    drift = [
        Outcome("monitoring", AS_OF - timedelta(days=back), "psi", round(0.05 + 0.01 * (20 - back), 3), "below 0.2",
                "fail" if back < 5 else "pass", f"{domain}/rating")
        for back in range(1, 20) for domain in ("movies", "books")
    ]  # fmt: skip
    freshness = [
        Outcome("monitoring", day, "freshness", f"{hours} h old", "at most 1 day behind", "pass", table)
        for table, hours in ((artifacts.FCT_INTERACTIONS, 5.1), (artifacts.FCT_IMPRESSIONS, 0.2))
    ]
    write_outcomes(connection, [
        *drift, *freshness,
        Outcome("etl", day, "rows_refused", 3, "at most 1 %", "pass", "movies"),
        Outcome("expectations", day, "unique_key", "0 duplicates", "0", "pass", MARKUP),
        *_experiment(day),
        *(Outcome("training", AS_OF - timedelta(days=7 * back), "promotion_gate", f"better than version {5 - back}",
                  "above", "pass", "books,movies",
                  {"model": "slist", "version": str(6 - back), "promoted": back % 2 == 0,
                   "challenger": {"model": "ials"}}) for back in range(4)),
    ])  # fmt: skip
    insert(connection, artifacts.AGG_SERVICE_LEVELS, [
        {"objective": name, "target": target, "latest_date": day, "good": good, "total": 1_000,
         "attained": good / 1_000, "budget_left": 1 - (1_000 - good) / (1_000 * (1 - target))}
        for name, target, good in (("pipeline runs succeed", 0.95, 978), ("checks do not fail", 0.99, 985),
                                   ("answers come from a model", 0.9, 991))
    ])  # fmt: skip


EXPERIMENT = "recommendations-2026-11"


def _experiment(day: date) -> list[Outcome]:
    """Twenty days of readings of one experiment with two variants beside the control."""
    rows = [
        Outcome("experiments", day, "conclusion", f"{variant} is told. {MARKUP}", "Which is better?", "pass",
                f"{EXPERIMENT}/{variant}", {"decision": decision})
        for variant, decision in (("champion", "better"), ("shuffle", "go on"))
    ]  # fmt: skip
    rows.append(Outcome("experiments", day, "sample_ratio", "p = 0.4", "p >= 0.001, at every look", "pass", EXPERIMENT))
    for back in range(20):
        for variant, lift in (("champion", 0.27), ("shuffle", -0.05)):
            half = 0.9 / (21 - back) ** 0.5
            told = {"value": lift, "low": lift - half, "high": lift + half}
            rows.append(
                Outcome("experiments", day - timedelta(days=back), "lift:click_through_rate", lift, "not below", "pass",
                        f"{EXPERIMENT}/{variant}", {"lift": told, "is_primary": True})
            )  # fmt: skip
    return rows
