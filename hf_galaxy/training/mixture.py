"""Several datasets in one training, by weights, and balanced classes: the joint sequence of their galaxies.

Legend of shapes: B galaxies, N rows of a dataset, P parts.
"""

import numpy as np
import torch
from torch.utils.data import Dataset

from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.errors import BadInput
from hf_galaxy.training.augmentation import USUAL, Augmentation
from hf_galaxy.training.sequence import ProcessShard, TrainingSequence
from hf_galaxy.training.settings import check_weights

BLOCK = 1024  # positions that are shuffled together


class Mixture(Dataset):
    """The endless sequence of several training sequences, each in proportion to its weight: for `training_batches`.

    As in a `TrainingSequence`, position p determines the galaxy and its random view by the seed alone, whatever was read before.
    Each part keeps its own order, so that every row of a part is seen once before any is seen twice. Among the first n positions a
    part has the fraction of its weight to within (1 + 1/1 + ... + 1/P) / 2 galaxies wherever n is a multiple of BLOCK, so that small
    weights lose nothing to rounding; within a block the parts are in random order.

    Args:
        parts: with the same seed, augmentation, shard and batch size, and different `part`.
        weights: of each part, above 0; they need not add up to 1.

    Raises:
        BadInput: the weights are invalid, or the parts do not fit together.
    """

    def __init__(self, parts: list[TrainingSequence], weights: list[float]) -> None:
        check_weights(weights, len(parts))
        if len({(p.streamed, p.lanes, p.run, p.galaxies.framing) for p in parts}) > 1:
            raise BadInput("datasets can be mixed if all are streamed or none is, and all have the same framing")
        self.parts, self.streamed = parts, parts[0].streamed
        # Integers, so that `before` does not depend on rounding. A weight of one in 10**9 is exact to 0.1 %.
        self.weights = [max(1, round(weight / sum(weights) * 2**40)) for weight in weights]
        self.blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getitem__(self, positions: list[int]) -> dict[str, torch.Tensor]:
        rows_of_parts = [self.row(position) for position in positions]
        if self.streamed:
            lane, place = self.parts[0].lane(positions[0])
            for part, own in zip(self.parts, self.before(place), strict=True):
                part.prefetch(lane, own)
        # Parts that are strata of one dataset are read together.
        rows_of: dict[Galaxies, list[int]] = {}
        places = []
        for part, row in rows_of_parts:
            rows = rows_of.setdefault(self.parts[part].galaxies, [])
            places.append((self.parts[part].galaxies, len(rows)))
            rows.append(row)
        batches = {galaxies: galaxies[rows] for galaxies, rows in rows_of.items()}
        batch = next(iter(batches.values()))
        if len(batches) > 1:
            batch = {name: torch.cat([batches[g][name][i : i + 1] for g, i in places]) for name in batch}
        return self.parts[0].with_views(batch, positions)

    def row(self, position: int) -> tuple[int, int]:
        """The part that a position belongs to, and the row of its dataset."""
        lane, place = self.parts[0].lane(position)
        parts, places = self._block(place // BLOCK)
        part, own = int(parts[place % BLOCK]), int(places[place % BLOCK])
        return part, self.parts[part].row_in(lane, own)

    def before(self, place: int) -> list[int]:
        """The number of places of each part among the first `place` of a lane; they add up to `place`."""
        block, within = divmod(place, BLOCK)
        counts = np.array(self._apportion(block * BLOCK))
        if within:
            counts += np.bincount(self._block(block)[0][:within], minlength=len(self.parts))
        return counts.tolist()

    def _apportion(self, total: int) -> list[int]:
        # Each part, the heaviest first, gets its fraction of the rest, rounded. It never falls as `total` grows, and grows by one at most
        # from one total to the next.
        counts, left, weight_left = [0] * len(self.parts), total, sum(self.weights)
        for part in sorted(range(len(self.parts)), key=lambda i: -self.weights[i]):
            weight = self.weights[part]
            counts[part] = (2 * weight * left + weight_left) // (2 * weight_left)
            left, weight_left = left - counts[part], weight_left - weight
        return counts

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """(BLOCK,) each: the part at every place of a block, and the place within that part."""
        if block not in self.blocks:
            first, end = (np.array(self._apportion(b * BLOCK)) for b in (block, block + 1))
            order = np.repeat(np.arange(len(self.parts)), end - first)
            own = np.concatenate([np.arange(*ends) for ends in zip(first, end, strict=True)])
            rng = np.random.default_rng([self.parts[0].seed, len(self.parts), block])
            parts = rng.permutation(order)
            places = np.empty_like(own)
            places[np.argsort(parts, kind="stable")] = own
            self.blocks = {b: arrays for b, arrays in self.blocks.items() if b == block - 1} | {block: (parts, places)}
        return self.blocks[block]


def mixed(
    datasets: list[Galaxies], weights: list[float], seed: int, augmentation: Augmentation = USUAL,
    shard: ProcessShard | None = None, batch_size: int = 1, strata: list[np.ndarray] | None = None, power: float = 0.0,
) -> Mixture:  # fmt: skip
    """The training sequence of several datasets, each in proportion to its weight, and balanced within.

    Args:
        weights: of each dataset; they need not add up to 1.
        shard, batch_size: as in `TrainingSequence`.
        strata: of each dataset, (N,), such as those of `splits.strata_of`; None: not balanced.
        power: as in `balanced`; a dataset's weight is divided among its strata.

    Raises:
        BadInput: the weights or the power are invalid, or streams are to be balanced.
    """
    check_weights(weights, len(datasets))
    parts: list[TrainingSequence] = []
    of_parts: list[float] = []
    for d, (galaxies, weight) in enumerate(zip(datasets, weights, strict=True)):
        groups, shares = ([None], [1.0]) if strata is None else balanced(strata[d], power)
        for among, of_dataset in zip(groups, shares, strict=True):
            parts.append(TrainingSequence(galaxies, seed, augmentation, shard, batch_size, among, part=len(parts)))
            of_parts.append(weight * of_dataset)
    return Mixture(parts, of_parts)


def balanced(strata: np.ndarray, power: float) -> tuple[list[np.ndarray], list[float]]:
    """The rows of each stratum, and its fraction of the draws, proportional to n ** (1 - power) for n galaxies.

    Args:
        strata: (N,) any integers, such as classes.
        power: 0: every galaxy is equally frequent; 1: every stratum is.

    Raises:
        BadInput: the power is not in [0, 1].
    """
    if not 0 <= power <= 1:
        raise BadInput(
            f"--balance {power}: must be in [0, 1]; 0 leaves classes as they are, 1 makes all equally frequent"
        )
    sizes = np.unique(strata, return_counts=True)[1]
    rows = np.split(np.argsort(strata, kind="stable"), np.cumsum(sizes)[:-1])
    shares = sizes ** (1.0 - power)
    return rows, (shares / shares.sum()).tolist()
