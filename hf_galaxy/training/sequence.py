"""In which order training and evaluation walk through the galaxies, and who takes which: positions, shares, batches.

Legend of shapes: B galaxies, A answers, C side of the canvas.
"""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from hf_galaxy.cores import available_cores
from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.streaming import StreamedRows
from hf_galaxy.errors import BadInput
from hf_galaxy.training.augmentation import USUAL, Augmentation, draw_affine

FEW_CORES = 3  # measured for 2; that more had best be shared with workers is computed (benchmarks/README.md)


@dataclass(frozen=True)
class ProcessShard:
    """Which part of each batch this process computes: its rank, of so many, in so many micro-batches a step."""

    rank: int = 0
    processes: int = 1
    accumulate: int = 1

    @classmethod
    def of(cls, rank: int, processes: int, batch_size: int, at_once: int | None = None) -> "ProcessShard":
        """The share that takes a batch in as few micro-batches as there must be, of at most `at_once` galaxies each.

        So the batch stays the same when the number of processes changes.

        Raises:
            BadInput: the batch cannot be shared out evenly.
        """
        if batch_size % processes:
            raise BadInput(f"--batch-size {batch_size} is not divisible by the {processes} processes")
        own = batch_size // processes
        parts = (parts for parts in range(1, own + 1) if own % parts == 0 and own // parts <= (at_once or own))
        share = cls(rank, processes, next(parts))
        if at_once is not None and 2 * share.micro_batch(batch_size) < min(own, at_once):
            raise BadInput(
                f"--batch-size {batch_size}: the {own} galaxies of a process do not part into equal shares of nearly "
                f"--device-batch {at_once}; choose multiples of each other"
            )
        return share

    def micro_batch(self, batch_size: int) -> int:
        """Galaxies at once, of a batch of `batch_size` over all processes and micro-batches.

        Raises:
            BadInput: the batch cannot be shared out evenly.
        """
        parts = self.processes * self.accumulate
        if batch_size % parts:
            raise BadInput(f"--batch-size {batch_size} is not divisible by {parts} (processes x micro-batches)")
        return batch_size // parts


class Positions(Protocol):
    """What training walks through, such as a TrainingSequence or a Mixture of them: galaxies and views by position.

    Attributes:
        streamed: rows are read where they are, in the order of the positions.
    """

    streamed: bool

    def __getitem__(self, positions: list[int]) -> dict[str, torch.Tensor]: ...


class TrainingSequence(Dataset):
    """The endless sequence of galaxies that training walks through: shuffle after shuffle of the same rows.

    Position p fixes the row and the random view (`affine`, (B, 2, 3)), by the seed alone. So a run is the same however
    the positions are dealt out to processes, micro-batches and loader workers, and goes on exactly where it stopped.

    A stream is divided among the processes, so that each reads a part of it: of every shuffle each process sees an equal
    number of galaxies, none that another sees, and with several processes some few are left over till the next shuffle.

    Args:
        share, batch_size: how the positions will be dealt out; only a stream needs to know.
        among: only these rows.
        part: its number in a mixture: each part shuffles in its own way.

    Raises:
        BadInput: there are fewer galaxies than processes that share them out, or `among` of a stream.
    """

    def __init__(
        self, galaxies: Galaxies, seed: int, augmentation: Augmentation = USUAL, share: ProcessShard | None = None,
        batch_size: int = 1, among: np.ndarray | None = None, part: int = 0,
    ):  # fmt: skip
        self.galaxies, self.seed, self.augmentation, self.part = galaxies, seed, augmentation, part
        self.streamed = isinstance(galaxies.rows, StreamedRows)
        if self.streamed and among is not None:
            raise BadInput(
                "a stream cannot be balanced: row groups would be read for single rows; leave out --streaming"
            )
        self.rows = len(galaxies) if among is None else among
        self.lanes = share.processes if self.streamed and share else 1
        self.run = share.micro_batch(batch_size) if self.streamed and share else 1  # so many positions are in one lane
        self.per_lane = (len(galaxies) if among is None else len(among)) // self.lanes
        if not self.per_lane:
            raise BadInput(f"{self.lanes} processes cannot share out {len(galaxies)} training galaxies")
        self.shuffles: dict[int, np.ndarray] = {}

    def __getitem__(self, positions: list[int]) -> dict[str, torch.Tensor]:
        rows = [self.row(p) for p in positions]
        self.prefetch(*self.lane(positions[0]))
        return self.galaxies[rows] | {"affine": self.views(positions)}

    def row(self, position: int) -> int:
        """The row that stands at a position."""
        return self.row_in(*self.lane(position))

    def views(self, positions: list[int]) -> torch.Tensor:
        """(B, 2, 3): the random view of each position."""
        return torch.from_numpy(draw_affine(self.seed, positions, self.galaxies.framing, self.augmentation))

    def lane(self, position: int) -> tuple[int, int]:
        """Which part of the shuffles a position belongs to, and how many positions of that part come before it.

        Positions are dealt to the parts of a stream as `training_batches` deals them to processes; else there is one part.
        """
        turn, lane = divmod(position // self.run, self.lanes)
        return lane, turn * self.run + position % self.run

    def row_in(self, lane: int, place: int) -> int:
        """The row at a place of a lane."""
        epoch, place = divmod(place, self.per_lane)
        return int(self._order(epoch)[lane * self.per_lane + place])

    def prefetch(self, lane: int, place: int) -> None:
        """Begin to read what comes from a place of a lane on, if this is a stream: its next window."""
        if self.streamed:
            epoch, place = divmod(place, self.per_lane)
            end = min(self.per_lane, place + self.galaxies.rows.window)
            self.galaxies.rows.prefetch(self._order(epoch)[lane * self.per_lane :][place:end])

    def _order(self, epoch):
        if epoch not in self.shuffles:
            rng = np.random.default_rng([self.seed, self.part, epoch])
            shuffle = self.galaxies.rows.shuffled(rng) if self.streamed else rng.permutation(self.rows)
            self.shuffles = {e: s for e, s in self.shuffles.items() if e == epoch - 1} | {epoch: shuffle}
        return self.shuffles[epoch]


def training_batches(
    sequence: Positions, batch_size: int, steps: range, share: ProcessShard, workers: int
) -> Iterator[dict[str, torch.Tensor]]:
    """This process's micro-batches, `share.accumulate` of them for each step.

    Args:
        batch_size: galaxies per step over all processes and micro-batches.
        steps: the steps to go; step s covers positions s * batch_size to (s + 1) * batch_size.
    """
    parts, micro = share.processes * share.accumulate, share.micro_batch(batch_size)

    def positions():
        for step in steps:
            for part in range(share.rank, parts, share.processes):
                first = step * batch_size + part * micro
                yield list(range(first, first + micro))

    if sequence.streamed:
        workers = min(workers, 1)  # each would read every row group
    return iter(_loader(sequence, positions(), workers))


def evaluation_batches(
    galaxies: Galaxies, batch_size: int, share: ProcessShard, workers: int
) -> Iterable[dict[str, torch.Tensor]]:
    """This process's galaxies in batches of up to `batch_size`: every galaxy of the split in exactly one process, once.

    Every process has the same number of batches, since in a sharded model each waits at every batch for the others; only of
    fewer galaxies than processes some have none. Where a `batch_size` of 1 does not go up, some batches are of 2.
    """
    first, end = (rank * len(galaxies) // share.processes for rank in (share.rank, share.rank + 1))
    fewest, most = len(galaxies) // share.processes, -(-len(galaxies) // share.processes)
    count = max(1, min(fewest, -(-most // batch_size)))
    edges = [first + part * (end - first) // count for part in range(count + 1)]
    batches = [list(range(*ends)) for ends in pairwise(edges) if ends[0] < ends[1]]
    if isinstance(galaxies.rows, StreamedRows):
        return _loader(_InOrder(galaxies, end), batches, min(workers, 1))
    return _loader(galaxies, batches, workers)


class _InOrder(Dataset):
    """Streamed galaxies that are gone through in order, up to a row: what comes next is fetched in advance."""

    def __init__(self, galaxies: Galaxies, end: int):
        self.galaxies, self.end = galaxies, end

    def __getitem__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        self.galaxies.rows.prefetch(np.arange(indices[0], min(self.end, indices[0] + self.galaxies.rows.window)))
        return self.galaxies[indices]


def _heed_only_the_trainer(worker):
    """In a loader worker: a SIGTERM ends it if it comes from the process that it works for, and only then.

    Schedulers send SIGTERM to every process of a job, but the trainer needs some more batches before it has saved.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return
    trainer = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait():
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def default_workers(device: torch.device) -> int:
    """How many processes had best decode pictures for one that trains on this device.

    None on a CPU of few cores: torch's threads wait for one another, so that all of them lose what a worker takes from one.
    """
    if device.type == "cpu" and torch.get_num_threads() <= FEW_CORES:
        return 0
    return min(8, max(1, len(available_cores()) // 2))


def _loader(dataset, batches, workers):
    # batch_size=None: the "sampler" gives whole batches of indices, and the dataset answers with whole batches.
    return DataLoader(
        dataset,
        None,
        sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_heed_only_the_trainer,
    )
