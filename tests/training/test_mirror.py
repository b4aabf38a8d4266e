"""The mirror at Weights & Biases, written without an account and read back from its own file."""

import json
from pathlib import Path

import mlflow
import pytest
import wandb
from mlflow import MlflowClient
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal.datastore import DataStore

from recsys.settings import Settings
from training import mirror, tracking

pytestmark = pytest.mark.services


def records(file: Path) -> list[wandb_internal_pb2.Record]:
    """Return what an offline run holds, as `wandb sync` would read it."""
    store, found = DataStore(), []
    store.open_for_scan(str(file))
    while (data := store.scan_data()) is not None:
        found.append(wandb_internal_pb2.Record.FromString(data))
    return found


def copies(settings: Settings, run_id: str) -> list[Path]:
    return sorted(settings.var_dir.glob(f"wandb/wandb/offline-run-*-{run_id}/run-{run_id}.wandb"))


@pytest.fixture
def settings(world, tmp_path) -> Settings:
    return world("postgres", "mlflow").model_copy(update={"var_dir": tmp_path})


@pytest.fixture
def run_id(settings) -> str:
    with tracking.reaching(settings) as client:
        tags = {"model": "slist", "framework": "numpy", "cut_id": "2020-06-01-abc"}
        with mlflow.start_run(experiment_id=tracking.experiment_id(client), run_name="slist", tags=tags) as run:
            mlflow.log_params({"reg": 200.0, "seed": 1})
            mlflow.log_metrics({"ndcg_at_10": 0.25})
    return run.info.run_id


def test_nothing_is_mirrored_unless_asked(settings, run_id):
    assert not mirror.mirror_run(MlflowClient(settings.mlflow_url), run_id, settings)
    assert not (settings.var_dir / "wandb").exists()


def test_an_offline_copy_holds_what_mlflow_holds(settings, run_id):
    offline = settings.model_copy(update={"wandb_mode": "offline"})
    assert mirror.mirror_run(MlflowClient(settings.mlflow_url), run_id, offline)
    (file,) = copies(settings, run_id)
    found = records(file)
    run = next(record.run for record in found if record.HasField("run"))
    config = {update.key: json.loads(update.value_json) for update in run.config.update}
    summary = {up.key: json.loads(up.value_json) for record in found for up in record.summary.update if up.key}
    assert (run.run_id, run.display_name, list(run.tags)) == (run_id, "slist", ["slist", "numpy"])
    assert config["reg"] == "200.0"
    assert config["tag.cut_id"] == "2020-06-01-abc"
    assert summary["ndcg_at_10"] == 0.25


def test_a_mirror_that_fails_is_told_and_fails_nothing(settings, run_id, monkeypatch, caplog):
    def refuse(**_):
        raise wandb.errors.CommError("no account")

    monkeypatch.setattr(wandb, "init", refuse)
    online = settings.model_copy(update={"wandb_mode": "online"})
    assert not mirror.mirror_run(MlflowClient(settings.mlflow_url), run_id, online)
    assert "no account" in caplog.text
    assert run_id in caplog.text
