"""Shell: `python -m monitoring drift | reference | freshness | skew | watch | pipelines | explore | metrics`."""

from argparse import ArgumentParser, Namespace
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from recsys import interval, station
from recsys.columns import DOMAINS
from recsys.settings import load_settings
from recsys.warehouse import connect


def main() -> dict[str, Any]:
    arguments = _parse()
    if arguments.command == "explore":
        from monitoring.explore import explore

        return explore(load_settings(), arguments.domains.split(","))
    if arguments.command == "pipelines":
        from monitoring.check_pipelines import check_pipelines

        return check_pipelines(load_settings(), datetime.now(UTC))
    if arguments.command == "metrics":
        return _serve_metrics()
    if arguments.command == "watch":
        from monitoring.live import watch

        return watch(load_settings(), datetime.now(UTC))
    settings, watched = load_settings(), interval.from_arguments(arguments)
    if arguments.command == "drift":
        from monitoring.check_drift import check_drift

        return check_drift(settings, watched)
    if arguments.command == "reference":
        from monitoring.keep_reference import keep_reference

        return keep_reference(settings, watched)
    if arguments.command == "skew":
        from monitoring.check_skew import check_skew

        return check_skew(settings, watched)
    from monitoring.freshness import check_freshness

    with connect(settings) as connection:
        return check_freshness(connection, watched, datetime.now(UTC))


def _serve_metrics() -> dict[str, Any]:
    from monitoring.airflow_runs import read_dags
    from monitoring.exporter import Pipelines, serve

    settings = load_settings()
    pipelines = Pipelines(lambda: read_dags(settings), lambda: datetime.now(UTC))
    with serve(pipelines, settings.monitoring_url) as server, suppress(KeyboardInterrupt):
        server.serve_forever()
    return {"served": settings.monitoring_url}


def _parse() -> Namespace:
    parser = ArgumentParser(prog="python -m monitoring", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, question in (
        ("drift", "did features and events change their distribution?"),
        ("reference", "how are the features distributed that the registered versions have learned from?"),
        ("skew", "did the ranker read at its answers what training would read of that instant?"),
        ("freshness", "how old are the newest rows, and do the marts follow?"),
    ):
        interval.add_arguments(commands.add_parser(name, help=question))
    commands.add_parser("pipelines", help="are the runs of the DAGs green, as fast as before, on time? Keeps them")
    commands.add_parser("metrics", help="serve the same for Prometheus at RECSYS_MONITORING_URL")
    commands.add_parser("watch", help="is the champion still clicked as it was?")
    explore = commands.add_parser("explore", help="what do the marts hold? One HTML page a domain")
    explore.add_argument(
        "--domains", default=",".join(DOMAINS), help="comma-separated; those without events are left out"
    )
    return parser.parse_args()


if __name__ == "__main__":
    station.run(main)
