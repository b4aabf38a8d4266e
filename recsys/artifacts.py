"""Names of everything that one station writes and another reads.

Stations never import each other; they meet at these artifacts (docs/design.md).
"""

# Postgres schemas
RAW = "raw"
INTERMEDIATE = "intermediate"
MARTS = "marts"
MONITORING = "monitoring"
SERVING = "serving"
ANALYTICS = "analytics"
TUNING = "tuning"
"""Studies of `python -m training tune`, in Optuna's own tables."""

# raw tables: written by etl and streaming, read by dbt
RAW_INTERACTIONS = "raw.interactions"
RAW_ITEMS = "raw.items"
RAW_USERS = "raw.users"
RAW_IMPRESSIONS = "raw.impressions"
RAW_QUARANTINE = "raw.quarantine"
ERASED_USERS = "raw.erased_users"
REMOVED_INTERACTIONS = "raw.removed_interactions"
USER_ACTIVITY = "raw.user_activity"
INTERACTIONS_LOADS = "raw.interactions_loads"

# intermediate tables with rows of users: written by dbt, and emptied of a user who asks for it
INTERACTIONS_CHANGED = "intermediate.int_interactions_changed"
USERS_ACTIVE = "intermediate.int_users_active"

# marts: written by dbt, read by Feast, training, streaming, monitoring and the dashboard
FCT_INTERACTIONS = "marts.fct_interactions"
FCT_IMPRESSIONS = "marts.fct_impressions"
DIM_USERS = "marts.dim_users"
DIM_ITEMS = "marts.dim_items"
FEAT_USER_ACTIVITY = "marts.feat_user_activity"
FEAT_ITEM_POPULARITY = "marts.feat_item_popularity"
FEAT_USER_WINDOWS = "marts.feat_user_windows"
FEAT_ITEM_WINDOWS = "marts.feat_item_windows"
FEAT_USER_CATEGORY_WINDOWS = "marts.feat_user_category_windows"
FEAT_ITEM_PRICES = "marts.feat_item_prices"
AGG_DAILY_ENGAGEMENT = "marts.agg_daily_engagement"
AGG_RECOMMENDATION_FUNNEL = "marts.agg_recommendation_funnel"
AGG_MODEL_QUALITY = "marts.agg_model_quality"
AGG_MODEL_FRONT = "marts.agg_model_front"
AGG_SERVICE_LEVELS = "marts.agg_service_levels"
AGG_DAILY_OUTCOMES = "marts.agg_daily_outcomes"
AGG_HEADLINES = "marts.agg_headlines"
AGG_SESSIONS = "marts.agg_sessions"
AGG_COHORT_RETENTION = "marts.agg_cohort_retention"
AGG_RECOMMENDATION_EFFECTIVENESS = "marts.agg_recommendation_effectiveness"

AGG_PURCHASE_DAYS = "marts.agg_purchase_days"
AGG_USER_BEHAVIOUR = "marts.agg_user_behaviour"
AGG_USER_CATEGORIES = "marts.agg_user_categories"
AGG_REVENUE_ATTRIBUTION = "marts.agg_revenue_attribution"

# marts of fitted models: written by training/analytics, read by the dashboard
SEGMENT_PROFILES = "analytics.segment_profiles"
USER_SEGMENTS = "analytics.user_segments"
CUSTOMER_VALUES = "analytics.customer_values"
VALUE_BY_SEGMENT = "analytics.value_by_segment"
VALUE_CALIBRATION = "analytics.value_calibration"
VALUE_MODELS = "analytics.value_models"
NETWORK_MEASURES = "analytics.network_measures"
NETWORK_COMMUNITIES = "analytics.network_communities"
NETWORK_LINKS = "analytics.network_links"
NETWORK_NODES = "analytics.network_nodes"
DOMAIN_OVERLAP = "analytics.domain_overlap"
TRANSFER_VERDICTS = "analytics.transfer_verdicts"
TRANSFER_MAP = "analytics.transfer_map"
SEGMENT_EFFECTIVENESS = "analytics.segment_effectiveness"
ITEM_TEXTS = "analytics.item_texts"
"""What the titles say, as numbers; a feature view reads it."""

# judgements: written by every station, read by the dashboard and the DAGs
OUTCOMES = "monitoring.outcomes"
RECEIPTS = "monitoring.receipts"
MODEL_EVALUATIONS = "monitoring.model_evaluations"
DRIFT_REFERENCES = f"{MONITORING}.drift_references"
PIPELINE_RUNS = "monitoring.pipeline_runs"
CLOUD_SHAPES = "monitoring.cloud_shapes"
"""The clouds' comparison, written by `python -m infra.shapes`, read by the dashboard."""

# batch answers: written by serving, read by dashboards and bulk consumers
PRECOMPUTED_LISTS = "serving.precomputed_lists"
PRECOMPUTED_LISTS_BEGUN = "serving.precomputed_lists_begun"
BATCH_BEGUN = "serving.batch_begun"
"""A batch under way: what it has, and how far it has come."""
PRECOMPUTED_LISTS_FOLDER = "precomputed_lists"
"""The same lists as Parquet, in the lake."""

# topics
TOPIC_INTERACTIONS = "interactions.v1"
TOPIC_IMPRESSIONS = "impressions.v1"
DEAD_LETTER_SUFFIX = ".dlq"
CONSUMER_GROUP = "recsys-streaming"

# feature services and views (feature_repo/features.py)
FEATURE_SERVICE_RETRIEVAL = "retrieval_v1"
FEATURE_SERVICE_RANKING = "ranking_v1"
FEATURE_SERVICE_RANKING_WINDOWS = "ranking_v2"
FEATURE_SERVICE_ANALYSIS = "analysis_v1"
"""For training sets and analyses only: serving reads none of the views that it adds."""
FEATURE_VIEW_USER_ACTIVITY = "user_activity"
FEATURE_VIEW_ITEM_POPULARITY = "item_popularity"
FEATURE_VIEW_USER_WINDOWS = "user_windows"
FEATURE_VIEW_ITEM_WINDOWS = "item_windows"
FEATURE_VIEW_USER_CATEGORY_WINDOWS = "user_category_windows"
FEATURE_VIEW_ITEM_PRICES = "item_prices"
FEATURE_VIEW_ITEM_TEXTS = "item_texts"
PUSH_SOURCE_USER_ACTIVITY = "user_activity_push"
USER_FEATURES = (
    "user_interactions_total",
    "user_interactions_30d",
    "user_distinct_items",
    "user_mean_rating",
)
ITEM_FEATURES = ("item_interactions_total", "item_interactions_90d", "item_mean_rating")
USER_WINDOW_FEATURES = (
    "user_events_1d",
    "user_events_7d",
    "user_events_30d",
    "user_events_90d",
    "user_implicit_90d",
    "user_days_since_event",
    "user_sessions_30d",
    "user_recent_mean_rating",
)
ITEM_WINDOW_FEATURES = (
    "item_events_1d",
    "item_events_7d",
    "item_events_30d",
    "item_events_90d",
    "item_implicit_90d",
    "item_days_since_event",
    "item_events_decayed",
    "item_recent_mean_rating",
)
USER_CATEGORY_FEATURES = (
    "user_category_events_1d",
    "user_category_events_7d",
    "user_category_events_30d",
    "user_category_events_90d",
    "user_category_implicit_90d",
    "user_category_days_since_event",
    "user_category_recent_mean_rating",
)
ITEM_PRICE_FEATURES = ("item_price", "item_price_to_mean", "item_mean_price_90d", "item_sold_total")
ITEM_TEXT_FEATURES = ("item_text_vector",)
ITEM_TEXT_SIZE = 32
"""So many numbers has a vector of an item's text."""

# registry
REGISTERED_MODEL = "recommender"
RANKER = "ranker"
"""The registered model that orders candidates; its files are `RANKER_FILES`, beside the served bundle."""
RANKER_FILES = ("ranker.onnx", "ranker.json")
ITEM_FACTS_FILE = "item_facts.npz"
"""Beside the served bundle: price and the features of the marts, one number an item of its catalogue, NaN unknown."""
ALIAS_CHAMPION = "champion"
ALIAS_CHALLENGER = "challenger"
EXPERIMENT = "recsys"
"""MLflow's experiment of the fits; a version's run stands here."""
EXPERIMENT_EVALUATIONS = "recsys-evaluations"
EXPERIMENT_DEPLOYMENTS = "recsys-deployments"
# tags of a version on its way to champion (recsys/promotion.py)
TAG_PROMOTION_STAGE = "promotion_stage"
TAG_PROMOTION_AGAINST = "promotion_against"
TAG_PROMOTION_ENTERED_AT = "promotion_entered_at"
TAG_PROMOTION_LIVE_AT = "promotion_live_at"
TAG_PROMOTION_WHY = "promotion_why"
TAG_CHECKED_AT = "checked_at"
"""Of the registered model: when a retraining last made sure that the registry can be written to."""
TAG_MODEL = "model"
"""Which model a version of the registered model is."""
TAG_AS_OF = "as_of"
"""Instant that ends the data which a version was trained on, exclusive."""
# The slowest to train first: so many train at a time that a slow last one would keep all waiting.
MODEL_NAMES = ("two_tower", "keras_two_tower", "text_encoder", "ials", "slist", "popularity")
"""Trained by the pipeline unless its parameter `models` says otherwise."""
MODEL_ZOO = (
    *MODEL_NAMES, "ease", "item_knn", "spectral", "sasrec", "hstu", "blend", "lightgcn", "mf", "mult_vae", "neumf",
    "generative", "content_ials", "contrastive_text", "hybrid",
)  # fmt: skip
"""All models that there are: for the pipeline's parameter and the benchmark."""
BASELINE_MODEL = "popularity"
RANKER_MODELS = ("dcn_v2", "wide_deep", "mmoe")
"""Rankers of candidates that were already chosen (training/ranker.py)."""
MODELS_WITH_USER_FEATURES = ("keras_two_tower",)  # they read the feature service `retrieval_v1`

# experiment that splits live traffic (recsys/assignment.py)
EXPERIMENT_SALT = "recommendations-2026-11"

# the DAGs
DAG_PIPELINE = "recsys_pipeline"
DAG_INSIGHT = "recsys_insight"
DAG_DEPLOY = "recsys_deploy"
DAG_PROMOTION = "recsys_promotion"
DAG_HEALTH = "recsys_health"
DAG_RETRAINING = "recsys_retraining"
DAG_REST = "recsys_rest"
