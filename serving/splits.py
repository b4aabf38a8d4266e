"""The real split of live traffic: the declared experiments, and what was decided while they run."""

import asyncio
import logging
from pathlib import Path

from recsys.errors import UnusableInput
from recsys.settings import Settings
from recsys.split import Split, decisions_file, live_split

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often the decisions' file is looked at: a stopped variant is gone within a second."""


class LiveSplits:
    """The split that holds now; a decision is picked up without a pause."""

    def __init__(self, settings: Settings):
        """Read the declaration and the decisions.

        Raises:
            UnusableInput: one of them cannot be used: a process that does not know its split does not start.
        """
        self._settings = settings
        self._seen = _look(decisions_file(settings))
        self._current = live_split(settings)

    @property
    def current(self) -> Split:
        return self._current

    def refresh(self) -> None:
        """Take a changed decisions' file; one that cannot be used is logged, and the earlier split stays."""
        look = _look(decisions_file(self._settings))
        if look == self._seen:
            return
        self._seen = look
        try:
            self._current = live_split(self._settings)
        except UnusableInput as error:
            log.error("the experiments' decisions are not taken: %s", error)

    async def watch(self) -> None:
        """Refresh for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.refresh)


def _look(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
