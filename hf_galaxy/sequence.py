"""In which order training and evaluation walk through the galaxies, and who takes which: positions, shares, batches.

Legend of shapes: B galaxies, A answers, C side of the canvas.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from hf_galaxy.data import Galaxies
from hf_galaxy.errors import BadInput
from hf_galaxy.streaming import StreamedRows
from hf_galaxy.views import draw_affine


class TrainingSequence(Dataset):
    """The endless sequence of galaxies that training walks through: shuffle after shuffle of the same rows.

    Position p fixes the row and the random view (`affine`, (B, 2, 3)), by the seed alone. So a run is the same however
    the positions are dealt out to processes, accumulation steps and loader workers, and goes on exactly where it stopped.

    A stream is divided among the processes, so that each reads a part of it: of every shuffle each process sees an equal
    number of galaxies, none that another sees, and with several processes some few are left over till the next shuffle.

    Args:
        share, batch_size: how the positions will be dealt out; only a stream needs to know.
    """

    def __init__(
        self, galaxies: Galaxies, seed: int, flip: bool = True, share: "Share | None" = None, batch_size: int = 1
    ):
        self.galaxies, self.seed, self.flip = galaxies, seed, flip
        streamed = isinstance(galaxies.rows, StreamedRows)
        self.shuffle = galaxies.rows.shuffled if streamed else lambda rng: rng.permutation(len(galaxies))
        self.lanes = share.processes if streamed and share else 1
        self.run = share.micro_batch(batch_size) if streamed and share else 1  # so many positions are in one lane
        self.per_lane = len(galaxies) // self.lanes
        if not self.per_lane:
            raise BadInput(f"{self.lanes} processes cannot share out {len(galaxies)} training galaxies")
        self.ahead = galaxies.rows.window if streamed else 0
        self.shuffles: dict[int, np.ndarray] = {}

    def __getitem__(self, positions: list[int]) -> dict[str, torch.Tensor]:
        rows = [self.row(p) for p in positions]
        if isinstance(self.galaxies.rows, StreamedRows):
            self.galaxies.rows.prefetch(self._upcoming(positions[0]))
        views = draw_affine(self.seed, positions, self.galaxies.framing, self.flip)
        return self.galaxies[rows] | {"affine": torch.from_numpy(views)}

    def row(self, position: int) -> int:
        """The row that stands at a position."""
        epoch, place = self._place(position)
        return int(self._order(epoch)[place])

    def _place(self, position):
        turn, lane = divmod(position // self.run, self.lanes)
        epoch, place = divmod(turn * self.run + position % self.run, self.per_lane)
        return epoch, lane * self.per_lane + place

    def _order(self, epoch):
        if epoch not in self.shuffles:
            shuffle = self.shuffle(np.random.default_rng([self.seed, 0, epoch]))
            self.shuffles = {e: s for e, s in self.shuffles.items() if e == epoch - 1} | {epoch: shuffle}
        return self.shuffles[epoch]

    def _upcoming(self, position):
        """The rows of the next window of this lane."""
        epoch, place = self._place(position)
        end = (place // self.per_lane + 1) * self.per_lane
        return self._order(epoch)[place : min(end, place + self.ahead)]


@dataclass(frozen=True)
class Share:
    """Which part of each batch this process computes: its rank, of so many, in so many micro-batches a step."""

    rank: int = 0
    processes: int = 1
    accumulate: int = 1

    def micro_batch(self, batch_size: int) -> int:
        """Galaxies at once, of a batch of `batch_size` over all processes and micro-batches.

        Raises:
            BadInput: the batch cannot be shared out evenly.
        """
        parts = self.processes * self.accumulate
        if batch_size % parts:
            raise BadInput(f"--batch-size {batch_size} is not divisible by {parts} (processes x accumulation steps)")
        return batch_size // parts


def training_batches(
    sequence: TrainingSequence, batch_size: int, steps: range, share: Share, workers: int
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

    if isinstance(sequence.galaxies.rows, StreamedRows):
        workers = min(workers, 1)  # each would read every row group
    return iter(_loader(sequence, positions(), workers))


def evaluation_batches(
    galaxies: Galaxies, batch_size: int, share: Share, workers: int
) -> Iterable[dict[str, torch.Tensor]]:
    """This process's galaxies in batches of up to `batch_size`: every galaxy of the split in exactly one process, once."""
    first, end = (rank * len(galaxies) // share.processes for rank in (share.rank, share.rank + 1))
    batches = [list(range(start, min(end, start + batch_size))) for start in range(first, end, batch_size)]
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


def _loader(dataset, batches, workers):
    # batch_size=None: the "sampler" gives whole batches of indices, and the dataset answers with whole batches.
    return DataLoader(dataset, None, sampler=batches, num_workers=workers, pin_memory=torch.cuda.is_available())
