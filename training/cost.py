"""What this process has cost so far: processor time and memory."""

import resource
import sys

MAXRSS_BYTES = 1024 if sys.platform == "linux" else 1
"""Bytes in which `getrusage` counts memory."""
WITH_CHILDREN = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def cpu_seconds() -> float:
    """Return the processor seconds of this process and of the children that it has waited for."""
    used = [resource.getrusage(who) for who in WITH_CHILDREN]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_rss_bytes(*, with_children: bool = True) -> int:
    """Return the largest resident memory that this process, or a child that it has waited for, ever had."""
    asked = WITH_CHILDREN if with_children else WITH_CHILDREN[:1]
    return MAXRSS_BYTES * max(resource.getrusage(who).ru_maxrss for who in asked)
