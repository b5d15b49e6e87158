"""What a sweep will cost: some steps of each kind of run tried out here, and added up over its cells."""

import heapq
import itertools
import os
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
from hf_galaxy.outcome import VARIABLE
from hf_galaxy.sweeps.attempt import ending
from hf_galaxy.sweeps.grid import Cell, name_of
from hf_galaxy.sweeps.scheduler import resources_for_slot

if TYPE_CHECKING:
    from hf_galaxy.training.estimate import Estimate

COUNTED = {"subset", "epochs", "validate-every"}  # options that say how many galaxies a run sees
FREE = {
    "seed", "learning-rate", "weight-decay", "layer-decay", "head-dropout", "schedule", "warmup", "cooldown", "clip-norm",
    "patience", "min-votes",
}  # fmt: skip  # and those that change neither this nor what a galaxy costs


@dataclass(frozen=True)
class Cost:
    """What the cells of one kind need, which differ in nothing that changes what a galaxy costs.

    Attributes:
        kind: the options that they have in common and other cells have not; empty if all are of one kind.
        cells: of them, those to be run.
        tried: of each the estimate.
        start_seconds: of a run before its first step and after its last: to start Python, to open the data.
    """

    kind: str
    cells: list[Cell]
    tried: "list[Estimate]"
    start_seconds: float

    @property
    def seconds(self) -> list[float]:
        """Of each cell, from the start of its command to its end."""
        return [self.start_seconds + each.seconds + each.test_seconds for each in self.tried]

    @property
    def seen(self) -> int:
        """Galaxies in all steps of all cells."""
        return sum(each.seen for each in self.tried)

    @property
    def seconds_per_galaxy(self) -> float:
        """Of training, loading included."""
        return 1 / self.tried[0].galaxies_per_second


def kinds_of(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The cells by the options that may change what a galaxy costs: all but how many there are, the seed and the like."""
    kinds = {}
    for cell in cells:
        own = {option: value for option, value in cell.options.items() if option not in COUNTED | FREE}
        kinds.setdefault(name_of(own), []).append(cell)
    return kinds


def costs_of(cells: Sequence[Cell], at_once: int) -> list[Cost]:
    """What these cells will need, on this machine as it is now, each from its beginning and without early stopping.

    Of each kind the run on most galaxies is tried out by its own --estimate. As many are tried out at the same time as will
    run at the same time, since they slow each other down.

    Raises:
        BadInput: a value is no number, a run refuses its settings, or a script has no estimate.
    """
    kinds = kinds_of(cells)
    chosen = [max(cells, key=lambda cell: _number(cell, "subset")) for cells in kinds.values()]
    rounds = -(-len(chosen) // at_once)
    slots = deque(range(at_once))

    def tried(cell):
        slot = slots.popleft()
        try:
            return _try_out(cell, *resources_for_slot(slot, at_once))
        finally:
            slots.append(slot)

    pool = ThreadPoolExecutor(at_once)
    try:
        found = list(pool.map(tried, itertools.islice(itertools.cycle(chosen), rounds * at_once)))
    finally:
        pool.shutdown(cancel_futures=True)
    costs = []
    for number, (kind, members) in enumerate(kinds.items()):
        slowest, start = min(found[number :: len(chosen)], key=lambda pair: pair[0].galaxies_per_second)
        costs.append(Cost(kind, members, [_of(slowest, cell) for cell in members], start))
    return costs


def _try_out(cell, environment, cores):
    """The estimate of a cell, and the seconds that its command took besides."""
    from hf_galaxy.training.estimate import Estimate

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [*cell.command, "--estimate"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | environment | {VARIABLE: folder},
        )
        if cores:
            os.sched_setaffinity(process.pid, cores)
        text = process.communicate()[0].decode(errors="replace")
        estimate = Estimate.load(Path(folder))
    seconds = time.perf_counter() - start
    if process.returncode:
        raise BadInput(f"{cell.name}: cannot be tried out: {ending(process.returncode, text).why}")
    if estimate is None:
        raise BadInput(f"{cell.name}: {cell.command[1]} does not say what it needs when it is given --estimate")
    return estimate, seconds - estimate.tried_seconds


def _of(estimate, cell):
    counted = cell.options.keys() & COUNTED
    return estimate.with_settings(**{name.replace("-", "_"): _number(cell, name) for name in counted})


def _number(cell, option):
    try:
        return float(Fraction(cell.options.get(option, "1")))
    except (ValueError, ZeroDivisionError) as error:
        raise BadInput(f"--vary {option}: {cell.options[option]!r} is no number") from error


def hours_of(seconds: Sequence[float], at_once: int) -> float:
    """Until all runs are done, each started as soon as there is room, in this order."""
    ends = [0.0] * at_once
    for each in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + each)
    return max(ends) / 3600


def disk_of(costs: Sequence[Cost], at_once: int) -> int:
    """Bytes: what stays of all runs, and the checkpoints of those that need most, running at the same time."""
    tried = [each for cost in costs for each in cost.tried]
    running = sorted(each.disk_bytes for each in tried)[-at_once:]
    return sum(each.left_bytes for each in tried) + sum(running)
