"""Serving's shell: `python -m serving [serve]` answers; `python -m serving batch …` precomputes the lists;
`python -m serving key new …` makes an API key."""

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys import interval, station
from recsys.errors import MissingArtifact
from recsys.settings import load_settings


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    serve = commands.add_parser("serve", help="answer requests (the default)")
    serve.add_argument("--host", default=None, help="default: that of RECSYS_SERVING_URL")
    serve.add_argument("--port", default=None, type=int, help="default: AIP_HTTP_PORT, then RECSYS_SERVING_URL's")
    serve.add_argument(
        "--share-port", action="store_true", help="let several of these processes listen there; the kernel divides"
    )
    commands.add_parser("carry", help="what `serve` starts for itself: impressions and records from the standard input")
    batch = commands.add_parser("batch", help="precompute every user's list")
    interval.add_arguments(batch)
    batch.add_argument("--length", default=50, type=int, help="items stored for each list")
    batch.add_argument("--without-files", action="store_true", help="no Parquet: only the table and the online store")
    lines = commands.add_parser("lines", help="answer a file with one request a line")
    lines.add_argument("source", type=Path, help="a file, or a folder of files")
    lines.add_argument("destination", type=Path, help="a file, or for a folder a folder")
    key = commands.add_parser("key", help="make an API key").add_subparsers(dest="action", required=True)
    new = key.add_parser("new", help="print a new key, once, and the entry of it for the file RECSYS_API_KEYS")
    new.add_argument("--name", required=True, help="whose key it is")
    new.add_argument(
        "--scopes",
        required=True,
        type=lambda text: text.split(","),
        help="comma-separated: recommend, events, explain, admin",
    )
    new.add_argument("--rate", required=True, type=float, help="requests a second")
    new.add_argument("--user-prefix", default=None, help="only for users whose id begins so")
    return parser.parse_args(sys.argv[1:] or ["serve"])


def precompute(given: argparse.Namespace) -> Mapping[str, Any]:
    from serving.batch import run

    return run(load_settings(), interval.from_arguments(given), given.length, not given.without_files)


def answer_lines(given: argparse.Namespace) -> Mapping[str, Any]:
    """Answer a file, or a folder of files.

    Raises:
        MissingArtifact: it is not there.
    """
    from serving.lines import answer_files

    if not given.source.exists():
        raise MissingArtifact("requests", given.source, "Name a file with a request a line, or a folder of such")
    return {"answered": answer_files(given.source, given.destination)}


def serve(given: argparse.Namespace) -> Mapping[str, Any]:
    """Answer requests until a signal comes."""
    from serving import process

    logging.getLogger("kafka").setLevel(logging.WARNING)
    process.serve(load_settings(), lambda: datetime.now(UTC), given.host, given.port, given.share_port)
    return {"ended_by": "signal"}


def tell_key(given: argparse.Namespace) -> None:
    """Print a new key and its entry; the key is stored nowhere."""
    from pydantic import ValidationError

    from serving.keys import new_key

    try:
        key, entry = new_key(given.name, given.scopes, given.rate, given.user_prefix)
    except ValidationError as error:
        raise SystemExit(f"no such key can be made: {error}") from error
    print(json.dumps({"key": key, "entry": entry.model_dump(mode="json", exclude_none=True)}, indent=2))


def main() -> None:
    given = arguments()
    if given.command == "batch":
        station.run(lambda: precompute(given))
        return
    if given.command == "lines":
        station.run(lambda: answer_lines(given))
        return
    if given.command == "key":
        tell_key(given)
        return
    if given.command == "carry":
        from serving.carrier import carry

        station.log()
        logging.getLogger("kafka").setLevel(logging.WARNING)
        carry(load_settings())
        return
    station.run(lambda: serve(given))


if __name__ == "__main__":
    main()
