"""Reads of the analytics marts: one function a table, read-only, nothing computed.

Every function returns a `pandas.DataFrame` with the columns named beside its table; no rows means an empty frame.
"""

from collections.abc import Callable
from typing import LiteralString

import pandas as pd
import psycopg
from psycopg import sql

from recsys import artifacts
from recsys.errors import MissingArtifact
from recsys.settings import Settings
from recsys.warehouse import connect

Read = Callable[..., pd.DataFrame]
SHOWN_DAYS = 365
"""How far back the time lines go, in days before the latest day of each domain."""

COLUMNS = {
    artifacts.AGG_HEADLINES: ("domain", "headline", "latest_date", "value", "value_before", "change"),
    artifacts.AGG_DAILY_ENGAGEMENT: (
        "activity_date", "domain", "interactions", "active_users", "new_users", "mean_rating",
    ),
    artifacts.AGG_RECOMMENDATION_FUNNEL: (
        "shown_date", "domain", "variant", "model_version", "rung", "requests", "impressions", "clicks",
        "click_through_rate",
    ),
    artifacts.AGG_RECOMMENDATION_EFFECTIVENESS: (
        "domain", "variant", "window_days", "window_start_date", "window_end_date", "impressions", "clicks",
        "conversions", "click_through_rate", "conversion_rate", "users", "users_clicked", "users_converted",
        "items_shown", "coverage", "novelty_bits", "popularity_rank",
    ),
    artifacts.AGG_SESSIONS: (
        "session_date", "domain", "sessions", "users", "events", "single_event_sessions", "median_events",
        "median_minutes",
    ),
    artifacts.AGG_COHORT_RETENTION: (
        "domain", "cohort_month", "age_months", "cohort_users", "active_users", "retention", "is_complete",
        "is_small_cohort",
    ),
    artifacts.AGG_MODEL_QUALITY: ("as_of", "cut_id", "model", "metric", "value", "value_over_baseline"),
    artifacts.OUTCOMES: (
        "verdict", "station", "check_name", "subject", "observed", "expected", "outcome_date",
    ),
    artifacts.AGG_MODEL_FRONT: (
        "as_of", "cut_id", "model", "framework", "ndcg_at_10", "inference_p50_ms", "training_seconds", "peak_rss_mb",
        "is_on_front",
    ),
    artifacts.AGG_SERVICE_LEVELS: ("objective", "target", "latest_date", "good", "total", "attained", "budget_left"),
    artifacts.AGG_DAILY_OUTCOMES: (
        "outcome_date", "domain", "impressions", "clicks", "conversions", "click_through_rate", "conversion_rate",
        "purchases", "revenue",
    ),
    artifacts.AGG_REVENUE_ATTRIBUTION: (
        "domain", "variant", "users", "revenue", "revenue_per_user", "purchases_last_touch", "revenue_last_touch",
        "control_users", "revenue_incremental",
    ),
    artifacts.SEGMENT_PROFILES: (
        "as_of", "domain", "segment", "description", "users", "share", "events_per_user", "active_days_per_user",
        "revenue_per_user", "click_through_rate", "favourite_categories", "segments", "silhouette", "stability",
    ),
    artifacts.SEGMENT_EFFECTIVENESS: (
        "domain", "segment", "variant", "measure", "value", "low", "high", "users", "as_of",
    ),
    artifacts.VALUE_BY_SEGMENT: (
        "domain", "segment", "customers", "value_before", "value_observed", "value_now", "holdout_days", "as_of",
    ),
    artifacts.VALUE_CALIBRATION: (
        "domain", "purchase_days", "customers", "predicted", "observed", "holdout_days", "as_of",
    ),
    artifacts.VALUE_MODELS: ("domain", "model", "parameter", "value", "as_of"),
    artifacts.NETWORK_MEASURES: ("domain", "measure", "value", "as_of"),
    artifacts.NETWORK_COMMUNITIES: (
        "domain", "community", "users", "items", "edges", "internal", "categories", "x", "y", "as_of",
    ),
    artifacts.NETWORK_LINKS: ("domain", "source", "target", "edges"),
    artifacts.NETWORK_NODES: (
        "domain", "kind", "node_id", "title", "community", "degree", "influence", "participation", "is_cut_vertex",
    ),
    artifacts.TRANSFER_VERDICTS: (
        "source_domain", "target_domain", "target_share", "bucket", "users", "alone", "transferred", "difference",
        "low", "high", "verdict", "embedding_similarity", "as_of",
    ),
    artifacts.TRANSFER_MAP: ("domain", "item_id", "title", "x", "y", "as_of"),
    artifacts.CLOUD_SHAPES: (
        "target", "shape", "vcpus", "memory_gib", "p50_ms", "p99_ms", "requests_per_s", "usd_per_hour",
        "usd_per_1000_requests", "usd_per_million_batch_users", "startup_s", "scale_out_s", "configuration_lines",
        "is_estimate", "measured_on", "prices_of",
    ),
    artifacts.DOMAIN_OVERLAP: (
        "source_domain", "target_domain", "users", "share_of_source", "jaccard", "activity_cosine",
        "taste_association", "as_of",
    ),
}  # fmt: skip
"""What the pages need of each table."""

EXPRESSIONS: dict[str, LiteralString] = {
    "domains": "subject as domains",
    "model": "detail ->> 'model' as model",
    "version": "detail ->> 'version' as version",
    "promoted": "(detail ->> 'promoted')::boolean as promoted",
    "challenger": "detail -> 'challenger' ->> 'model' as challenger",
    "reason": "observed as reason",
    "experiment": "substring(subject from '^(.*)/[^/]*$') as experiment",
    "variant": "substring(subject from '[^/]*$') as variant",
    "decision": "detail ->> 'decision' as decision",
    "told": "observed as told",
    "question": "expected as question",
    "metric": "substring(check_name from 6) as metric",
    "lift": "(detail -> 'lift' ->> 'value')::double precision as lift",
    "low": "(detail -> 'lift' ->> 'low')::double precision as low",
    "high": "(detail -> 'lift' ->> 'high')::double precision as high",
    "judgements": "count(*) as judgements",
    "is_estimate": "coalesce(kinds ->> 'p99_ms' = 'estimate', true) as is_estimate",
}
"""What is read of the columns of `READ_SO` under a name of its own."""

READ_SO = (artifacts.OUTCOMES, artifacts.CLOUD_SHAPES)


def lately(day: LiteralString, order: LiteralString) -> LiteralString:
    """Return the condition that leaves each domain the days shown before its latest one, in this order."""
    return (
        f"inner join (select domain, max({day}) as latest_day from {{table}} group by domain) as latest using (domain)"
        f" where {day} > latest_day - {{days}} order by {order}"
    )


def headlines(settings: Settings) -> pd.DataFrame:
    """Return one row per domain and headline."""
    return select(settings, artifacts.AGG_HEADLINES, "order by domain, headline")


def daily_engagement(settings: Settings) -> pd.DataFrame:
    """Return one row per day and domain, oldest first."""
    return select(settings, artifacts.AGG_DAILY_ENGAGEMENT, lately("activity_date", "activity_date, domain"))


def recommendation_funnel(settings: Settings) -> pd.DataFrame:
    """Return one row per day, domain, variant, model version and rung, latest day first."""
    return select(
        settings,
        artifacts.AGG_RECOMMENDATION_FUNNEL,
        """
        where shown_date > (select max(shown_date) from {table}) - {days}
        order by shown_date desc, domain, variant, model_version, rung
        """,
    )


def recommendation_effectiveness(settings: Settings) -> pd.DataFrame:
    """Return one row per domain, variant and window."""
    return select(settings, artifacts.AGG_RECOMMENDATION_EFFECTIVENESS, "order by domain, window_days, variant")


def sessions(settings: Settings) -> pd.DataFrame:
    """Return one row per day and domain, oldest first."""
    return select(settings, artifacts.AGG_SESSIONS, lately("session_date", "session_date, domain"))


def cohort_retention(settings: Settings) -> pd.DataFrame:
    """Return one row per domain, cohort and age."""
    return select(settings, artifacts.AGG_COHORT_RETENTION, "order by domain, cohort_month, age_months")


def model_quality(settings: Settings) -> pd.DataFrame:
    """Return the evaluations of every data cut, latest first: one row per cut, model and metric."""
    return select(settings, artifacts.AGG_MODEL_QUALITY, "order by as_of desc, cut_id, model, metric")


def daily_outcomes(settings: Settings) -> pd.DataFrame:
    """Return one row per day and domain, oldest first."""
    return select(settings, artifacts.AGG_DAILY_OUTCOMES, lately("outcome_date", "outcome_date, domain"))


def model_front(settings: Settings) -> pd.DataFrame:
    """Return one row per data cut and model, the latest cut and its best model first."""
    return select(settings, artifacts.AGG_MODEL_FRONT, "order by as_of desc, cut_id, ndcg_at_10 desc, model")


def service_levels(settings: Settings) -> pd.DataFrame:
    """Return one row per objective."""
    return select(settings, artifacts.AGG_SERVICE_LEVELS, "order by objective")


def revenue_attribution(settings: Settings) -> pd.DataFrame:
    """Return one row per domain and variant."""
    return select(settings, artifacts.AGG_REVENUE_ATTRIBUTION, "order by domain, variant")


def segment_profiles(settings: Settings) -> pd.DataFrame:
    """Return one row per domain, day and segment, oldest day first, the largest segment first."""
    return select(settings, artifacts.SEGMENT_PROFILES, lately("as_of", "domain, as_of, users desc, segment"))


def segment_effectiveness(settings: Settings) -> pd.DataFrame:
    """Return one row per domain, segment, variant and measure."""
    return select(settings, artifacts.SEGMENT_EFFECTIVENESS, "order by domain, segment, measure, variant")


def value_by_segment(settings: Settings) -> pd.DataFrame:
    """Return one row per domain and segment."""
    return select(settings, artifacts.VALUE_BY_SEGMENT, "order by domain, segment")


def value_calibration(settings: Settings) -> pd.DataFrame:
    """Return one row per domain and number of purchase days."""
    return select(settings, artifacts.VALUE_CALIBRATION, "order by domain, purchase_days")


def value_models(settings: Settings) -> pd.DataFrame:
    """Return one row per domain, model and parameter."""
    return select(settings, artifacts.VALUE_MODELS, "order by domain, model, parameter")


def network_measures(settings: Settings) -> pd.DataFrame:
    """Return one row per domain and measure."""
    return select(settings, artifacts.NETWORK_MEASURES, "order by domain, measure")


def network_communities(settings: Settings) -> pd.DataFrame:
    """Return one row per domain and community, the largest first."""
    return select(settings, artifacts.NETWORK_COMMUNITIES, "order by domain, community")


def network_links(settings: Settings) -> pd.DataFrame:
    """Return one row per domain and pair of communities."""
    return select(settings, artifacts.NETWORK_LINKS, "order by domain, source, target")


def network_nodes(settings: Settings) -> pd.DataFrame:
    """Return one row per domain and node that is among the first, the most influential first."""
    return select(settings, artifacts.NETWORK_NODES, "order by domain, kind, influence desc, node_id")


def domain_overlap(settings: Settings) -> pd.DataFrame:
    """Return one row per ordered pair of domains."""
    return select(settings, artifacts.DOMAIN_OVERLAP, "order by source_domain, target_domain")


def transfer_verdicts(settings: Settings) -> pd.DataFrame:
    """Return one row per ordered pair of domains, share of the target, and bucket of users."""
    return select(
        settings,
        artifacts.TRANSFER_VERDICTS,
        "order by source_domain, target_domain, target_share,"
        " array_position(array['all', '0', '1_to_5', '6_to_20', 'over_20'], bucket)",
    )


def transfer_map(settings: Settings) -> pd.DataFrame:
    """Return one row per item of the map."""
    return select(settings, artifacts.TRANSFER_MAP, "order by domain, item_id limit 5000")


def cloud_shapes(settings: Settings) -> pd.DataFrame:
    """Return one row per target and shape; `is_estimate` where the latency is one."""
    return select(settings, artifacts.CLOUD_SHAPES, "order by target, usd_per_hour, shape")


def stamp(settings: Settings) -> str:
    """Return a text that is another one as soon as any table of the marts, the analytics or the judgements is.

    Raises:
        ServiceUnavailable: the warehouse does not answer.
    """
    with connect(settings) as connection:
        connection.read_only = True
        (told,) = connection.execute(
            """
            select md5(string_agg(concat_ws(' ', relid, n_tup_ins, n_tup_upd, n_tup_del), ',' order by relid))
            from pg_stat_user_tables where schemaname = any(%s)
            """,
            [[artifacts.MARTS, artifacts.ANALYTICS, artifacts.MONITORING]],
        ).fetchone()
    return told or ""


def select(
    settings: Settings, table: str, condition: LiteralString, names: tuple[str, ...] = (), key: str = ""
) -> pd.DataFrame:
    """Select columns of a table, under this condition and order, in a transaction that cannot write.

    Args:
        names: of columns or `EXPRESSIONS`; the table's `COLUMNS` if there are none.
        key: a text that the condition calls `{key}`.

    Raises:
        ServiceUnavailable: the warehouse does not answer.
        MissingArtifact: the table, or a column of it, is not there.
    """
    names = names or COLUMNS[table]
    query = sql.SQL("select {columns} from {table} " + condition).format(
        columns=sql.SQL(", ").join(
            sql.SQL(EXPRESSIONS[name]) if table in READ_SO and name in EXPRESSIONS else sql.Identifier(name)
            for name in names
        ),
        table=sql.Identifier(*table.split(".")),
        days=sql.Literal(SHOWN_DAYS),
        key=sql.Literal(key),
    )
    with connect(settings) as connection:
        connection.read_only = True
        try:
            rows = connection.execute(query).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            fault = str(error).splitlines()[0]
            way_out = f"Trigger the DAG `{artifacts.DAG_PIPELINE}`; `{artifacts.DAG_INSIGHT}` follows it"
            raise MissingArtifact(f"mart {table}", fault, way_out) from error
    return pd.DataFrame(rows, columns=list(names))
