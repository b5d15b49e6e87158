"""Processes that measure cells of the downstream benchmark, and keep what they have loaded for the next cell."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO

import torch

from hf_galaxy.cores import available_cores
from hf_galaxy.downstream.benchmark import Benchmark, BenchmarkCell
from hf_galaxy.downstream.measure import CellMeasurer
from hf_galaxy.errors import BadInput, Interrupted
from hf_galaxy.fresh_processes import end_with_parent, fresh_context
from hf_galaxy.outcome import STOPPED, Outcome
from hf_galaxy.sweeps.attempt import POLL_SECONDS
from hf_galaxy.sweeps.grid import STATE_DIR
from hf_galaxy.sweeps.scheduler import LocalMachine, resources_for_slot


class Workers(LocalMachine):
    """The place where cells are measured: this machine, one process for each slot.

    Each process has, like a run of a sweep, its share of the cores and, if there are several, of the GPUs.
    """

    def __init__(self, benchmark: Benchmark, at_once: int, stop: Sequence[int]) -> None:
        super().__init__(at_once, stop)
        self.benchmark = benchmark
        self.processes: dict[int, tuple[BaseProcess, Connection]] = {}  # by slot

    def attempt(self, cell: BenchmarkCell, lock: IO[bytes], slot: int) -> Outcome:
        """Let the process of a slot, which is started if there is none, measure a cell."""
        with lock:
            if slot not in self.processes:
                self.processes[slot] = self._start(slot)
            process, connection = self.processes[slot]
            try:
                connection.send(cell)
                while not connection.poll(POLL_SECONDS):
                    if self.stop:
                        process.terminate() if len(self.stop) == 1 else process.kill()
                return connection.recv()
            except (EOFError, OSError):  # the process has ended
                del self.processes[slot]
                process.join()
            if self.stop:
                return Outcome("interrupted", status=process.exitcode)
            message = f"its process ended with exit status {process.exitcode}; see {self.log(slot)}"
            return Outcome("crashed", message, process.exitcode)

    def log(self, slot: int) -> Path:
        """The file with the output of the processes of a slot."""
        return self.benchmark.out / STATE_DIR / f"process-{os.getpid()}-{slot}.log"

    def _start(self, slot: int) -> tuple[BaseProcess, Connection]:
        context = fresh_context(__name__)
        ours, theirs = context.Pipe()
        # No daemon: a daemon must not have loader workers.
        process = context.Process(
            target=_measure_cells,
            args=(self.benchmark, theirs, self.log(slot), *resources_for_slot(slot, self.at_once)),
        )
        process.start()
        theirs.close()
        return process, ours

    def close(self) -> None:
        """End the processes."""
        for process, connection in list(self.processes.values()):
            connection.close()
            process.terminate()
            process.join()
        self.processes.clear()


def _measure_cells(
    benchmark: Benchmark, connection: Connection, log: Path, environment: dict[str, str], cores: set[int] | None
) -> None:
    """Measure each cell that arrives, until the connection is closed."""
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    os.environ.update(environment)  # no GPU has been used yet
    if cores:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(len(cores))
    multiprocessing.set_start_method(None, force=True)  # loaders start workers in the platform's own way
    print(f"process {os.getpid()} on cores {available_cores()} with {environment}", flush=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the parent decides
    end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))  # upon which training saves first
    measurer = CellMeasurer(benchmark)
    with contextlib.suppress(EOFError):
        while True:
            connection.send(_measure(measurer, connection.recv()))


def _measure(measurer: CellMeasurer, cell: BenchmarkCell) -> Outcome:
    print(f"{time.strftime('%H:%M:%S')} {cell.name}", flush=True)
    try:
        measured = measurer.measure(cell)
    except (BadInput, FloatingPointError) as error:
        return Outcome("bad_input", str(error))
    except Interrupted:
        sys.exit(STOPPED)
    except Exception as error:  # a bug, whose traceback is in the log
        traceback.print_exc()
        return Outcome("crashed", f"{type(error).__name__}: {error}")
    if not measured:
        return Outcome("bad_input", "the first seed, which chooses its learning rate, was not measured")
    return Outcome("finished")
