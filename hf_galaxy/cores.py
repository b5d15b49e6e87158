"""The processor cores that this process may use."""

import os

from hf_galaxy.errors import BadInput

MOST_PROCESSES = 1024  # to start at once: more is a slip, and would stop the machine


def available_cores() -> list[int]:
    """Their numbers: those of its affinity, as a scheduler, a sweep or `taskset` set it; of all cores on macOS, which has none."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def check_processes(option: str, number: int | None, least: int = 1) -> None:
    """Refuse a number of processes or threads that no machine should start; None is not checked.

    Raises:
        BadInput: names the option.
    """
    if number is not None and not least <= number <= MOST_PROCESSES:
        raise BadInput(f"{option} {number}: must be from {least} to {MOST_PROCESSES}")
