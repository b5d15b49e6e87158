"""Galaxies as a frozen backbone sees them: their features, computed once, for a head that is trained on nothing else.

Legend of shapes: N galaxies, B of them in a batch, D features.
"""

import contextlib
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import Dataset

from hf_galaxy.data import Galaxies, Label, Rows
from hf_galaxy.decision_tree import DecisionTree
from hf_galaxy.model import GalaxyPreTrainedModel
from hf_galaxy.progress import progress
from hf_galaxy.sequence import Share, evaluation_batches
from hf_galaxy.views import Framing, eval_view


class GalaxyFeatures(Dataset):
    """Galaxies whose features are known: as `data.Galaxies`, with `features` (B, D) float32 instead of `pixels`.

    Args:
        columns: of all galaxies, in memory: `features` (N, D), and the target.
        framing: of the view that the backbone was shown.
    """

    def __init__(self, columns: dict[str, torch.Tensor], framing: Framing):
        self.columns, self.framing, self.rows = columns, framing, columns["features"]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        return {name: values[indices] for name, values in self.columns.items()}

    @property
    def bytes(self) -> int:
        """That they take in memory."""
        return sum(values.nbytes for values in self.columns.values())


def features_of(
    model: GalaxyPreTrainedModel, splits: dict[str, list[Rows]], target: DecisionTree | Label, batch_size: int, share: Share,
    workers: int, accelerator: Accelerator,
) -> dict[str, list[GalaxyFeatures]]:  # fmt: skip
    """What the backbone, in evaluation mode, makes of the evaluation view of each galaxy. Every process must call it.

    The processes share out the galaxies, and each gets the features of all.

    Args:
        splits: of each split the rows of every dataset.
        batch_size: galaxies at once, in each process.
    """
    # As in the training loop: with channels last, convolutions are faster.
    model.to(accelerator.device, memory_format=torch.channels_last).eval()
    framing = model.config.framing
    bar = progress(
        total=sum(len(rows) for parts in splits.values() for rows in parts), unit=" galaxies", unit_scale=True,
        desc="features", disable=not accelerator.is_main_process,
    )  # fmt: skip

    @torch.no_grad()
    def of(rows):
        own = []
        for batch in evaluation_batches(Galaxies(rows, framing, target), batch_size, share, workers):
            pixels = batch.pop("pixels").to(accelerator.device, non_blocking=True)
            with accelerator.autocast():
                features = model.features(eval_view(pixels, framing))
            own.append(batch | {"features": features.float().cpu()})
            bar.update(len(pixels) * share.processes)
        batches = gather_object(own)
        return GalaxyFeatures({name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}, framing)

    with bar:
        return {split: [of(rows) for rows in parts] for split, parts in splits.items()}


@contextlib.contextmanager
def without_backbone(model: GalaxyPreTrainedModel) -> Iterator[None]:
    """Meanwhile the model is its head, and is called with features (B, D) in the place of pictures."""
    parts = model.backbone, model.pixel_mean, model.pixel_std
    model.backbone, model.pixel_mean, model.pixel_std = nn.Identity(), torch.zeros(()), torch.ones(())
    try:
        yield
    finally:
        model.backbone, model.pixel_mean, model.pixel_std = parts
