"""`python -m training cut|fit|evaluate|register|promote|rank|tune|transfer --as-of D --domains D`, `move`, `decide`."""

import argparse
import os
from datetime import UTC, datetime

from recsys import station
from recsys.artifacts import FEATURE_SERVICE_RANKING, MODEL_NAMES, MODEL_ZOO, RANKER_MODELS
from recsys.errors import RecsysError
from recsys.interval import Interval, add_arguments, from_arguments
from recsys.settings import Settings, load_settings
from training import tasks

QUIET = {
    "HF_HUB_OFFLINE": "1",  # checkpoints come with packages
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}
"""Foreign libraries read these at their import."""


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m training")
    commands = root.add_subparsers(dest="command", required=True)
    for name, described in (
        ("cut", "freeze the marts into files: training part, test users"),
        ("fit", "train one model and log it"),
        ("evaluate", "judge the fitted models on the same test users"),
        ("register", "make them versions of the registered model"),
        ("promote", "let the challenger become champion if it earned it"),
        ("rank", "train, judge and register a ranker of chosen candidates"),
        ("transfer", "say what each domain teaches the others"),
        ("tune", "search for a model's settings on a part of the cut's training part"),
    ):
        command = commands.add_parser(name, help=described)
        add_arguments(command)
        if name in {"fit", "tune"}:
            command.add_argument("--model", required=True, help=f"one of {', '.join(MODEL_ZOO)}")
        if name == "fit":
            command.add_argument("--warm", action="store_true", help="begin where the served model of this kind is")
        if name == "tune":
            command.add_argument("--trials", type=int, default=30, help="of the whole study, earlier calls included")
            command.add_argument("--seconds", type=float, default=1800, help="after which no trial is begun")
        if name == "rank":
            command.add_argument("--model", default=RANKER_MODELS[0], help=f"one of {', '.join(RANKER_MODELS)}")
            command.add_argument("--service", default=FEATURE_SERVICE_RANKING, help="the feature service it reads")
        if name in {"evaluate", "register"}:
            command.add_argument(
                "--models", default=",".join(MODEL_NAMES), help="comma-separated; default the pipeline's"
            )
        if name == "cut":
            command.add_argument(
                "--known-until",
                type=instant,
                help="when the champion's data ended: judge on the last fifth of what came since",
            )
        if name == "promote":
            command.add_argument(
                "--staged",
                action="store_true",
                help="a challenger that earned it becomes a candidate beside the champion",
            )
    moving = commands.add_parser("move", help="take the step that is due on the way of a candidate to champion")
    moving.add_argument("--back", metavar="VERSION", help="take this version back")
    moving.add_argument("--why", default="", help="the reason, for the audit")
    commands.add_parser("decide", help="shall a new model be trained? Says why, or why not")
    return root


def instant(text: str) -> datetime:
    """Return an instant (ISO 8601); without an offset it is UTC."""
    given = datetime.fromisoformat(text)
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def chosen(models: str) -> tuple[str, ...]:
    """Return the chosen models in the order of `MODEL_ZOO`.

    Raises:
        RecsysError: one is unknown, or none is named.
    """
    named = set(filter(None, models.split(",")))
    if not named or named - set(MODEL_ZOO):
        raise RecsysError("--models", models, f"Choose among {', '.join(MODEL_ZOO)}")
    return tuple(name for name in MODEL_ZOO if name in named)


def main() -> dict:
    os.environ.update(QUIET)
    arguments = parser().parse_args()
    if arguments.command == "decide":
        from training.decide import decide_retraining

        return decide_retraining(load_settings(), datetime.now(UTC))
    if arguments.command == "move":
        from training.move import move

        return move(load_settings(), datetime.now(UTC), arguments.back, arguments.why)
    return of_interval(load_settings(), from_arguments(arguments), arguments)


def of_interval(settings: Settings, interval: Interval, arguments: argparse.Namespace) -> dict:
    """Run a command that is a function of its interval."""
    match arguments.command:
        case "cut":
            return tasks.cut(settings, interval, arguments.known_until)
        case "fit":
            return tasks.fit(settings, interval, arguments.model, arguments.warm)
        case "evaluate":
            return tasks.evaluate(settings, interval, chosen(arguments.models))
        case "register":
            return tasks.register(settings, interval, chosen(arguments.models))
        case "rank":
            from training import rank

            return rank.run(settings, interval, arguments.model, arguments.service)
        case "transfer":
            from training import transfer

            return transfer.run(settings, interval)
        case "tune":
            from training import tune

            return tune.run(settings, interval, arguments.model, arguments.trials, arguments.seconds)
        case _:
            return tasks.promote(settings, interval, datetime.now(UTC) if arguments.staged else None)


if __name__ == "__main__":
    station.run(main)
