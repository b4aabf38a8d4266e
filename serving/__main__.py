"""Serving's shell: `python -m serving [serve]` answers; `python -m serving batch …` precomputes the lists."""

import argparse
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from recsys import interval, station
from recsys.settings import load_settings


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    serve = commands.add_parser("serve", help="answer requests (the default)")
    serve.add_argument("--host", default=None, help="default: that of RECSYS_SERVING_URL")
    serve.add_argument("--port", default=None, type=int, help="default: AIP_HTTP_PORT, then RECSYS_SERVING_URL's")
    batch = commands.add_parser("batch", help="precompute every user's list")
    interval.add_arguments(batch)
    batch.add_argument("--length", default=50, type=int, help="items stored for each list")
    return parser.parse_args(sys.argv[1:] or ["serve"])


def precompute(given: argparse.Namespace) -> Mapping[str, Any]:
    from serving.batch import run

    return run(load_settings(), interval.from_arguments(given), given.length)


def main() -> None:
    given = arguments()
    if given.command == "batch":
        station.run(lambda: precompute(given))
        return
    from serving.process import serve

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.WARNING)
    serve(load_settings(), lambda: datetime.now(UTC), given.host, given.port)


if __name__ == "__main__":
    main()
