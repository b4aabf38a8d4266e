"""Every setting of the platform, read here and nowhere else.

Precedence: process environment, then `<var_dir>/platform.env` (written by `make up` with the ports and the random
passwords of this installation), then the defaults below. Names in the environment carry the prefix `RECSYS_`.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from recsys.errors import RecsysError

HOME = Path(__file__).resolve().parent.parent
THREADS = "OMP_NUM_THREADS"
"""What OpenBLAS and OpenMP read, once, when they are loaded."""


class Settings(BaseSettings):
    """Where things are. No station knows whether an address is a laptop, a compose network or a cloud."""

    model_config = SettingsConfigDict(env_prefix="RECSYS_", frozen=True, extra="forbid")

    var_dir: Path = Field(HOME / "var", description="everything that this installation writes")
    data_dir: Path | None = Field(None, description="the user's own raw files in the official formats")
    data_url: str = Field(
        "",
        description="the same in object storage, read there by Spark: `s3a://`, `gs://` or `abfs://`; no data_dir then",
    )
    mix_synthetic: bool = Field(False, description="let made-up rows stand beside real ones in one domain")
    lake_url: str = Field("", description="raw tables as Parquet; default <var_dir>/lake")
    postgres_url: str = Field(
        "postgresql://recsys@127.0.0.1:15432/recsys", description="warehouse; also Feast's offline store"
    )
    redis_url: str = Field("redis://127.0.0.1:16379/0", description="online store and cache (Redis or Valkey)")
    records_url: str = Field(
        "", description="store of the requests' records alone, which needs no persistence; none: the online store"
    )
    kafka_bootstrap: str = Field("127.0.0.1:19092", description="Kafka bootstrap servers, comma-separated")
    topic_prefix: str = Field("", description="put before every topic and consumer group, to share one Kafka")
    mlflow_url: str = Field("http://127.0.0.1:15000", description="MLflow tracking and registry")
    airflow_url: str = Field("http://127.0.0.1:18081", description="Airflow's page and REST API")
    airflow_user: str = Field("admin", description="local login of the Airflow page")
    airflow_password: str = Field("", description="its password; `make up` writes a random one")
    serving_url: str = Field("http://127.0.0.1:18080", description="the recommendation API")
    streaming_url: str = Field("http://127.0.0.1:18082", description="health and metrics of the stream consumer")
    monitoring_url: str = Field("http://127.0.0.1:18083", description="metrics of the pipelines for Prometheus")
    dashboard_url: str = Field("http://127.0.0.1:18501", description="the executive dashboard")
    api_keys: str = Field("", description="JSON file of API keys, hashed; none: the API asks for no key")
    model_dir: Path | None = Field(None, description="served model bundle; default <var_dir>/serving/current")
    graph_file: Path | None = Field(
        None, description="declares the serving graph: ladder, stages, rules (TOML); default `serving/graph.toml`"
    )
    experiments_file: Path | None = Field(
        None, description="declares the experiments (TOML); default `recsys/experiments.toml`"
    )
    variant_weights: dict[str, float] = Field(
        {}, description="share of the users that each variant gets, in place of the declared experiments; sums to one"
    )
    approximate_from: int = Field(
        500_000, ge=0, description="items from which on a deployment builds an approximate index; 0: it never does"
    )
    request_days: int = Field(30, ge=1, description="days for which an answer can be explained by its request id")
    answer_cache_seconds: int = Field(
        600,
        ge=0,
        description="longest life of a list that answers again; the user's next event ends it; 0: none does",
    )
    alert_webhook: str = Field(
        "", description="URL that gets a JSON message of each alert of Airflow; none: no message"
    )
    alert_emails: str = Field("", description="comma-separated addresses that get each alert; none: no e-mail")
    alert_sender: str = Field("recsys@localhost", description="address that the e-mails come from")
    smtp_url: str = Field(
        "smtp://127.0.0.1:25",
        description="mail server: smtp (plain), smtp+starttls or smtps, with user and password where it wants them",
    )
    runbook_url: str = Field("", description="where people read the runbooks, for links; none: `docs/runbooks`")
    schedule_from: date | None = Field(None, description="first day of the daily schedule; set by the first `make up`")
    threads: int = Field(1, ge=1, description="numeric threads of a process (BLAS, OpenMP, torch, TensorFlow)")
    spark_master: str = Field("local[2]", description="Spark master of the batch jobs")
    spark_memory: str = Field("2g", description="heap of the Spark driver")
    spark_packages: str = Field(
        "", description="Maven coordinates of further jars of Spark, comma-separated: connectors of object stores"
    )
    spark_options: dict[str, str] = Field({}, description="further options of the Spark session, as a JSON object")
    promotion_planned_users: int = Field(
        10_000, ge=100, description="users of both versions at the canary of 10 %, after which it is decided"
    )
    promotion_min_users: int = Field(
        100, ge=30, description="users who see a candidate at each other canary; copies of requests in the shadow"
    )
    promotion_margin: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="how much worse than the champion a candidate may be, relative; 0: it must be better",
    )
    promotion_least_equality: float = Field(
        0.0,
        ge=0,
        le=1,
        description="a challenger's ndcg@10 for its worst-served group of users over its best-served, by how much is"
        " known of them, at least; 0 asks nothing",
    )
    promotion_days: int = Field(14, ge=1, description="longest stay of a candidate at one stage")
    promotion_look_seconds: int = Field(60, ge=5, description="how often `recsys_promotion` looks")
    label_delay_seconds: int = Field(
        3600, ge=0, description="a click that has not come so long after its impression does not come"
    )
    retraining_look_seconds: int = Field(900, ge=5, description="how often `recsys_retraining` looks")
    retraining_days: int = Field(7, ge=1, description="age in days at which a model is trained anew whatever is seen")
    retraining_cooldown_hours: float = Field(24, ge=0, description="shortest time between two retrainings")
    retraining_retry_hours: float = Field(
        1, ge=0, description="the same after a retraining that gave no candidate: nothing was changed by it"
    )
    retraining_landing_seconds: float = Field(
        120, ge=0, description="longest wait of a decision to train until the stream has landed what users did"
    )
    retraining_new_share: float = Field(
        0.1, gt=0, description="new events that are worth a retraining, relative to those of the last one"
    )
    retraining_budget_cpu_hours: float = Field(20, ge=0, description="CPU hours for training in thirty days")
    retraining_cpu_hour_usd: float = Field(0.05, ge=0, description="price of a CPU hour")
    retraining_click_usd: float = Field(0.01, ge=0, description="worth of a click; the gain has to exceed the cost")
    clouds: str = Field("", description="JSON file that says where in which cloud releases go; none: this machine only")
    seed: int = Field(1, description="seed of every training and sampling")
    wandb_mode: Literal["disabled", "offline", "online"] = Field(
        "disabled", validation_alias="WANDB_MODE", description="whether Weights & Biases mirrors MLflow's runs"
    )
    vertex_http_port: int | None = Field(
        None, validation_alias="AIP_HTTP_PORT", description="set by Vertex AI: the port that the container serves on"
    )
    vertex_health_route: str = Field(
        "/ping", validation_alias="AIP_HEALTH_ROUTE", description="set by Vertex AI: route of its health checks"
    )
    vertex_predict_route: str = Field(
        "/predict", validation_alias="AIP_PREDICT_ROUTE", description="set by Vertex AI: route of its predictions"
    )

    @property
    def lake(self) -> str:
        return self.lake_url or str(self.var_dir / "lake")

    @property
    def served_model(self) -> Path:
        return self.model_dir or self.var_dir / "serving" / "current"

    @property
    def record_store(self) -> str:
        """Address of the store that the requests' records are in."""
        return self.records_url or self.redis_url

    def libpq_environment(self) -> dict[str, str]:
        """The warehouse's address in libpq's own variables, for tools that read those (dbt, Feast)."""
        url = urlsplit(self.postgres_url)
        return {
            "PGHOST": url.hostname or "127.0.0.1",
            "PGPORT": str(url.port or 5432),
            "PGUSER": unquote(url.username or ""),
            "PGPASSWORD": unquote(url.password or ""),
            "PGDATABASE": url.path.lstrip("/"),
        }

    def own_environment(self) -> dict[str, str]:
        """The environment for a process of the same station: it reads these very settings, however they were made."""
        said = {}
        for name, value in self.model_dump(mode="json", exclude_none=True).items():
            variable = type(self).model_fields[name].validation_alias or f"RECSYS_{name.upper()}"
            said[str(variable)] = value if isinstance(value, str) else json.dumps(value)
        return {**os.environ, **said}

    def child_environment(self) -> dict[str, str]:
        """The environment for a command that this process starts: ours, and what foreign tools read."""
        redis = urlsplit(self.redis_url)
        return {
            **os.environ,
            **self.libpq_environment(),
            "RECSYS_VAR_DIR": str(self.var_dir),
            "DBT_TARGET_PATH": str(self.var_dir / "dbt" / "target"),
            "DBT_LOG_PATH": str(self.var_dir / "dbt" / "logs"),
            "FEAST_REDIS": f"{redis.hostname}:{redis.port},db={redis.path.strip('/') or 0}"
            + (f",password={redis.password}" if redis.password else ""),
            "FEAST_USAGE": "False",
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            THREADS: str(self.threads),
        }


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Return this process's settings.

    Raises:
        RecsysError: a value has the wrong type, or `platform.env` holds an unknown name. It names the setting and not
            the value, which may be a password.
    """
    var_dir = Path(os.environ.get("RECSYS_VAR_DIR", HOME / "var"))
    try:
        return Settings(_env_file=var_dir / "platform.env", var_dir=var_dir)
    except ValidationError as error:
        faults = "; ".join(f"{_variable(fault['loc'])}: {fault['msg']}" for fault in error.errors(include_input=False))
    except SettingsError as error:  # a JSON object that is none
        faults = str(error)
    raise RecsysError("settings", faults, "See docs/settings.md")


def limit_threads() -> None:
    """Give numeric libraries that are loaded from here on the settings' `threads`, where the environment says nothing.

    By themselves they take a thread a processor, and on a busy machine each product waits for the slowest of them.

    Raises:
        RecsysError: as `load_settings`.
    """
    os.environ.setdefault(THREADS, str(load_settings().threads))


def _variable(place: tuple[int | str, ...]) -> str:
    """Return the variable that a fault's place stands for, as the user wrote it."""
    name = str(place[0])
    return f"RECSYS_{name.upper()}" if name in Settings.model_fields else name.upper()


def process_environment(**said: str) -> dict[str, str]:
    """Return this process's environment with these values, for a process that it starts."""
    return {**os.environ, **said}


def default_environment(**said: str) -> None:
    """Set what a foreign library reads from the environment when it is imported; what the user has set stays."""
    for name, value in said.items():
        os.environ.setdefault(name, value)


@contextmanager
def environment(**said: str) -> Iterator[None]:
    """Set what a foreign library reads from the environment while the block runs; what the user has set stays."""
    missing = {name: value for name, value in said.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]
