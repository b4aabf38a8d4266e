"""MLflow: one run a fit, the bundle as a pyfunc model, the registry with its two aliases.

Everything here may be done twice: a run is found again by its fingerprint, a version by its run.
"""

import importlib
import platform
import subprocess
import sys
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import mlflow.pyfunc
import numpy as np
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array

from recsys import receipts
from recsys.artifacts import (
    EXPERIMENT,
    EXPERIMENT_EVALUATIONS,
    FEATURE_SERVICE_RETRIEVAL,
    MODELS_WITH_USER_FEATURES,
    RANKER,
    RANKER_FILES,
    REGISTERED_MODEL,
    TAG_AS_OF,
    TAG_MODEL,
)
from recsys.errors import MissingArtifact, ServiceUnavailable
from recsys.settings import HOME, Settings

# Feast registers a plugin for its own login at MLflow, and MLflow loads it before its first request: 10 CPU-seconds and
# 500 MB in every process that talks to the registry. A None makes that import fail, which MLflow passes over.
sys.modules.setdefault("feast", None)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    importlib.import_module("mlflow.tracking.request_header.registry")
if sys.modules["feast"] is None:
    del sys.modules["feast"]

PYFUNC_CODE = Path(__file__).with_name("pyfunc_model.py")
FINGERPRINT_TAG = "fit_fingerprint"
MODEL_ID_TAG = "logged_model_id"
REQUIREMENTS = ("numpy", "onnxruntime", "pandas", "pydantic", "pydantic-settings")
"""What the pyfunc needs; no training framework among it."""
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(Array(DataType.string), "history")]),
    outputs=Schema([ColSpec(Array(DataType.string), "item_id"), ColSpec(Array(DataType.double), "score")]),
    params=ParamSchema([ParamSpec("k", DataType.long, 10)]),
)


@contextmanager
def reaching(settings: Settings):
    """Point MLflow at the server; an unreachable one becomes one sentence.

    Raises:
        ServiceUnavailable: the server does not answer.
    """
    mlflow.set_tracking_uri(settings.mlflow_url)
    try:
        yield MlflowClient(settings.mlflow_url)
    except MlflowException as error:
        raise ServiceUnavailable(
            "MLflow", error.message.splitlines()[0], "Start it with `make up`, or set RECSYS_MLFLOW_URL"
        ) from error


def lineage(settings: Settings, made: dict[str, Any], framework: str, name: str) -> dict[str, str]:
    """Return the tags by which a run and a version can be traced to their data and code."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HOME, capture_output=True, text=True, check=False)
    return {
        TAG_MODEL: name,
        "framework": framework,
        "cut_id": made["cut_id"],
        TAG_AS_OF: made["as_of"],
        "domains": ",".join(made["domains"]),
        "feature_service": FEATURE_SERVICE_RETRIEVAL if name in MODELS_WITH_USER_FEATURES else "none",
        "git_commit": git.stdout.strip() or "unknown",
        "seed": str(settings.seed),
        "environment": environment(),
    }


def environment() -> str:
    """Return what the code ran on: Python, the system, and a digest of the lock that its libraries come from."""
    lock = receipts.file_fingerprint(HOME / "requirements" / "platform.txt")[:12]
    return f"python {platform.python_version()}, {platform.system()} {platform.machine()}, requirements {lock}"


def experiment_id(client: MlflowClient, name: str = EXPERIMENT) -> str:
    """Return the experiment, made if it is missing; two fits may ask at once."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # the other fit was first
            if found is None:
                raise
    return found.experiment_id


def finished_run(client: MlflowClient, fingerprint: str) -> Run | None:
    """Return the finished run of this very fit; unfinished ones of a killed process are deleted."""
    chosen = None
    for run in client.search_runs([experiment_id(client)], f"tags.{FINGERPRINT_TAG} = '{fingerprint}'"):
        if run.info.status == "FINISHED" and chosen is None:
            chosen = run
        else:
            client.delete_run(run.info.run_id)
    return chosen


def log_fit(
    client: MlflowClient,
    folder: Path,
    name: str,
    tags: dict[str, str],
    parameters: dict[str, Any],
    metrics: dict[str, float],
) -> str:
    """Log one fit: parameters, metrics, tags, native weights, the bundle as a pyfunc model. Returns the run id."""
    with mlflow.start_run(experiment_id=experiment_id(client), run_name=name, tags=tags) as run:
        mlflow.log_params(parameters)
        mlflow.log_metrics(metrics)
        mlflow.log_artifacts(str(folder / "native"), "native")
        with TemporaryDirectory() as scratch:
            code = Path(scratch) / "recsys"
            _copy_package(HOME / "recsys", code)
            logged = mlflow.pyfunc.log_model(
                name=name,
                python_model=str(PYFUNC_CODE),
                artifacts={"bundle": str(folder / "bundle")},
                code_paths=[str(code)],
                pip_requirements=list(REQUIREMENTS),
                signature=SIGNATURE,
                tags=tags,
            )
        client.set_tag(run.info.run_id, MODEL_ID_TAG, logged.model_id)
        return run.info.run_id


def log_ranker(
    client: MlflowClient,
    folder: Path,
    name: str,
    tags: dict[str, str],
    parameters: dict[str, Any],
    metrics: dict[str, float],
) -> str:
    """Log one ranker: parameters, metrics, tags, its graph as an ONNX model with the signature file beside it.

    Returns the run id.
    """
    import mlflow.onnx
    import onnx

    graph = onnx.load(folder / RANKER_FILES[0])
    inputs, outputs = (
        Schema([
            TensorSpec(np.dtype(np.float32), tuple(d.dim_value or -1 for d in put.type.tensor_type.shape.dim), put.name)
            for put in puts
        ])
        for puts in (graph.graph.input, graph.graph.output)
    )  # fmt: skip
    with mlflow.start_run(experiment_id=experiment_id(client), run_name=name, tags=tags) as run:
        mlflow.log_params(parameters)
        mlflow.log_metrics(metrics)
        logged = mlflow.onnx.log_model(
            graph,
            name=name,
            extra_files=[str(folder / RANKER_FILES[1])],
            pip_requirements=["numpy", "onnx", "onnxruntime"],
            save_as_external_data=False,
            signature=ModelSignature(inputs=inputs, outputs=outputs),
            tags=tags,
        )
        client.set_tag(run.info.run_id, MODEL_ID_TAG, logged.model_id)
        return run.info.run_id


def _copy_package(source: Path, target: Path) -> None:
    """Copy a package's sources, without compiled files."""
    target.mkdir()
    for path in source.iterdir():
        if path.suffix in {".py", ".sql"}:
            (target / path.name).write_bytes(path.read_bytes())


def log_evaluation(
    client: MlflowClient,
    about: dict[str, str],
    fingerprint: str,
    quality: Mapping[str, Mapping[str, float]],
    took: Mapping[str, float],
    plot: Figure,
) -> str:
    """Log one evaluation of several models: what was judged, each model's metrics, its plot and what it took. One that
    was logged already, by a process that was killed before its receipt, is replaced. Returns the run id.

    Args:
        about: the tags by which data, code and environment can be traced; they are its parameters too.
        quality: model → metric → value.
    """
    experiment = experiment_id(client, EXPERIMENT_EVALUATIONS)
    for earlier in client.search_runs([experiment], f"tags.{FINGERPRINT_TAG} = '{fingerprint}'"):
        client.delete_run(earlier.info.run_id)
    tags = {**about, FINGERPRINT_TAG: fingerprint}
    with mlflow.start_run(experiment_id=experiment, run_name=f"evaluation of {about['cut_id']}", tags=tags) as run:
        mlflow.log_params({name: value for name, value in about.items() if value})
        mlflow.log_metrics(took)
        mlflow.log_metrics({f"{model}.{name}": one for model, told in quality.items() for name, one in told.items()})
        mlflow.log_figure(plot, "models.png")
        return run.info.run_id


def log_metrics(client: MlflowClient, run_id: str, metrics: dict[str, float], instant_ms: int) -> None:
    """Add metrics to a finished run. `instant_ms`: the as-of instant, so that a second time changes nothing."""
    client.log_batch(run_id, metrics=[Metric(name, value, instant_ms, 0) for name, value in metrics.items()])


def register(
    client: MlflowClient, run_id: str, tags: dict[str, str], registered: str = REGISTERED_MODEL
) -> ModelVersion:
    """Return the version of this run, registered if it is not yet; its tags are set anew."""
    _registered_model(client, registered)
    versions = client.search_model_versions(f"name = '{registered}' and run_id = '{run_id}'")
    if versions:
        version = versions[0]
        for key, value in tags.items():
            client.set_model_version_tag(registered, version.version, key, value)
        return version
    run = client.get_run(run_id)
    model_id = run.data.tags[MODEL_ID_TAG]
    return client.create_model_version(
        registered, source=f"models:/{model_id}", run_id=run_id, tags=tags, model_id=model_id
    )


def _registered_model(client: MlflowClient, registered: str) -> None:
    if client.search_registered_models(f"name = '{registered}'"):
        return
    client.create_registered_model(registered, description=f"The {registered}; aliases champion and challenger")


def aliased_version(client: MlflowClient, alias: str, registered: str = REGISTERED_MODEL) -> str | None:
    """Return the version that an alias points at, or None."""
    models = client.search_registered_models(f"name = '{registered}'")
    version = models[0].aliases.get(alias) if models else None
    return None if version is None else str(version)


def describe(client: MlflowClient, version: str) -> dict[str, str]:
    """Return version, model, run_id and as_of of a registered version."""
    found = client.get_model_version(REGISTERED_MODEL, version)
    return {
        "version": str(found.version),
        "model": found.tags["model"],
        "run_id": found.run_id,
        "as_of": found.tags["as_of"],
    }


def fetch_bundle(version: str, folder: Path) -> Path:
    """Download a registered version's bundle into a folder.

    Raises:
        MissingArtifact: the version holds no bundle.
    """
    uri = f"models:/{REGISTERED_MODEL}/{version}"
    bundle = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))) / "artifacts" / "bundle"
    if not bundle.is_dir():
        raise MissingArtifact("bundle", uri, "Move the alias to a version that this platform registered")
    return bundle


def fetch_ranker(version: str, folder: Path) -> tuple[Path, str]:
    """Download a registered ranker into a folder; return its graph and the feature service that it reads."""
    uri = f"models:/{RANKER}/{version}"
    reads = MlflowClient().get_model_version(RANKER, version).tags["feature_service"]
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))) / "model.onnx", reads
