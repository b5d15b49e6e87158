"""The order of galaxies in training and evaluation, and their batches for each process.

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
from hf_galaxy.training.augmentation import USUAL, Augmentation
from hf_galaxy.training.random_views import draw_views

FEW_CORES = (
    3  # up to which training is fastest without workers: measured for 2, computed for more (benchmarks/README.md)
)


@dataclass(frozen=True)
class ProcessShard:
    """The part of each batch that this process computes: by its rank among the processes, in micro-batches."""

    rank: int = 0
    processes: int = 1
    accumulate: int = 1

    @classmethod
    def of(cls, rank: int, processes: int, batch_size: int, at_once: int | None = None) -> "ProcessShard":
        """The shard with the fewest micro-batches of at most `at_once` galaxies each.

        The batch does not change with the number of processes.

        Raises:
            BadInput: the batch cannot be divided evenly.
        """
        if batch_size % processes:
            raise BadInput(f"--batch-size {batch_size} is not divisible by the {processes} processes")
        own = batch_size // processes
        parts = (parts for parts in range(1, own + 1) if own % parts == 0 and own // parts <= (at_once or own))
        shard = cls(rank, processes, next(parts))
        if at_once is not None and 2 * shard.micro_batch(batch_size) < min(own, at_once):
            raise BadInput(
                f"--batch-size {batch_size}: the {own} galaxies of a process cannot be divided into equal micro-batches of nearly "
                f"--device-batch {at_once}; choose multiples of each other"
            )
        return shard

    def micro_batch(self, batch_size: int) -> int:
        """Galaxies in a micro-batch, for a batch of `batch_size` over all processes and micro-batches.

        Raises:
            BadInput: the batch cannot be divided evenly.
        """
        parts = self.processes * self.accumulate
        if batch_size % parts:
            raise BadInput(f"--batch-size {batch_size} is not divisible by {parts} (processes x micro-batches)")
        return batch_size // parts


class Positions(Protocol):
    """Galaxies and their random views by position in training, such as a TrainingSequence or a Mixture.

    Attributes:
        streamed: rows are read in the order of the positions.
    """

    streamed: bool

    def __getitem__(self, positions: list[int]) -> dict[str, torch.Tensor]: ...


class TrainingSequence(Dataset):
    """The endless sequence of training galaxies: one shuffle of the rows after another.

    Position p determines the row and the random view (`random_views.draw_views`), by the seed alone. So a run does not depend on
    the distribution of positions over processes, micro-batches and loader workers, and resumes exactly where it stopped.

    A stream is divided among the processes, so that each reads a part of it: from every shuffle each process sees an equal
    number of galaxies, different from those of the others; with several processes a few are left out of a shuffle.

    Args:
        shard, batch_size: the distribution of positions over processes; used for streams only.
        among: only these rows.
        part: its number in a mixture: each part has shuffles of its own.

    Raises:
        BadInput: there are fewer galaxies than processes, or `among` of a stream.
    """

    def __init__(
        self, galaxies: Galaxies, seed: int, augmentation: Augmentation = USUAL, shard: ProcessShard | None = None,
        batch_size: int = 1, among: np.ndarray | None = None, part: int = 0,
    ) -> None:  # fmt: skip
        self.galaxies, self.seed, self.augmentation, self.part = galaxies, seed, augmentation, part
        self.stream = galaxies.rows if isinstance(galaxies.rows, StreamedRows) else None
        self.streamed = self.stream is not None
        if self.streamed and among is not None:
            raise BadInput(
                "--streaming: a stream cannot be balanced, since row groups would be read for single rows; leave it out"
            )
        self.rows = len(galaxies) if among is None else among
        self.lanes = shard.processes if self.streamed and shard else 1
        self.run = shard.micro_batch(batch_size) if self.streamed and shard else 1  # consecutive positions in one lane
        self.per_lane = (len(galaxies) if among is None else len(among)) // self.lanes
        if not self.per_lane:
            raise BadInput(f"{len(galaxies)} training galaxies are too few for {self.lanes} processes")
        self.shuffles: dict[int, np.ndarray] = {}

    def __getitem__(self, positions: list[int]) -> dict[str, torch.Tensor]:
        rows = [self.row(p) for p in positions]
        self.prefetch(*self.lane(positions[0]))
        return self.with_views(self.galaxies[rows], positions)

    def row(self, position: int) -> int:
        """The row at a position."""
        return self.row_in(*self.lane(position))

    def with_views(self, batch: dict[str, torch.Tensor], positions: list[int]) -> dict[str, torch.Tensor]:
        """A batch of galaxies, with the random numbers of the view of each position."""
        arcsec = batch.pop("arcsec", None)
        return batch | draw_views(self.seed, positions, self.galaxies.framing, self.augmentation, arcsec)

    def lane(self, position: int) -> tuple[int, int]:
        """The lane of a position, and the number of positions of that lane before it.

        A stream has a lane for each process, with the positions that `training_batches` gives to it; else there is one lane.
        """
        turn, lane = divmod(position // self.run, self.lanes)
        return lane, turn * self.run + position % self.run

    def row_in(self, lane: int, place: int) -> int:
        """The row at a place of a lane."""
        epoch, place = divmod(place, self.per_lane)
        return int(self._order(epoch)[lane * self.per_lane + place])

    def prefetch(self, lane: int, place: int) -> None:
        """Begin to read the next window from a place of a lane on, if this is a stream."""
        if self.stream is not None:
            epoch, place = divmod(place, self.per_lane)
            end = min(self.per_lane, place + self.stream.window)
            self.stream.prefetch(self._order(epoch)[lane * self.per_lane :][place:end])

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self.shuffles:
            rng = np.random.default_rng([self.seed, self.part, epoch])
            shuffle = self.stream.shuffled(rng) if self.stream is not None else rng.permutation(self.rows)
            self.shuffles = {e: s for e, s in self.shuffles.items() if e == epoch - 1} | {epoch: shuffle}
        return self.shuffles[epoch]


def training_batches(
    sequence: Positions, batch_size: int, steps: range, shard: ProcessShard, workers: int
) -> Iterator[dict[str, torch.Tensor]]:
    """The micro-batches of this process, `shard.accumulate` for each step.

    Args:
        batch_size: galaxies per step over all processes and micro-batches.
        steps: step s covers positions s * batch_size to (s + 1) * batch_size.
    """
    parts, micro = shard.processes * shard.accumulate, shard.micro_batch(batch_size)

    def positions() -> Iterator[list[int]]:
        for step in steps:
            for part in range(shard.rank, parts, shard.processes):
                first = step * batch_size + part * micro
                yield list(range(first, first + micro))

    if sequence.streamed:
        workers = min(workers, 1)  # each would read every row group
    return iter(_loader(sequence, positions(), workers))


def evaluation_batches(
    galaxies: Galaxies, batch_size: int, shard: ProcessShard, workers: int
) -> Iterable[dict[str, torch.Tensor]]:
    """The galaxies of this process in batches of up to `batch_size`: every galaxy of the split once, in one of the processes.

    Every process has the same number of batches, since with a sharded model each waits at every batch for the others; only with
    fewer galaxies than processes some have none. With a `batch_size` of 1 some batches may have 2.
    """
    first, end = (rank * len(galaxies) // shard.processes for rank in (shard.rank, shard.rank + 1))
    fewest, most = len(galaxies) // shard.processes, -(-len(galaxies) // shard.processes)
    count = max(1, min(fewest, -(-most // batch_size)))
    edges = [first + part * (end - first) // count for part in range(count + 1)]
    batches = [list(range(*ends)) for ends in pairwise(edges) if ends[0] < ends[1]]
    if isinstance(galaxies.rows, StreamedRows):
        return _loader(_InOrder(galaxies, galaxies.rows, end), batches, min(workers, 1))
    return _loader(galaxies, batches, workers)


class _InOrder(Dataset):
    """Streamed galaxies that are read in order, up to a row; the next ones are read in advance."""

    def __init__(self, galaxies: Galaxies, stream: StreamedRows, end: int) -> None:
        self.galaxies, self.stream, self.end = galaxies, stream, end

    def __getitem__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        self.stream.prefetch(np.arange(indices[0], min(self.end, indices[0] + self.stream.window)))
        return self.galaxies[indices]


class _Loader(DataLoader):
    """A loader whose workers have SIGTERM blocked in all their threads: torch starts some before `_ignore_foreign_sigterm`."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        if not hasattr(signal, "sigwaitinfo"):  # macOS and Windows
            return super().__iter__()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # workers inherit it
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_foreign_sigterm(worker: int) -> None:
    """In a loader worker: only a SIGTERM from the trainer, its parent, ends it.

    Schedulers send SIGTERM to every process of a job, but the trainer needs some more batches before it has saved.
    """
    if not hasattr(signal, "sigwaitinfo"):
        return
    trainer = os.getppid()

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def default_workers(device: torch.device) -> int:
    """The number of processes that decode pictures for one that trains on this device.

    None on a CPU with few cores: torch's threads wait for one another, so that each worker slows down all of them.
    """
    if device.type == "cpu" and torch.get_num_threads() <= FEW_CORES:
        return 0
    return min(8, max(1, len(available_cores()) // 2))


def _loader(dataset: Dataset, batches: Iterable[list[int]], workers: int) -> DataLoader:
    # batch_size=None: the "sampler" gives whole batches of indices, and the dataset answers with whole batches.
    return _Loader(
        dataset,
        None,
        sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_foreign_sigterm,
    )
