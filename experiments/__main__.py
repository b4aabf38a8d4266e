"""Shell of the station: `python -m experiments analyse`."""

from argparse import ArgumentParser
from typing import Any

from recsys import interval, station
from recsys.settings import load_settings


def main() -> dict[str, Any]:
    parser = ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("analyse", help="what do the users of each variant do?")
    interval.add_arguments(command)
    command.add_argument("--control", default="popular", help="the variant that the others are compared with")
    arguments = parser.parse_args()

    from experiments.analyse import analyse

    return analyse(load_settings(), interval.from_arguments(arguments), arguments.control)


if __name__ == "__main__":
    station.run(main)
