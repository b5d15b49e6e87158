"""Galaxies as a frozen backbone sees them: their features, computed once, for a head that is trained on nothing else.

Legend of shapes: N galaxies, B of them in a batch, D features.
"""

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset

from hf_galaxy.data.galaxies import Galaxies
from hf_galaxy.data.targets import Rows, Target, tables_of
from hf_galaxy.data.views import Framing, eval_view
from hf_galaxy.files import whole_file
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.progress import progress
from hf_galaxy.randomness import key_of
from hf_galaxy.training.sequence import ProcessShard, evaluation_batches

BATCH = 64  # galaxies at once


class GalaxyFeatures(Dataset):
    """Galaxies whose features are known: as `galaxies.Galaxies`, with `features` (B, D) float32 instead of `pixels`.

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
    model: GalaxyPreTrainedModel, splits: dict[str, list[Rows]], target: Target, batch_size: int, share: ProcessShard,
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


class FeatureStore:
    """Features of whole datasets, computed once and kept in files, for many heads that are trained on parts of them.

    Args:
        folder: of the files, a safetensors file for each dataset as each backbone sees it.
    """

    def __init__(self, folder: Path):
        self.folder, self._newest = folder, (None, None, None)

    def of(
        self,
        model: GalaxyPreTrainedModel,
        name: str,
        parts: list[Rows],
        target: Target,
        accelerator: Accelerator,
    ) -> Callable[[list[Rows]], GalaxyFeatures]:
        """What gives, of some rows of a dataset, their features, targets and `keys`, as a head is trained and measured on.

        Args:
            name: of the dataset.
            parts: all its rows, those of each split.
        """
        digest = self._digest(model, name, parts)
        if digest != self._newest[0]:
            file = self.folder / f"{digest}.safetensors"
            if not file.exists():
                share = ProcessShard(accelerator.process_index, accelerator.num_processes)
                known = features_of(model, {"all": parts}, target, BATCH, share, 0, accelerator)["all"]
                with whole_file(file) as partial:
                    save_file({"features": torch.cat([each.columns["features"] for each in known])}, partial)
            ids = (i for table in _tables(parts, ["id_str"]) for i in table["id_str"].to_pylist())
            self._newest = digest, load_file(file)["features"], {name: place for place, name in enumerate(ids)}
        _, features, places = self._newest

        def known(rows):
            tables = list(_tables(rows, ["id_str"], target))
            ids = [name for table in tables for name in table["id_str"].to_pylist()]
            targets = [target.tensors(table, rows[0].features) for table in tables]
            targets = {each: torch.cat([some[each] for some in targets]) for each in targets[0]}
            keys = torch.tensor([key_of(name) for name in ids])
            return GalaxyFeatures(
                {"features": features[[places[name] for name in ids]], "keys": keys, **targets}, model.config.framing
            )

        return known

    @staticmethod
    def _digest(model, name, parts):
        """Of the backbone, of how it is shown pictures, and of the dataset: its galaxies, and the pictures of some of them."""
        digest = hashlib.sha256(f"{name} {model.config.framing}".encode())
        for values in (*model.backbone.state_dict().values(), model.pixel_mean, model.pixel_std):
            digest.update(values.detach().cpu().contiguous().numpy().tobytes())
        for rows in parts:
            for table in tables_of(rows, ["id_str"]):
                digest.update("\n".join(table["id_str"].to_pylist()).encode())
            some = rows.select_columns(["image"]).with_format("arrow")[:10]["image"].combine_chunks()
            for content in some.field("bytes").to_pylist():
                digest.update(content)
        return digest.hexdigest()[:32]


@contextlib.contextmanager
def without_backbone(model: GalaxyPreTrainedModel) -> Iterator[None]:
    """Meanwhile the model is its head, and is called with features (B, D) in the place of pictures."""
    parts = model.backbone, model.pixel_mean, model.pixel_std
    zero = torch.zeros((), device=model.pixel_mean.device)
    model.backbone, model.pixel_mean, model.pixel_std = nn.Identity(), zero, zero + 1
    try:
        yield
    finally:
        model.backbone, model.pixel_mean, model.pixel_std = parts


def _tables(parts, columns, target=None):
    return itertools.chain.from_iterable(tables_of(rows, columns, target) for rows in parts)
