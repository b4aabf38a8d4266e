"""Peak memory of a tree of processes, sampled while something else runs."""

import threading
from collections.abc import Callable, Iterable

import psutil

SAMPLE_SECONDS = 5.0
"""Reading the sizes of forty processes took .16 s of processor time."""


class MemorySampler:
    """Sample the summed resident and proportional set size of some process trees until the block ends.

    The proportional size (PSS) divides a shared page among its users; the resident size (RSS) counts it for each of
    them, so PostgreSQL's shared buffers count once per connection. Bytes.
    """

    def __init__(self, roots: Callable[[], Iterable[int]]):
        """`roots` returns the process ids whose trees are summed; asked again at each sample."""
        self._roots = roots
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak_rss = self.peak_pss = 0

    def __enter__(self) -> "MemorySampler":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            rss = pss = 0
            for process in self._tree():
                try:
                    memory = process.memory_full_info()
                except psutil.Error:  # it ended between the listing and the reading
                    continue
                rss += memory.rss
                pss += memory.pss
            self.peak_rss, self.peak_pss = max(self.peak_rss, rss), max(self.peak_pss, pss)

    def _tree(self) -> set[psutil.Process]:
        found: set[psutil.Process] = set()
        for pid in self._roots():
            try:
                root = psutil.Process(pid)
                found |= {root, *root.children(recursive=True)}
            except psutil.NoSuchProcess:
                continue
        return found
