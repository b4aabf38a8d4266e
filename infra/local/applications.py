"""What runs on top of the stores: MLflow's server, serving, the stream consumer, the DAGs' metrics, the dashboard."""

import urllib.error
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

from infra.local.service import BEHIND_ANSWERS, BEHIND_EVENTS, NotHealthyYet, Service
from infra.local.stores import LOOPBACK, create_database, with_database
from recsys.settings import HOME, Settings

ENVIRONMENTS = HOME / ".venv"
MLFLOW_DATABASE = "mlflow"


def python_of(environment: str) -> str:
    """Return the interpreter of one of our environments: orchestrator, platform, serving."""
    return str(ENVIRONMENTS / environment / "bin" / "python")


def answers(url: str) -> Callable[[], None]:
    """Return a check: GET of this URL is answered with 200 within five seconds."""

    def check() -> None:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status != 200:
                    raise NotHealthyYet(f"{url} answers {response.status}")
        except (urllib.error.URLError, OSError) as error:
            raise NotHealthyYet(f"{url}: {error}") from error

    return check


def sqlalchemy_url(postgres_url: str, database: str) -> str:
    """Return the address of a database in SQLAlchemy's spelling, with psycopg 3."""
    return with_database(postgres_url, database).replace("postgresql://", "postgresql+psycopg://", 1)


def mlflow(settings: Settings) -> Service:
    """MLflow's tracking server and registry: rows in PostgreSQL, artifacts below var_dir through the server."""
    url = urlsplit(settings.mlflow_url)
    artifacts = settings.var_dir.resolve() / "mlflow" / "artifacts"

    def prepare() -> None:
        artifacts.mkdir(parents=True, exist_ok=True, mode=0o700)
        create_database(settings.postgres_url, MLFLOW_DATABASE)

    return Service(
        name="mlflow",
        command=(
            python_of("platform"), "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(url.port),
            "--workers", "1", "--serve-artifacts", "--artifacts-destination", artifacts.as_uri(),
        ),
        environment={
            "MLFLOW_BACKEND_STORE_URI": sqlalchemy_url(settings.postgres_url, MLFLOW_DATABASE),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves half of its memory
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_PYTHON_REFRESH": "quiet",
        },
        address=settings.mlflow_url,
        ports=(url.port or 5000,),
        check=answers(f"{settings.mlflow_url}/health"),
        prepare=prepare,
        after=("postgres",),
        patience_seconds=600,
        niceness=BEHIND_EVENTS,
    )  # fmt: skip


def serving(settings: Settings) -> Service:
    """The recommendation API, in the thin environment. Alive before the first deploy, ready after it."""
    url = urlsplit(settings.serving_url)
    return Service(
        name="serving",
        command=(python_of("serving"), "-m", "serving"),
        address=settings.serving_url,
        ports=(url.port or 8080,),
        check=answers(f"{settings.serving_url}/healthz"),
        prepare=lambda: (settings.var_dir / "serving").mkdir(parents=True, exist_ok=True),
        after=("postgres", "valkey", "kafka"),
    )


def streaming(settings: Settings) -> Service:
    """The consumer of both topics; its port answers with its health and its metrics."""
    url = urlsplit(settings.streaming_url)
    return Service(
        name="streaming",
        command=(python_of("platform"), "-m", "streaming"),
        address=settings.streaming_url,
        ports=(url.port or 8082,),
        check=answers(f"{settings.streaming_url}/healthz"),
        after=("postgres", "valkey", "kafka"),
        patience_seconds=600,
        niceness=BEHIND_ANSWERS,
    )


def monitoring(settings: Settings) -> Service:
    """The pipelines' metrics for Prometheus; started on request."""
    url = urlsplit(settings.monitoring_url)
    return Service(
        name="monitoring",
        command=(python_of("platform"), "-m", "monitoring", "metrics"),
        address=settings.monitoring_url,
        ports=(url.port or 8083,),
        check=answers(f"{settings.monitoring_url}/metrics"),
        after=("airflow-api",),
        is_optional=True,
        niceness=BEHIND_EVENTS,
    )


def dashboard(settings: Settings) -> Service:
    """The executive dashboard; started on request."""
    port = urlsplit(settings.dashboard_url).port or 8501
    return Service(
        name="dashboard",
        command=(python_of("platform"), "-m", "dashboard"),
        environment={"PYTHONPATH": str(HOME), "RECSYS_DASHBOARD_URL": f"http://{LOOPBACK}:{port}"},
        address=settings.dashboard_url,
        ports=(port,),
        check=answers(f"{settings.dashboard_url}/_stcore/health"),
        after=("postgres",),
        is_optional=True,
        niceness=BEHIND_EVENTS,
    )
