"""The cells of a grid worked off: where they run, here or on a cluster, and the loop over all of them.

A cell is a run folder that one command makes; whoever gives the command again goes on with it. So all that a sweep has to
know stands in the run folders, and any number of sweeps may work off the same grid, on one machine or on many.
"""

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, Literal

from hf_galaxy.cores import available_cores
from hf_galaxy.errors import BadInput
from hf_galaxy.files import whole_file
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.sweeps.attempt import TICK, Outcome, attempt, try_lock
from hf_galaxy.sweeps.grid import Cell

LOOK_ROUND = 1.0  # seconds between two looks at what others run
PATIENCE = 60.0  # seconds until a cell is tried again that another process ran, and for Slurm to know a new job


# 1. Where cells run: both places start an attempt at a cell, given its lock, and return something with done(), running()
# and result(), as futures have them.


class Here:
    """Cells run on this machine, each on its share of the cores and, if there are several, of the GPUs."""

    tick = TICK
    queues = False

    def __init__(self, at_once: int, stop: Sequence[int]):
        self.at_once, self.stop = at_once, stop
        self.slots, self.pool = deque(range(at_once)), ThreadPoolExecutor(at_once)

    def start(self, cell: Cell, lock: IO):
        """An attempt at a cell, in a thread."""
        return self.pool.submit(self._attempt, cell, lock)

    def _attempt(self, cell: Cell, lock: IO) -> Outcome:
        slot = self.slots.popleft()
        try:
            return self.attempt(cell, lock, slot)
        finally:
            self.slots.append(slot)

    def attempt(self, cell: Cell, lock: IO, slot: int) -> Outcome:
        """Run the command of a cell in the share of the machine that belongs to a slot, one of `at_once`."""
        return attempt(cell, lock, self.stop, *resources_for_slot(slot, self.at_once))


def resources_for_slot(slot: int, at_once: int) -> tuple[dict[str, str], set[int] | None]:
    """What of this machine one of `at_once` runs gets: environment variables, and cores (None: it may use all)."""
    import torch

    if at_once == 1:
        return {}, None
    environment, cores, mine = {}, None, available_cores()
    count = len(mine)
    if hasattr(os, "sched_setaffinity"):  # not on macOS
        each = count // at_once  # equally many, as the bits of a run depend on its number of threads
        part = slice(slot * each, (slot + 1) * each)
        cores = set(mine[part]) if at_once < count else {mine[slot % count]}
    gpus = torch.cuda.device_count()
    if gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(visible[slot::at_once]) or visible[slot % gpus]
    elif gpus == 0:
        environment["OMP_NUM_THREADS"] = str(max(1, count // at_once))
    return environment, cores


class OnCluster:
    """Cells run as jobs of their own, which submitit submits. They stay in the queue when the sweep ends."""

    tick = 5.0  # each look touches one file for each job
    queues = True

    def __init__(self, executor, job_class: type):
        self.executor, self.job_class = executor, job_class

    def start(self, cell: Cell, lock: IO):
        """The job of a cell: one that some sweep submitted earlier and that is not over, or a new one.

        Raises:
            BadInput: the cluster refuses the job.
        """
        with lock:  # only against other sweeps that would submit it at this moment: the job takes the lock itself
            file = cell.kept("job")
            if file.exists() and (number := file.read_text().strip()):
                earlier = _Job(self.job_class(self.executor.folder, number))
                # If in doubt it is submitted again: the lock keeps two jobs from running the cell at the same time.
                forgotten = earlier.state() == "UNKNOWN" and time.time() - file.stat().st_mtime > PATIENCE
                if not earlier.done() and not forgotten:
                    return earlier
            try:
                job = self.executor.submit(InJob(cell))
            except RuntimeError as error:  # submitit gives the words of sbatch
                raise BadInput(f"{cell.name}: the cluster refuses its job: {' '.join(str(error).split())}") from error
            with whole_file(file) as partial:
                partial.write_text(f"{job.job_id}\n")
            return _Job(job)


@dataclass(frozen=True)
class InJob:
    """What a cluster's job does: take the lock of a cell, and attempt it."""

    cell: Cell

    def __call__(self) -> Outcome:
        """The outcome."""
        # What submitted the job, or the same job before it was requeued, lets go of the lock soon.
        deadline = time.monotonic() + PATIENCE
        while (lock := try_lock(self.cell)) is None:
            if time.monotonic() > deadline:
                return Outcome("elsewhere")
            time.sleep(TICK)
        if self.cell.record():
            lock.close()
            return Outcome("done")
        return attempt(self.cell, lock)

    def checkpoint(self):
        """What to requeue when the job's time is over or it is preempted: the same, it goes on from the run's checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class _Job:
    job: Any  # submitit.Job

    def state(self):
        return self.job.state.upper()

    def done(self):
        return self.job.done() or self.state() == "PREEMPTED"  # which submitit waits out, though no requeue may follow

    def running(self):
        return self.state() == "RUNNING"

    def result(self):
        why = f"job {self.job.job_id}, {self.state().lower()}"
        if not self.job.done():
            return Outcome("interrupted", why)
        try:
            return self.job.result()
        except RuntimeError as error:  # or it was cancelled, out of memory, or an exception that is no attempt's
            how = "crashed" if self.state() in ("NODE_FAIL", "BOOT_FAIL") else "refused"
            first, _, _ = str(error).partition("\n")
            return Outcome(how, f"{why}: {first}"[:300])


# 2. The loop over all cells


@dataclass
class Progress:
    """What a sweep knows of a cell.

    Attributes:
        state: "queued" is a job on a cluster that has not begun; "elsewhere" is running, but not by this sweep.
        note: one line on it.
        crashes: in this sweep.
        since: when its attempt started, on the clock `time.monotonic`.
        record: of the finished run.
        job: the attempt at it.
        again: when it may be tried again, on the same clock.
    """

    cell: Cell
    state: Literal["waiting", "queued", "running", "elsewhere", "done", "failed"] = "waiting"
    note: str = ""
    crashes: int = 0
    since: float = 0.0
    record: RunRecord | None = None
    job: Any = None
    again: float = 0.0


def run_grid(
    grid: list[Progress], place: Here | OnCluster, at_once: int, tries: int, stop: Sequence[int],
    show: Callable[[], None],
) -> None:  # fmt: skip
    """Run all cells that are not finished, until each is done or failed, wherever it runs.

    Args:
        grid: kept up to date.
        at_once: attempts at the same time.
        tries: a cell that has crashed so often is failed.
        stop: filled from outside with signals: nothing more is started, and what runs here is ended.
        show: called after each look at the cells.
    """
    next_round = 0.0
    while True:
        ended = [progress for progress in grid if progress.job and progress.job.done()]
        for progress in ended:
            _settle(progress, tries)
        for progress in grid:
            if progress.state == "queued" and progress.job.running():
                progress.state, progress.since = "running", time.monotonic()
        if not stop and (ended or time.monotonic() >= next_round):
            _look_round(grid, place, at_once, stop)
            next_round = time.monotonic() + LOOK_ROUND
        show()
        if all(progress.state in ("done", "failed") for progress in grid):
            return
        if stop and (place.queues or not any(progress.job for progress in grid)):
            return
        time.sleep(place.tick)


def _settle(progress, tries):
    outcome, progress.job = progress.job.result(), None
    progress.note = outcome.why
    progress.crashes += outcome.how == "crashed"
    if outcome.how == "done":
        progress.state, progress.record = "done", progress.cell.record()
    elif outcome.how == "refused" or progress.crashes >= tries:
        progress.state = "failed"
    elif outcome.how == "elsewhere":
        progress.state, progress.again = "elsewhere", time.monotonic() + PATIENCE
    else:
        progress.state = "waiting"


def _look_round(grid, place, at_once, stop):
    """Start cells while there is room, and see how those get on that run elsewhere."""
    for progress in grid:
        if stop:  # submitting hundreds of jobs takes a while
            return
        room = sum(other.job is not None for other in grid) < at_once
        if progress.state == "elsewhere" or (progress.state == "waiting" and room):
            lock = try_lock(progress.cell)
            if lock is None:
                progress.state = "elsewhere"
            elif record := progress.cell.record():
                lock.close()
                progress.state, progress.record, progress.note = "done", record, ""
            elif room and time.monotonic() >= progress.again:
                progress.job = place.start(progress.cell, lock)
                progress.state, progress.since = "queued" if place.queues else "running", time.monotonic()
            else:
                lock.close()
                progress.state = "waiting" if time.monotonic() >= progress.again else "elsewhere"


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect the signals that would end this process, as `run_grid` takes them: the first ends the runs here, the second kills them.

    Runs that are left in threads when the block ends are ended, too.
    """
    stop: list[int] = []
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, lambda received, _: stop.append(received)) for number in numbers}
    try:
        yield stop
    finally:
        stop.append(signal.SIGTERM)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def time_left(grid: list[Progress], at_once: int) -> float | None:
    """About how many seconds until all cells are done; None before the first is.

    A cell is taken to need the mean of those finished cells that share most of its options: of the same backbone on the
    same share of the data, if there is one.
    """
    finished = [(progress.cell, progress.record.training["seconds"]) for progress in grid if progress.record]
    if not finished:
        return None
    needs = []
    for progress in grid:
        if progress.state not in ("done", "failed"):
            alike = [len(progress.cell.options.items() & cell.options.items()) for cell, _ in finished]
            alike = [seconds for (_, seconds), n in zip(finished, alike, strict=True) if n == max(alike)]
            gone = time.monotonic() - progress.since if progress.state == "running" else 0.0
            needs.append(max(0.0, sum(alike) / len(alike) - gone))
    return max(max(needs, default=0.0), sum(needs) / at_once)
