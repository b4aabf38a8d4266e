"""What the serving process counts, in Prometheus's form; the names are part of its contract (README.md)."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from recsys.bundle import Manifest

LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.015, 0.03, 0.06, 0.1, 0.25, 0.5, 1, 2.5)
disable_created_metrics()  # one series a counter is enough

REDIS, KAFKA = "redis", "kafka"


class Metrics:
    """One process's counters, in a registry of their own, so that two apps in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "recsys_requests_total",
            "Answered requests",
            ["route", "status", "rung", "variant"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "recsys_request_seconds",
            "Time to answer, as the process sees it",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.cached = Counter(
            "recsys_cached_lists_total",
            "Look-ups of a stored list: hit, absent, stale, refused; held: an answer in the process was given again",
            ["result"],
            registry=self.registry,
        )
        self.cached_age = Histogram(
            "recsys_cached_list_age_seconds",
            "Age of a list that an earlier answer left behind, when it answers again",
            buckets=(1, 5, 15, 60, 300, 900, 3600),
            registry=self.registry,
        )
        self.saved_seconds = Counter(
            "recsys_saved_seconds_total",
            "Time that the core would have taken for answers that a stored list gave, by its latest mean",
            registry=self.registry,
        )
        self.dependency_errors = Counter(
            "recsys_dependency_errors_total",
            "Failures of a service that this one leans on; each cost a rung or freshness",
            ["dependency"],
            registry=self.registry,
        )
        self.published = Counter(
            "recsys_published_total",
            "Messages whose fate the log has told: acknowledged or failed",
            ["topic", "outcome"],
            registry=self.registry,
        )
        self.impressions_dropped = Counter(
            "recsys_impressions_dropped_total",
            "Shown items that never reach the log, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.records_dropped = Counter(
            "recsys_request_records_dropped_total",
            "Answers that cannot be explained later, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.candidate_failures = Counter(
            "recsys_candidate_failures_total",
            "Answers that a version on its way to champion failed to give; the champion gave them",
            ["model_version"],
            registry=self.registry,
        )
        self.shadow_answers = Counter(
            "recsys_shadow_answers_total",
            "Copies of requests for a version in the shadow: answered, failed, or dropped for want of room",
            ["model_version", "outcome"],
            registry=self.registry,
        )
        self.shadow_items = Counter(
            "recsys_shadow_items_total",
            "Items of a shadow's lists: shared with the champion's list, or other ones",
            ["model_version", "placed"],
            registry=self.registry,
        )
        self.reloads = Counter(
            "recsys_model_reloads_total",
            "Models and serving graphs that were picked up: loaded, graph; or broken, broken_graph (the earlier one "
            "goes on answering), without_its_ranker (lists keep the order of retrieval)",
            ["outcome"],
            registry=self.registry,
        )
        self.model = Gauge(
            "recsys_model_info",
            "The model that answers; always 1",
            ["model", "model_version", "kind", "cut_id"],
            registry=self.registry,
        )

    def show_model(self, manifest: Manifest, version: str) -> None:
        """Make this the one model that the metrics name."""
        self.model.clear()
        self.model.labels(manifest.model, version, manifest.kind, manifest.cut_id).set(1)

    def exposition(self) -> bytes:
        """Return the counters in Prometheus's text format."""
        return generate_latest(self.registry)
