"""The scheduler of a grid of cells: the places where cells run, this machine or a cluster, and the loop over all cells.

Each cell is started by one command, and the same command resumes it. So the state of a sweep is in the folders of its cells, and any
number of sweeps may work on the same grid, on one machine or on many.
"""

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from hf_galaxy.cores import available_cores
from hf_galaxy.errors import BadInput
from hf_galaxy.files import whole_file
from hf_galaxy.outcome import Outcome
from hf_galaxy.sweeps.attempt import POLL_SECONDS, attempt, try_lock
from hf_galaxy.sweeps.grid import RunCell

if TYPE_CHECKING:
    import submitit

SCAN_SECONDS = 1.0  # between two looks at the cells that other processes run
RETRY_SECONDS = 60.0  # until a cell is tried again that another process ran, and for Slurm to know a new job


# 1. The places where cells run


class Attempt(Protocol):
    """An attempt at a cell in progress: a future, or a job on a cluster."""

    def done(self) -> bool: ...

    def running(self) -> bool: ...

    def result(self) -> Outcome: ...


class LocalMachine:
    """This machine: each of `at_once` cells runs on its share of the cores and, if there are several, of the GPUs.

    Attributes:
        poll_seconds: between two looks at the attempts.
        queues: whether an attempt may wait in a queue, and stays there when the sweep ends.
        stop: signals received so far.
    """

    poll_seconds: ClassVar[float] = POLL_SECONDS
    queues: ClassVar[bool] = False

    def __init__(self, at_once: int, stop: Sequence[int]) -> None:
        self.at_once, self.stop = at_once, stop
        self.slots, self.pool = deque(range(at_once)), ThreadPoolExecutor(at_once)

    def start(self, cell: Any, lock: IO[bytes]) -> Future[Outcome]:
        """Start an attempt at a locked cell, in a thread."""
        return self.pool.submit(self._attempt, cell, lock)

    def _attempt(self, cell: Any, lock: IO[bytes]) -> Outcome:
        slot = self.slots.popleft()
        try:
            return self.attempt(cell, lock, slot)
        finally:
            self.slots.append(slot)

    def attempt(self, cell: Any, lock: IO[bytes], slot: int) -> Outcome:
        """Run the command of a cell on the resources of a slot, one of `at_once`."""
        return attempt(cell, lock, self.stop, *resources_for_slot(slot, self.at_once))


def resources_for_slot(slot: int, at_once: int) -> tuple[dict[str, str], set[int] | None]:
    """The environment variables and the cores of one of `at_once` runs on this machine; None: all cores."""
    import torch

    if at_once == 1:
        return {}, None
    environment, cores, available = {}, None, available_cores()
    count = len(available)
    if hasattr(os, "sched_setaffinity"):  # not on macOS
        each = count // at_once  # the same number for all, as the bits of a run depend on its number of threads
        part = slice(slot * each, (slot + 1) * each)
        cores = set(available[part]) if at_once < count else {available[slot % count]}
    gpus = torch.cuda.device_count()
    if gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(visible[slot::at_once]) or visible[slot % gpus]
    elif gpus == 0:
        environment["OMP_NUM_THREADS"] = str(max(1, count // at_once))
    return environment, cores


class Cluster:
    """A cluster, to which submitit submits each cell as a job."""

    poll_seconds: ClassVar[float] = 5.0  # each look touches one file for each job
    queues: ClassVar[bool] = True

    def __init__(self, executor: "submitit.Executor", job_class: "type[submitit.Job]") -> None:
        self.executor, self.job_class = executor, job_class

    def start(self, cell: RunCell, lock: IO[bytes]) -> "ClusterJob":
        """The job of a cell: one that a sweep submitted earlier and that has not ended, or a new one.

        Raises:
            BadInput: the cluster refuses the job.
        """
        with lock:  # only against other sweeps that would submit it at this moment: the job takes the lock itself
            file = cell.state_file("job")
            if file.exists() and (number := file.read_text(encoding="utf-8").strip()):
                earlier = ClusterJob(self.job_class(self.executor.folder, number))
                # If in doubt it is submitted again: the lock keeps two jobs from running the cell at the same time.
                forgotten = earlier.state() == "UNKNOWN" and time.time() - file.stat().st_mtime > RETRY_SECONDS
                if not earlier.done() and not forgotten:
                    return earlier
            try:
                job = self.executor.submit(ClusterTask(cell))
            except RuntimeError as error:  # with the message of sbatch
                raise BadInput(f"{cell.name}: the cluster refuses its job: {' '.join(str(error).split())}") from error
            with whole_file(file) as partial:
                partial.write_text(f"{job.job_id}\n", encoding="utf-8")
            return ClusterJob(job)


@dataclass(frozen=True)
class ClusterTask:
    """The function of a cluster's job: lock a cell, and attempt it."""

    cell: RunCell

    def __call__(self) -> Outcome:
        """How the attempt ended."""
        # The process that submitted the job, or the same job before it was requeued, frees the lock soon.
        deadline = time.monotonic() + RETRY_SECONDS
        while (lock := try_lock(self.cell)) is None:
            if time.monotonic() > deadline:
                return Outcome("in_use")
            time.sleep(POLL_SECONDS)
        if self.cell.record():
            lock.close()
            return Outcome("finished")
        return attempt(self.cell, lock)

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """The task to requeue when the job's time is over or the job is preempted: the same, which resumes from a checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class ClusterJob:
    """A job of submitit as an `Attempt`."""

    job: "submitit.Job"

    def state(self) -> str:
        """The state that the cluster reports, such as RUNNING."""
        return self.job.state.upper()

    def done(self) -> bool:
        """Whether the job has ended."""
        return self.job.done() or self.state() == "PREEMPTED"  # which submitit waits out, though no requeue may follow

    def running(self) -> bool:
        """Whether the job has left the queue."""
        return self.state() == "RUNNING"

    def result(self) -> Outcome:
        """How the attempt, or the job without it, ended."""
        message = f"job {self.job.job_id}, {self.state().lower()}"
        if not self.job.done():
            return Outcome("interrupted", message)
        try:
            return self.job.result()
        except RuntimeError as error:  # or it was cancelled, out of memory, or an exception that is no attempt's
            kind: Literal["crashed", "bad_input"] = (
                "crashed" if self.state() in ("NODE_FAIL", "BOOT_FAIL") else "bad_input"
            )
            first, _, _ = str(error).partition("\n")
            return Outcome(kind, f"{message}: {first}"[:300])


# 2. The loop over all cells


@dataclass
class CellStatus:
    """The state of a cell in a sweep.

    Attributes:
        state: "queued" is a job on a cluster that has not begun; "elsewhere" is run by another process.
        note: one line on the state.
        crashes: in this sweep.
        started: when its attempt started, on the clock `time.monotonic`.
        record: of the finished cell: of a run its `RunRecord`.
        attempt: the attempt in progress.
        retry_at: the earliest time of the next attempt, on the same clock.
    """

    cell: Any  # a `Cell`, with what its kind has besides
    state: Literal["waiting", "queued", "running", "elsewhere", "done", "failed"] = "waiting"
    note: str = ""
    crashes: int = 0
    started: float = 0.0
    record: Any = None
    attempt: Attempt | None = None
    retry_at: float = 0.0


def run_grid(
    grid: list[CellStatus], place: LocalMachine | Cluster, at_once: int, tries: int, stop: Sequence[int],
    show: Callable[[], None],
) -> None:  # fmt: skip
    """Run all cells that are not finished, until each is done or failed, wherever it runs.

    Args:
        grid: updated in place.
        at_once: attempts at the same time.
        tries: crashes after which a cell is failed.
        stop: signals received so far, appended from outside: no cell is started any more, and those that run here are ended.
        show: called after each look at the cells.
    """
    next_scan = 0.0
    while True:
        ended = [status for status in grid if status.attempt and status.attempt.done()]
        for status in ended:
            _end_attempt(status, tries)
        for status in grid:
            if status.state == "queued" and status.attempt and status.attempt.running():
                status.state, status.started = "running", time.monotonic()
        if not stop and (ended or time.monotonic() >= next_scan):
            _scan(grid, place, at_once, stop)
            next_scan = time.monotonic() + SCAN_SECONDS
        show()
        if all(status.state in ("done", "failed") for status in grid):
            return
        if stop and (place.queues or not any(status.attempt for status in grid)):
            return
        time.sleep(place.poll_seconds)


def _end_attempt(status: CellStatus, tries: int) -> None:
    assert status.attempt is not None, "only an attempt ends"
    outcome, status.attempt = status.attempt.result(), None
    status.note = outcome.message
    status.crashes += outcome.kind == "crashed"
    if outcome.kind == "finished":
        status.state, status.record = "done", status.cell.record()
    elif outcome.kind == "bad_input" or status.crashes >= tries:
        status.state = "failed"
    elif outcome.kind == "in_use":
        status.state, status.retry_at = "elsewhere", time.monotonic() + RETRY_SECONDS
    else:
        status.state = "waiting"


def _scan(grid: list[CellStatus], place: LocalMachine | Cluster, at_once: int, stop: Sequence[int]) -> None:
    """Start cells while there is room, and update the states of those that other processes run."""
    for status in grid:
        if stop:  # to submit hundreds of jobs takes a while
            return
        room = sum(other.attempt is not None for other in grid) < at_once
        if status.state == "elsewhere" or (status.state == "waiting" and room):
            lock = try_lock(status.cell)
            if lock is None:
                status.state = "elsewhere"
            elif record := status.cell.record():
                lock.close()
                status.state, status.record, status.note = "done", record, ""
            elif room and time.monotonic() >= status.retry_at:
                status.attempt = place.start(status.cell, lock)
                status.state, status.started = "queued" if place.queues else "running", time.monotonic()
            else:
                lock.close()
                status.state = "waiting" if time.monotonic() >= status.retry_at else "elsewhere"


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


def time_left(grid: list[CellStatus], at_once: int) -> float | None:
    """Approximate seconds until all runs are done; None before the first is.

    A run is expected to need the mean of those finished runs that share most of its options: of the same backbone on the same
    subset of the data, if there is one.
    """
    finished = [(status.cell, status.record.training["seconds"]) for status in grid if status.record]
    if not finished:
        return None
    remaining = []
    for status in grid:
        if status.state not in ("done", "failed"):
            shared = [len(status.cell.options.items() & cell.options.items()) for cell, _ in finished]
            similar = [seconds for (_, seconds), n in zip(finished, shared, strict=True) if n == max(shared)]
            elapsed = time.monotonic() - status.started if status.state == "running" else 0.0
            remaining.append(max(0.0, sum(similar) / len(similar) - elapsed))
    return max(max(remaining, default=0.0), sum(remaining) / at_once)
