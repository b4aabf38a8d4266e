"""Shell of the station: `python -m streaming` consumes, `spark` does the same on Spark, `rebuild` restores Redis,
`materialize` brings the features online, `replay` returns dead letters,
`export` and `erase` answer for one user."""

import json
import logging
import signal
import threading
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys import interval, station
from recsys.errors import UnusableInput
from recsys.settings import load_settings


def main() -> dict[str, Any]:
    arguments = _parse()
    settings = load_settings()
    if arguments.command == "rebuild":
        from streaming.rebuild import rebuild

        return rebuild(settings, interval.from_arguments(arguments))
    if arguments.command == "materialize":
        from streaming.materialize import materialize

        return materialize(settings, interval.from_arguments(arguments))
    if arguments.command == "replay":
        from streaming.dead_letters import replay

        return replay(settings, arguments.topic)

    if arguments.command in {"export", "erase"}:
        from streaming import privacy

        if arguments.command == "erase":
            return privacy.erase(settings, arguments.user, datetime.now(UTC))
        if not arguments.out.parent.is_dir():
            raise UnusableInput("--out", arguments.out, "Its folder must be there")
        arguments.out.write_text(json.dumps(privacy.export(settings, arguments.user), default=str, indent=2))
        return {"written": str(arguments.out)}

    from streaming.health import Health, serve

    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    logging.getLogger("kafka").setLevel(logging.WARNING)  # it tells of every refresh of its metadata
    health = Health()
    server = serve(health, settings.streaming_url)
    if arguments.command == "spark":
        logging.getLogger("py4j").setLevel(logging.WARNING)
        from streaming.structured import run

        done = run(settings, _now, health, stopping, arguments.once)
        server.shutdown()
        return done

    from streaming.consumer import Batches, consume

    batches = Batches(settings, clock=_now)
    consume(settings, batches, health, stopping)
    batches.close()
    server.shutdown()
    return {"ended_by": "signal", "unchanged": False}


def _now() -> datetime:
    return datetime.now(UTC)


def _parse() -> Namespace:
    parser = ArgumentParser(prog="python -m streaming", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    rebuild = commands.add_parser("rebuild", help="all users' state in Redis, from the warehouse")
    interval.add_arguments(rebuild)
    materialize = commands.add_parser("materialize", help="the latest features into the online store, as Feast would")
    interval.add_arguments(materialize)
    spark = commands.add_parser("spark", help="consume by Spark Structured Streaming, with the same effects")
    spark.add_argument("--once", action="store_true", help="only what is in the topics now, then end")
    replay = commands.add_parser("replay", help="dead letters back to their topic, after a fix")
    for name, what in (("export", "all that is kept of a user, as JSON"), ("erase", "forget a user everywhere")):
        about = commands.add_parser(name, help=what)
        about.add_argument("--user", required=True, help="the user's id")
        if name == "export":
            about.add_argument("--out", required=True, type=Path, help="file to write")
    replay.add_argument("--topic", required=True, help="the topic, without its `.dlq`")
    return parser.parse_args()


if __name__ == "__main__":
    station.run(main)
