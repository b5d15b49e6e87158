"""One attempt at a cell of a sweep: the lock that keeps the cell from running twice, its command, and how the command ended."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from hf_galaxy.locks import lock_file
from hf_galaxy.outcome import STOPPED, VARIABLE, Outcome
from hf_galaxy.sweeps.grid import Cell, RunCell

GRACE_SECONDS = 120.0  # that a run gets to save a checkpoint and to end after SIGTERM
POLL_SECONDS = 0.1  # between two looks at a process


def try_lock(cell: Cell) -> IO[bytes] | None:
    """Lock a cell: the file, whose holder closes it; None while another process, on any machine, holds the lock.

    The system frees the lock when the last process that has the file open ends, however it ends. So there are no stale locks.

    Raises:
        BadInput: the file system has no locks.
    """
    return lock_file(cell.state_file("lock"), required=True)


def attempt(
    cell: RunCell,
    lock: IO[bytes],
    stop: Sequence[int] = (),
    environment: dict[str, str] | None = None,
    cores: set[int] | None = None,
) -> Outcome:
    """Run the command of a cell to its end, with its output appended to the cell's log.

    Args:
        lock: from `try_lock`. It is closed here; the command and all that it starts hold the lock as long as they live.
        stop: signals received so far: the first ends the run, the second kills it.
        environment: variables to set for the run.
        cores: of the run; all by default.
    """
    folder = cell.state_file("outcome").absolute()
    step = cell.step()
    with lock, cell.state_file("log").open("ab") as log:
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt
        folder.mkdir()
        log.write(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(cell.command)}\n".encode())
        log.flush()
        # The lock is the standard input: every process inherits that, also from launchers that close all other files.
        # If this process is killed, the run continues, and keeps the lock.
        process = subprocess.Popen(
            cell.command,
            stdin=lock,
            stdout=log,
            stderr=log,
            env=os.environ | (environment or {}) | {VARIABLE: str(folder)},
            start_new_session=True,
        )
        try:
            if cores:
                with contextlib.suppress(ProcessLookupError):  # it has ended already
                    os.sched_setaffinity(process.pid, cores)
            while process.poll() is None and not stop:
                time.sleep(POLL_SECONDS)
        finally:  # also when a signal ends us by an exception, as a cluster's job is ended
            status = _end(process, stop)
        outcome = Outcome.of(folder, status)
        shutil.rmtree(folder, ignore_errors=True)
        if cell.record():
            return Outcome("finished", status=status)
        if stop:
            return Outcome("interrupted", status=status)
        return _unfinished(outcome, status, progress=cell.step() != step)


def _unfinished(outcome: Outcome, status: int, progress: bool) -> Outcome:
    """How an attempt ended whose run is not finished.

    Args:
        outcome: of the command.
        status: the exit status, of the command or of its launcher.
        progress: whether there is a new checkpoint.
    """
    if outcome.kind == "finished":
        return Outcome(
            "bad_input", "the command succeeded, but its run.json does not say that the run is finished", status
        )
    # A launcher ends with SIGTERM the other processes of one that was killed. Each attempt that gets no further is a crash.
    if outcome.kind == "interrupted" and status not in (-signal.SIGTERM, STOPPED) and not progress:
        return Outcome("crashed", f"exit status {status} of its launcher: {outcome.message}", status)
    return outcome


def _end(process: subprocess.Popen, stop: Sequence[int]) -> int:
    """End a run and the processes that it has started, as far as they live; returns its exit status."""
    _signal_all(process, signal.SIGTERM)
    # SIGTERM ends a launcher at once, but the run that it has launched only after it has saved.
    deadline = time.monotonic() + GRACE_SECONDS
    while _is_left(process) and time.monotonic() < deadline and len(stop) < 2:
        time.sleep(POLL_SECONDS)
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
            state, _, process_group, *_ = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(process_group) == group:
                states.add(state)
    return bool(states) and states <= {"Z", "X"}


def _signal_all(process: subprocess.Popen, number: int) -> bool:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # no process is left; macOS raises the latter for zombies
        return False
    return True
