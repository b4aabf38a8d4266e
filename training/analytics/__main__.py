"""`python -m training.analytics JOB --as-of D --domains D1[,D2]`; the jobs stand below."""

import argparse
import importlib

from recsys import station
from recsys.interval import add_arguments, from_arguments
from recsys.settings import load_settings
from recsys.warehouse import connect

JOBS = {
    "segments": "kinds of users",
    "value": "what customers will bring",
    "network": "the graph of users and items",
    "neo4j": "the same graph as files for Neo4j",
    "overlap": "how the domains overlap",
    "effectiveness": "what the lists lead to, by segment",
    "texts": "what the items' texts say, as numbers",
}


def main() -> dict:
    root = argparse.ArgumentParser(prog="python -m training.analytics")
    commands = root.add_subparsers(dest="job", required=True)
    for name, described in JOBS.items():
        add_arguments(commands.add_parser(name, help=described))
    arguments = root.parse_args()
    settings, interval = load_settings(), from_arguments(arguments)
    job = importlib.import_module(f"training.analytics.{arguments.job}")
    with connect(settings) as connection:
        return job.run(connection, interval, settings.seed)


if __name__ == "__main__":
    station.run(main)
