"""Shell of the embedded platform: `python -m infra.local up|down|status|clean|demo|deploy|follow|rollback|…`."""

import getpass
import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys import interval, station
from recsys.artifacts import MODEL_NAMES
from recsys.columns import DOMAINS
from recsys.settings import Settings, load_settings


def main() -> Mapping[str, Any]:
    arguments = _parse()
    settings = load_settings()
    logging.getLogger("kafka").setLevel(logging.ERROR)  # it tells every connection, and every slow moment
    if arguments.command in ("deploy", "follow", "rollback", "lineage", "smoke", "warehouse-docs"):
        return _use(settings, arguments)
    return _run(settings, arguments)


def _use(settings: Settings, arguments: Namespace) -> Mapping[str, Any]:
    """Use what runs."""
    if arguments.command in ("deploy", "follow", "rollback"):
        return _deploy(settings, arguments)
    if arguments.command == "lineage":
        from recsys.lineage import lineage

        return lineage(settings, arguments.id)
    if arguments.command == "smoke":
        from infra.local.smoke import smoke

        return smoke(settings)

    from infra.local import warehouse_docs

    print(f"The warehouse's pages, until you press Ctrl-C: http://127.0.0.1:{arguments.port}", flush=True)
    warehouse_docs.serve(settings, arguments.port)
    return {"served": arguments.port}


def _deploy(settings: Settings, arguments: Namespace) -> Mapping[str, Any]:
    """Change what serves, and log it as a run where something has changed."""
    from infra.deployments import log_deployment

    began, way = datetime.now(UTC), "pipeline"
    if arguments.command == "deploy":
        from infra.local.deploy import deploy

        done = deploy(settings, interval.from_arguments(arguments))
        version = None if done["unchanged"] else done["model_version"]
    elif arguments.command == "follow":
        from infra.local.follow import follow

        done, way = follow(settings, lambda: datetime.now(UTC)), "promotion"
        version = done["promoted"]
    else:
        from infra.local.rollback import rollback

        done, way = rollback(settings, getpass.getuser(), began, arguments.to or None, arguments.why), "rollback"
        version = done["to"]
    if version is not None:
        log_deployment(settings, version, way, (began, datetime.now(UTC)), done)
    return done


def _run(settings: Settings, arguments: Namespace) -> Mapping[str, Any]:
    """Start, show, stop or remove the platform."""
    from infra.local import platform

    today = datetime.now(UTC).date()
    if arguments.command == "demo":
        from infra.local.demo import interval_of, run_demo

        platform.up(settings, today, ("dashboard",))
        settings = load_settings()
        if arguments.data_dir is not None:
            settings = platform.configure(settings, Path(arguments.data_dir) if arguments.data_dir else None)
        return run_demo(settings, interval_of(arguments, today), tuple(arguments.models.split(",")), today)
    if arguments.command == "up":
        return platform.up(settings, today, tuple(arguments.extra))
    if arguments.command == "down":
        return platform.down(settings)
    if arguments.command == "status":
        return platform.status(settings)
    return platform.clean(settings, arguments.all)


def _parse() -> Namespace:
    parser = ArgumentParser(prog="python -m infra.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start everything and wait until it is healthy")
    up.add_argument(
        "--with", dest="extra", action="append", default=[], choices=["dashboard", "monitoring"], help="start this too"
    )
    demo = commands.add_parser("demo", help="run the whole loop and show what it made")
    demo.add_argument("--as-of", help="day (UTC) whose midnight ends the data, exclusive; default today")
    demo.add_argument("--domains", default="movies", help=f"comma-separated, of {', '.join(DOMAINS)}")
    demo.add_argument("--models", default=",".join(MODEL_NAMES), help="comma-separated")
    demo.add_argument("--data-dir", help="your own raw files in the official formats; empty for the packaged ones")
    commands.add_parser("down", help="stop everything")
    commands.add_parser("status", help="show every service")
    clean = commands.add_parser("clean", help="remove what the platform wrote")
    clean.add_argument("--all", action="store_true", help="the environments below .venv too")
    deploy = commands.add_parser("deploy", help="serve the champion of the registry")
    deploy.add_argument("--target", choices=["local"], default="local")
    interval.add_arguments(deploy)
    commands.add_parser("follow", help="bring serving to the stage of the version under way")
    back = commands.add_parser("rollback", help="serve the former version again, and make it champion")
    back.add_argument("--to", help="version to go back to; default the one that the served version replaced")
    back.add_argument("--why", default="", help="for the audit")
    traced = commands.add_parser("lineage", help="back to the raw partitions, and forward again")
    traced.add_argument("id", help="a request id, a model version, a data cut, or a raw partition")
    pages = commands.add_parser("warehouse-docs", help="write dbt's docs and serve them on loopback")
    pages.add_argument("--port", type=int, default=8089)
    commands.add_parser("smoke", help="ask the live API and check its answers")
    return parser.parse_args()


if __name__ == "__main__":
    station.run(main)
