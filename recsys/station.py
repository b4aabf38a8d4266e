"""The shell around every station: one sentence on failure, one line of JSON on success.

Airflow reaches the stations through a command, an exit code and the last line of standard output, nothing else.
"""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from recsys.errors import RecsysError
from recsys.settings import limit_threads

FAILED = 1


def log() -> None:
    """Send what is logged to standard error, a line a message."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")


def run(main: Callable[[], Mapping[str, Any]]) -> None:
    """Run a station's main function and end the process.

    Prints the returned mapping as the last line of standard output, as JSON. A `RecsysError` becomes one sentence on
    standard error and exit code 1. Any other exception is a programming mistake and keeps its traceback.
    Numeric libraries that `main` loads have as many threads as the settings say.
    """
    log()
    try:
        limit_threads()
        result = main()
    except RecsysError as error:
        print(f"FAILED {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(FAILED)
    sys.stdout.flush()
    print(json.dumps(result, default=str))
