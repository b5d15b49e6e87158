"""The processor cores that this process may use."""

import os


def available_cores() -> list[int]:
    """Their numbers: those of its affinity, as a scheduler, a sweep or `taskset` set it; of all cores on macOS, which has none."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
