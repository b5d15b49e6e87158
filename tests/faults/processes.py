"""A job in a process of its own, forked from the server that has imported everything, with a fault in it."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.forks import EVERYTHING, SERVER, TIMEOUT, enter, forks_of


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, negative for a signal, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All of its output, for the message of a failed test."""
        return f"status {self.status}\n{self.out}\n{self.err}"

    @property
    def last(self) -> str:
        """The last line of its errors."""
        return (self.err.strip().splitlines() or [""])[-1]


def _work(
    environment: Mapping[str, str], log: Path, place: Path, words: Sequence[str], faults: Sequence[Callable[[], None]]
) -> None:
    enter(environment, log.with_suffix(".out"), log.with_suffix(".err"))
    import datasets

    os.chdir(place)
    if (cache := place / "cache").exists():
        datasets.config.HF_DATASETS_CACHE = cache
    sys.argv = ["hf-galaxy", *words]
    for fault in faults:
        fault()
    from hf_galaxy.commands.main import main

    main()


def start(place: Path, words: Sequence[str], *faults: Callable[[], None], environment: Mapping[str, str] | None = None):
    """Start a command.

    Args:
        place: the folder where it works. If it holds a folder `cache`, that is the cache of the datasets library.
        faults: called in the process before the command, to prepare what happens to it.
    """
    log = Path(tempfile.mkdtemp(prefix="job-")) / "log"  # not on the disk of the place
    for suffix in (".out", ".err"):
        log.with_suffix(suffix).write_text("")
    arguments = ({**os.environ, "TQDM_DISABLE": "1", **(environment or {})}, log, place, list(map(str, words)), faults)
    process = SERVER.Process(target=_work, args=arguments)
    with forks_of(EVERYTHING):
        process.start()
    process.log = log
    return process


def wait(process) -> Ended:
    """Wait for its end."""
    try:
        process.join(TIMEOUT)
    finally:
        process.kill()
        process.join()
    texts = [process.log.with_suffix(suffix).read_text() for suffix in (".out", ".err")]
    shutil.rmtree(process.log.parent)
    return Ended(process.exitcode, *texts)


def run(place: Path, words: Sequence[str], *faults: Callable[[], None], **options) -> Ended:
    """Run a command to its end, whatever that is."""
    return wait(start(place, words, *faults, **options))
