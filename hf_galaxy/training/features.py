"""Features of galaxies from a frozen backbone, computed once, for a head that is trained on them alone.

Legend of shapes: N galaxies, B of them in a batch, D features.
"""

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset

from hf_galaxy.data.galaxies import Galaxies, picture_column
from hf_galaxy.data.schema import contents_of
from hf_galaxy.data.targets import Rows, Target, tables_of
from hf_galaxy.data.views import Framing, eval_view
from hf_galaxy.files import whole_file
from hf_galaxy.models.model import GalaxyPreTrainedModel
from hf_galaxy.progress import progress
from hf_galaxy.randomness import key_of
from hf_galaxy.training.sequence import ProcessShard, evaluation_batches

BATCH = 64  # galaxies per forward pass


class GalaxyFeatures(Dataset):
    """As `galaxies.Galaxies`, with `features` (B, D) float32 instead of `pixels`.

    Args:
        columns: of all galaxies, in memory: `features` (N, D), and the target.
        framing: of the views from which the features were computed.
    """

    def __init__(self, columns: dict[str, torch.Tensor], framing: Framing) -> None:
        self.columns, self.framing, self.rows = columns, framing, columns["features"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        return {name: values[indices] for name, values in self.columns.items()}

    @property
    def bytes(self) -> int:
        """Memory of all columns."""
        return sum(values.nbytes for values in self.columns.values())


def features_of(
    model: GalaxyPreTrainedModel, splits: dict[str, list[Rows]], target: Target, batch_size: int, shard: ProcessShard,
    workers: int, accelerator: Accelerator,
) -> dict[str, list[GalaxyFeatures]]:  # fmt: skip
    """The features of the evaluation view of each galaxy, with the backbone in evaluation mode. Every process must call it.

    Each process computes a part of the galaxies, and gets the features of all.

    Args:
        splits: for each split the rows of every dataset.
        batch_size: galaxies per forward pass of a process.
    """
    # As in the training loop: with channels last, convolutions are faster.
    model.to(accelerator.device, memory_format=torch.channels_last).eval()
    framing = model.config.framing
    bar = progress(
        total=sum(len(rows) for parts in splits.values() for rows in parts), unit=" galaxies", unit_scale=True,
        desc="features", disable=not accelerator.is_main_process,
    )  # fmt: skip

    @torch.no_grad()
    def compute(rows: Rows) -> GalaxyFeatures:
        own = []
        for batch in evaluation_batches(Galaxies(rows, framing, target), batch_size, shard, workers):
            pixels = batch.pop("pixels").to(accelerator.device, non_blocking=True)
            with accelerator.autocast():
                features = model.features(eval_view(pixels, framing))
            own.append(batch | {"features": features.float().cpu()})
            bar.update(len(pixels) * shard.processes)
        batches = gather_object(own)
        return GalaxyFeatures({name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}, framing)

    with bar:
        return {split: [compute(rows) for rows in parts] for split, parts in splits.items()}


class FeatureStore:
    """A cache of the features of whole datasets, for many heads that are trained on parts of them.

    Args:
        folder: of the cache: a safetensors file for each dataset and backbone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: tuple[str, torch.Tensor, dict[str, int]] | None = None  # digest, features, id_str -> row

    def lookup(
        self,
        model: GalaxyPreTrainedModel,
        name: str,
        parts: list[Rows],
        target: Target,
        accelerator: Accelerator,
    ) -> Callable[[list[Rows]], GalaxyFeatures]:
        """A function from rows of a dataset to their features, targets and `keys`.

        Args:
            name: of the dataset.
            parts: all its rows, those of each split.
        """
        digest = self._digest(model, name, parts)
        if self._loaded is None or digest != self._loaded[0]:
            file = self.folder / f"{digest}.safetensors"
            if not file.exists():
                shard = ProcessShard(accelerator.process_index, accelerator.num_processes)
                computed = features_of(model, {"all": parts}, target, BATCH, shard, 0, accelerator)["all"]
                with whole_file(file) as partial:
                    save_file({"features": torch.cat([each.columns["features"] for each in computed])}, partial)
            ids = (i for table in _tables(parts, ["id_str"]) for i in table["id_str"].to_pylist())
            self._loaded = digest, load_file(file)["features"], {name: place for place, name in enumerate(ids)}
        _, features, places = self._loaded

        def features_of_rows(rows: list[Rows]) -> GalaxyFeatures:
            tables = list(_tables(rows, ["id_str"], target))
            ids = [name for table in tables for name in table["id_str"].to_pylist()]
            targets = [target.tensors(table, rows[0].features) for table in tables]
            targets = {each: torch.cat([some[each] for some in targets]) for each in targets[0]}
            keys = torch.tensor([key_of(name) for name in ids])
            return GalaxyFeatures(
                {"features": features[[places[name] for name in ids]], "keys": keys, **targets}, model.config.framing
            )

        return features_of_rows

    @staticmethod
    def _digest(model: GalaxyPreTrainedModel, name: str, parts: list[Rows]) -> str:
        """Of the backbone, its framing, stretch and normalisation; of the names of all galaxies; and of the pictures of some."""
        digest = hashlib.sha256(f"{name} {model.config.framing}".encode())
        for values in (*model.backbone.state_dict().values(), *model.buffers(recurse=False)):
            digest.update(values.detach().cpu().contiguous().numpy().tobytes())
        for rows in parts:
            for table in tables_of(rows, ["id_str"]):
                digest.update("\n".join(table["id_str"].to_pylist()).encode())
            column = picture_column(model.config.framing)
            some = rows.select_columns([column]).with_format("arrow")[:10][column]
            for content in contents_of(some):
                digest.update(content or b"")
        return digest.hexdigest()[:32]


@contextlib.contextmanager
def without_backbone(model: GalaxyPreTrainedModel) -> Iterator[None]:
    """Within the block the model is its head, and is called with features (B, D) instead of pictures."""
    backbone, model.backbone = model.backbone, nn.Identity()
    model.__dict__["features"] = (
        _as_they_are  # hides the method of the class: features are neither stretched nor normalised
    )
    try:
        yield
    finally:
        del model.__dict__["features"]
        model.backbone = backbone


def _as_they_are(features: torch.Tensor) -> torch.Tensor:
    return features


def _tables(parts: list[Rows], columns: list[str], target: Target | None = None) -> Iterator[pa.Table]:
    return itertools.chain.from_iterable(tables_of(rows, columns, target) for rows in parts)
