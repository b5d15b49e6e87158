"""One attempt at a cell of a sweep: the lock that keeps it from running twice, its command, and how it ended."""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from hf_galaxy.locks import lock_file
from hf_galaxy.sweeps.grid import Cell

GRACE = 120.0  # seconds a run gets to save and end by itself when it is told to
TICK = 0.1  # seconds between two looks at what runs


def try_lock(cell: Cell) -> IO[bytes] | None:
    """The lock of a cell, to be closed by whoever took it; None while another process holds it, on any machine.

    The system releases it when the last process that has it open ends, however it ends. So there are no stale locks.

    Raises:
        BadInput: the file system has no locks.
    """
    return lock_file(cell.kept("lock"), required=True)


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a cell ended.

    Attributes:
        how: "done"; "refused", it would end the same way again; "crashed"; "interrupted" by SIGTERM; "stopped", as we were
            told to; "elsewhere", another process runs it.
        why: one line.
    """

    how: Literal["done", "refused", "crashed", "interrupted", "stopped", "elsewhere"]
    why: str = ""


def attempt(
    cell: Cell, lock: IO, stop: Sequence[int] = (), environment: dict[str, str] | None = None, cores: set[int] | None = None
) -> Outcome:  # fmt: skip
    """Run the command of a cell to its end, its output appended to the cell's log.

    Args:
        lock: as `take` gave it; closed here, but held on by the command and what it starts for as long as they live.
        stop: signals received so far: with the first the run is told to end, with the second it is killed.
        environment: variables to set for it.
        cores: to run it on; all by default.
    """
    with lock, cell.kept("log").open("ab") as log:
        log.write(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(cell.command)}\n".encode())
        log.flush()
        start = log.tell()
        # The lock is the standard input: every process inherits that, also from launchers that close all other files.
        # If this process is killed, the run goes on, and keeps the lock.
        process = subprocess.Popen(
            cell.command,
            stdin=lock,
            stdout=log,
            stderr=log,
            env=os.environ | (environment or {}),
            start_new_session=True,
        )
        try:
            if cores:
                with contextlib.suppress(ProcessLookupError):  # it has ended already
                    os.sched_setaffinity(process.pid, cores)
            while process.poll() is None and not stop:
                time.sleep(TICK)
        finally:  # also when a signal ends us by an exception, as a cluster's job is ended
            status = _end(process, stop)
        return _outcome(cell, status, start, bool(stop))


def _end(process: subprocess.Popen, stop: Sequence[int]) -> int:
    """End a run and what it has started, as far as it has not ended yet; returns its exit status."""
    _signal_all(process, signal.SIGTERM)
    # SIGTERM ends a launcher at once, but what it has launched only after it has saved.
    deadline = time.monotonic() + GRACE
    while _is_left(process) and time.monotonic() < deadline and len(stop) < 2:
        time.sleep(TICK)
    _signal_all(process, signal.SIGKILL)
    return process.wait()


def _is_left(process: subprocess.Popen) -> bool:
    """Whether the run, or a process that it has started, has not ended yet."""
    return process.poll() is None or (_signal_all(process, 0) and not _only_zombies(process.pid))


def _only_zombies(group: int) -> bool:
    """Whether every process of a group has ended, and only waits for a parent to reap it, as none does in some containers."""
    states = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):  # not on macOS, where zombies cannot be signalled
        with contextlib.suppress(OSError):  # it has been reaped meanwhile
            state, _, of, *_ = stat.read_text(errors="replace").rpartition(")")[2].split()
            if int(of) == group:
                states.add(state)
    return bool(states) and states <= {"Z", "X"}


def _signal_all(process: subprocess.Popen, number: int) -> bool:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # nobody is left; macOS says the latter of zombies
        return False
    return True


def _outcome(cell, status, start, stopped):
    if cell.record():
        return Outcome("done")
    if stopped:
        return Outcome("stopped")
    with cell.kept("log").open("rb") as log:
        log.seek(max(start, log.seek(0, os.SEEK_END) - 2**16))
        return ending(status, log.read().decode(errors="replace"))


def ending(status: int, text: str) -> Outcome:
    """How a run ended that is not finished, by its exit status and the end of what it printed."""
    # A launcher ends with 1, and says what its script ended with: accelerate in the first way, torchrun in the second, the
    # process that failed first last.
    if status == 1 and (said := re.findall(r"returned non-zero exit status (\d+)\.\s*$|exitcode +: (-?\d+) \(", text)):
        status = int("".join(said[-1]))
    if status in (-signal.SIGTERM, 128 + signal.SIGTERM):
        return Outcome("interrupted")
    lines = [" ".join(line.strip(" ╭╮╰╯│─").split()) for line in text.splitlines()]
    lines = [line for line in lines if line]
    errors = [line for line in lines if line.startswith("error: ")]
    if status == 0:
        return Outcome("refused", "ended well, but its run.json does not say that it is finished")
    if status == 2:  # what every reader of command lines ends with
        own = itertools.takewhile(lambda line: not line.startswith("Traceback "), lines)  # before the launcher's
        return Outcome("refused", "; ".join(line for line in own if not re.match(r"[WE]\d{4} ", line))[-300:])
    if errors and errors[-1].endswith("another process is training this run now"):  # somebody started it by hand
        return Outcome("elsewhere")
    if status > 0 and errors:  # hf_galaxy.command_line.run; under a launcher, more lines follow
        return Outcome("refused", errors[-1][:300])
    cause = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return Outcome("crashed", f"{cause}: {lines[-1] if lines else 'no output'}"[:300])
