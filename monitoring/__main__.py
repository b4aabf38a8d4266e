"""Shell of the station: `python -m monitoring drift | freshness | explore`."""

from argparse import ArgumentParser, Namespace
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
    settings, watched = load_settings(), interval.from_arguments(arguments)
    if arguments.command == "drift":
        from monitoring.check_drift import check_drift

        return check_drift(settings, watched)
    from monitoring.freshness import check_freshness

    with connect(settings) as connection:
        return check_freshness(connection, watched, datetime.now(UTC))


def _parse() -> Namespace:
    parser = ArgumentParser(prog="python -m monitoring", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, question in (
        ("drift", "did features and events change their distribution?"),
        ("freshness", "how old are the newest rows, and do the marts follow?"),
    ):
        interval.add_arguments(commands.add_parser(name, help=question))
    explore = commands.add_parser("explore", help="what do the marts hold? One HTML page a domain")
    explore.add_argument(
        "--domains", default=",".join(DOMAINS), help="comma-separated; those without events are left out"
    )
    return parser.parse_args()


if __name__ == "__main__":
    station.run(main)
