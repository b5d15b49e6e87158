"""The cost of a sweep: some steps of each kind of run tried out here, and added up over its cells."""

import heapq
import itertools
import os
import shlex
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from hf_galaxy.errors import BadInput
from hf_galaxy.outcome import VARIABLE, Outcome
from hf_galaxy.sweeps.grid import RunCell, name_of
from hf_galaxy.sweeps.scheduler import resources_for_slot

if TYPE_CHECKING:
    from hf_galaxy.training.estimate import Estimate

LENGTH_OPTIONS = {"subset", "epochs", "validate-every"}  # which set the number of galaxies that a run sees
FREE_OPTIONS = {
    "seed", "learning-rate", "weight-decay", "layer-decay", "head-dropout", "schedule", "warmup", "cooldown", "clip-norm",
    "patience", "min-votes",
}  # fmt: skip  # which change neither this nor the time for a galaxy


@dataclass(frozen=True)
class Cost:
    """The cost of the cells of one kind, which differ only in options that do not change the time for a galaxy.

    Attributes:
        kind: the options that these cells share and other cells do not; empty if all are of one kind.
        cells: of this kind, those to be run.
        estimates: of each cell.
        start_seconds: of a run before its first step and after its last: to start Python, to open the data.
    """

    kind: str
    cells: list[RunCell]
    estimates: "list[Estimate]"
    start_seconds: float

    @property
    def seconds(self) -> list[float]:
        """Of each cell, from the start of its command to its end."""
        return [self.start_seconds + each.seconds + each.test_seconds for each in self.estimates]

    @property
    def seen(self) -> int:
        """Galaxies in all steps of all cells."""
        return sum(each.seen for each in self.estimates)

    @property
    def seconds_per_galaxy(self) -> float:
        """Of training, loading included."""
        return 1 / self.estimates[0].galaxies_per_second


def kinds_of(cells: Sequence[RunCell]) -> dict[str, list[RunCell]]:
    """The cells by the options that may change the time for a galaxy: all but the number of galaxies, the seed and the like."""
    kinds: dict[str, list[RunCell]] = {}
    for cell in cells:
        own = {option: value for option, value in cell.options.items() if option not in LENGTH_OPTIONS | FREE_OPTIONS}
        kinds.setdefault(name_of(own), []).append(cell)
    return kinds


def costs_of(cells: Sequence[RunCell], at_once: int) -> list[Cost]:
    """The costs of these cells on this machine in its present state, each from its beginning and without early stopping.

    Of each kind the run on most galaxies is tried out by its own --estimate. As many are tried out at the same time as will
    run at the same time, since they slow each other down.

    Raises:
        BadInput: a value is no number, a run refuses its settings, or a script has no estimate.
    """
    kinds = kinds_of(cells)
    largest = [max(cells, key=lambda cell: _number(cell, "subset")) for cells in kinds.values()]
    rounds = -(-len(largest) // at_once)
    slots = deque(range(at_once))

    def try_in_slot(cell: RunCell) -> "tuple[Estimate, float]":
        slot = slots.popleft()
        try:
            return _try_out(cell, *resources_for_slot(slot, at_once))
        finally:
            slots.append(slot)

    pool = ThreadPoolExecutor(at_once)
    try:
        trials = list(pool.map(try_in_slot, itertools.islice(itertools.cycle(largest), rounds * at_once)))
    finally:
        pool.shutdown(cancel_futures=True)
    costs = []
    for number, (kind, members) in enumerate(kinds.items()):
        slowest, start = min(trials[number :: len(largest)], key=lambda pair: pair[0].galaxies_per_second)
        costs.append(Cost(kind, members, [_estimate_of(cell, slowest) for cell in members], start))
    return costs


def _try_out(cell: RunCell, environment: dict[str, str], cores: set[int] | None) -> "tuple[Estimate, float]":
    """The estimate of a cell, and the seconds that its command took besides."""
    from hf_galaxy.training.estimate import Estimate

    command = [*cell.command, "--estimate"]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | environment | {VARIABLE: folder},
        )
        if cores:
            os.sched_setaffinity(process.pid, cores)
        outcome = Outcome.of(Path(folder), process.wait())
        estimate = Estimate.load(Path(folder))
    seconds = time.perf_counter() - start
    if outcome.kind != "finished":
        raise BadInput(f"{cell.name}: cannot be tried out: {outcome.message}; by hand: {shlex.join(command)}")
    if estimate is None:
        raise BadInput(f"{cell.name}: with --estimate its command writes none; --estimate of a sweep needs one")
    return estimate, seconds - estimate.tried_seconds


def _estimate_of(cell: RunCell, estimate: "Estimate") -> "Estimate":
    """The estimate of a cell, from that of another of its kind."""
    options = cell.options.keys() & LENGTH_OPTIONS
    return estimate.with_settings(**{option.replace("-", "_"): _number(cell, option) for option in options})


def _number(cell: RunCell, option: str) -> float:
    try:
        return float(Fraction(cell.options.get(option, "1")))
    except (ValueError, ZeroDivisionError) as error:
        raise BadInput(f"--vary {option}: {cell.options[option]!r} is no number") from error


def hours_of(seconds: Sequence[float], at_once: int) -> float:
    """Hours until all runs are done, each started as soon as there is room, in this order."""
    ends = [0.0] * at_once
    for each in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + each)
    return max(ends) / 3600


def disk_of(costs: Sequence[Cost], at_once: int) -> int:
    """Bytes on disk: the files that remain of all runs, and the checkpoints of the largest runs at the same time."""
    estimates = [each for cost in costs for each in cost.estimates]
    running = sorted(each.disk_bytes for each in estimates)[-at_once:]
    return sum(each.left_bytes for each in estimates) + sum(running)
