"""What a service leaves behind when it dies is ended at once: a listener of the supervisor's events.

    python -m infra.local.leftovers

A service that is killed (out of memory, `kill -9`) takes only its own process with it. A child that goes on holds its
port, and each new start of the service then ends with "address already in use"; MLflow's server is such a child. Each
service leads a process group of its own, so that what is left of the group can be told from everybody else's.
"""

import os
import signal
import sys
from contextlib import suppress

from supervisor import childutils

EVENT = "PROCESS_STATE_EXITED"


def end_group(payload: str) -> int | None:
    """Kill what is left of the process group of the process that an event tells of.

    Args:
        payload: of an event EVENT: `processname:mlflow groupname:mlflow from_state:RUNNING expected:0 pid:7`.

    Returns:
        The group that had somebody left, None where nobody was.
    """
    group = int(childutils.get_headers(payload)["pid"])
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
        return group
    return None


def main() -> None:
    while True:
        headers, payload = childutils.listener.wait()
        if headers["eventname"] == EVENT and (group := end_group(payload)):
            print(f"ended what was left of group {group}: {payload.strip()}", file=sys.stderr, flush=True)
        childutils.listener.ok()


if __name__ == "__main__":
    main()
