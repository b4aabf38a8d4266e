"""Weights & Biases as a mirror of MLflow: a run there is a copy of a run here, and bears its id.

Off unless `WANDB_MODE` says `online` (needs the account that `wandb login` knows) or `offline`: then the copies lie
below `<var_dir>/wandb` until somebody sends them (`wandb sync`). MLflow stays what everything else reads; a mirror that
cannot be written is a warning in the log, never a failed task.
"""

import logging

from mlflow import MlflowClient
from mlflow.entities import Run

from recsys.artifacts import EXPERIMENT
from recsys.settings import Settings

DISABLED = "disabled"
log = logging.getLogger(__name__)


def mirror_run(client: MlflowClient, run_id: str, settings: Settings) -> bool:
    """Copy a run's parameters, tags and last metrics; return whether that was done.

    Copied again after more was measured, it is the same run at W&B: the later copy's values stand.
    """
    if settings.wandb_mode == DISABLED:
        return False
    import wandb

    run = client.get_run(run_id)
    folder = settings.var_dir / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with wandb.init(
            project=EXPERIMENT,
            id=run_id,
            name=run.info.run_name,
            mode=settings.wandb_mode,
            resume="allow" if settings.wandb_mode == "online" else None,
            dir=str(folder),
            config=_config(run),
            tags=[run.data.tags[name] for name in ("model", "framework") if name in run.data.tags],
            # Neither the working tree nor what else the machine does leaves it.
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
            ),
        ) as copy:
            copy.summary.update(run.data.metrics)
        # Finishing a run does not wait for its file: only the end of W&B's own process says that all was written.
        wandb.teardown()
    except wandb.Error as error:
        log.warning("run %s is in MLflow and not in Weights & Biases: %s", run_id, error)
        return False
    return True


def _config(run: Run) -> dict[str, str]:
    """Return what was decided before the run: its parameters, and the tags by which it can be traced."""
    tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    return {**run.data.params, **{f"tag.{name}": value for name, value in sorted(tags.items())}}
